//! A guest's run, from power on to power off.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use testkit::interrupt::Interrupt;
use testkit::process::{self, Process};

use super::machine::{Accelerator, CONSOLE, Machine, NotBooted};

const POLL: Duration = Duration::from_millis(20);
/// How many lines of the console an error shows.
const N_LINES: usize = 25;

/// Runs the guest until it powers off. `label` is put in front of each line that its command prints.
pub(super) fn run(
    machine: &Machine<'_>,
    accelerator: Accelerator,
    label: &str,
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<()> {
    let file = |name: &str| machine.files.join(name);
    // Of an attempt before this one.
    fs::write(file("result"), "")?;
    let mut qemu = Process::spawn(&mut machine.command(accelerator)?)?;
    let start = Instant::now();
    let (mut out, mut err) = (Tail::new(file("out"), label), Tail::new(file("err"), label));
    loop {
        interrupt.check()?;
        let has_ended = qemu.try_wait()?.is_some();
        out.copy_to(&mut io::stdout())?;
        err.copy_to(&mut io::stderr())?;
        let result = fs::read_to_string(file("result"))?;
        let has_started = !result.is_empty();
        let what = if has_ended && exit_code(&result).is_some() {
            return Ok(());
        } else if has_ended && has_started {
            "the guest stopped before its command ended".to_owned()
        } else if !has_started && (has_ended || start.elapsed() > accelerator.boot_limit()) {
            return Err(NotBooted(last_lines(machine)).into());
        } else if start.elapsed() > limit {
            format!("the command has not ended in {} s", limit.as_secs())
        } else {
            thread::sleep(POLL);
            continue;
        };
        bail!("{what}; its kernel printed last:\n{}", last_lines(machine));
    }
}

/// What the guest's kernel printed last, or from the cause of its end on.
fn last_lines(machine: &Machine<'_>) -> String {
    const CAUSES: [&str; 3] = ["Kernel panic", "BUG: ", "Oops: "];
    let console = fs::read(machine.files.join(CONSOLE)).unwrap_or_default();
    let console = String::from_utf8_lossy(&console);
    let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
    let is_cause = |line: &&str| CAUSES.iter().any(|cause| line.contains(cause));
    let first = lines.iter().position(is_cause);
    let first = first.unwrap_or(lines.len().saturating_sub(N_LINES));
    let shown = lines[first..].iter().take(N_LINES).copied();
    shown.collect::<Vec<_>>().join("\n")
}

fn exit_code(result: &str) -> Option<u8> {
    let line = result.lines().find_map(|line| line.strip_prefix("exit "));
    line.and_then(|code| code.parse().ok())
}

/// A file that grows.
struct Tail<'a> {
    path: PathBuf,
    file: Option<File>,
    label: &'a str,
    /// The line that has not ended yet, if lines are labelled.
    line: Vec<u8>,
}

impl<'a> Tail<'a> {
    fn new(path: PathBuf, label: &'a str) -> Self {
        Self {
            path,
            file: None,
            label,
            line: Vec::new(),
        }
    }

    /// What is new.
    fn copy_to(&mut self, to: &mut impl io::Write) -> io::Result<()> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if self.label.is_empty() {
            io::copy(file, to)?;
            return to.flush();
        }
        file.read_to_end(&mut self.line)?;
        let n_ended = self.line.iter().rposition(|byte| *byte == b'\n');
        let ended: Vec<u8> = self.line.drain(..n_ended.map_or(0, |at| at + 1)).collect();
        let mut labelled = Vec::new();
        for line in ended.split_inclusive(|byte| *byte == b'\n') {
            labelled.extend_from_slice(self.label.as_bytes());
            labelled.extend_from_slice(line);
        }
        // At once: others print too.
        to.write_all(&labelled)?;
        to.flush()
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: u8,
    files: TempDir,
}

impl Ended {
    pub(super) fn read(files: TempDir) -> Result<Self> {
        let result = fs::read_to_string(files.path().join("result"))?;
        let code = exit_code(&result).context("the command has no exit code")?;
        Ok(Self { code, files })
    }

    /// What it wrote to its standard error.
    pub(crate) fn stderr(&self) -> Result<String> {
        let bytes = fs::read(self.files.path().join("err"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The files of `/out`.
    pub(crate) fn unpack_files(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let mut tar = Command::new("tar");
        tar.arg("--extract")
            .arg("--file")
            .arg(self.files.path().join("files"));
        process::output(tar.arg("--directory").arg(directory)).map(drop)
    }
}
