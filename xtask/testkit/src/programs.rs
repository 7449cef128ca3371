//! The programs that demo and benchmark start: acctd, built, and this one.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{
    interrupt::{Interrupt, Interrupted},
    netns::Namespace,
    process::Process,
};

/// Building acctd with all its dependencies may take this long.
const BUILD_LIMIT: Duration = Duration::from_mins(30);

/// Builds programs of acctd's package, release profile, and returns their paths in the same order,
/// as cargo reports them. Each is given as cargo takes it: `--bin` and `acctd`.
pub fn build<const N: usize>(
    programs: [(&str, &str); N],
    interrupt: &Interrupt,
) -> Result<[PathBuf; N]> {
    let mut messages = tempfile::tempfile().context("cannot make a temporary file")?;
    let mut cargo = Process::spawn(
        Command::new(cargo())
            .args(["build", "--release", "--package", "acctd"])
            .args(programs.iter().flat_map(|(kind, name)| [kind, name]))
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stdout(messages.try_clone()?),
    )?;
    interrupt.wait_for_success(&mut cargo, BUILD_LIMIT)?;

    let mut text = String::new();
    messages.rewind()?;
    messages.read_to_string(&mut text)?;
    let built = executables(&text);
    let mut paths = [const { PathBuf::new() }; N];
    for ((_, name), path) in programs.iter().zip(&mut paths) {
        let found = built.iter().find(|(built, _)| built == name);
        let (_, executable) =
            found.with_context(|| format!("cargo built no program named {name}"))?;
        path.clone_from(executable);
    }
    Ok(paths)
}

/// The programs that cargo has built, by the names of their targets, from its messages in JSON.
pub fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    artifacts
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .collect()
}

/// The cargo that runs this program, else the one on `PATH`.
pub fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The part of cargo's message about a finished artifact that matters here;
/// other messages have no target and are no `Artifact`.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// A command for a namespace that ends with this process, even if that is
/// killed, and that Ctrl-C in a terminal does not reach: this process ends
/// its children itself, in order.
pub fn bound_command(namespace: &Namespace, program: impl AsRef<OsStr>) -> Command {
    let mut command = namespace.command("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(program)
        .process_group(0)
        .stdin(Stdio::null());
    command
}

/// This program, which is also the traffic generator and the TCP and UDP
/// peers.
pub fn this_program() -> Result<PathBuf> {
    env::current_exe().context("cannot tell where this program is")
}

/// How a program ends that has done this; an error is reported.
#[expect(clippy::print_stderr, reason = "where commands report their errors")]
pub fn exit_code(name: &str, done: Result<()>) -> ExitCode {
    let Err(error) = done else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{name}: error: {error:#}");
    if error.is::<Interrupted>() {
        ExitCode::from(130) // As a shell reports a program ended by Ctrl-C.
    } else {
        ExitCode::FAILURE
    }
}
