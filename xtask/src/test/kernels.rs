//! The tests with real packets, in a virtual machine for each kernel.
//!
//! What a kernel cannot run is skipped by name. The list of it is part of the repository, so that a new one is seen:
//! `acctd/tests/kernels/VERSION`, one `NAME: REASON` a line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testkit::interrupt::Interrupt;
use testkit::programs::{cargo, executables};
use testkit::{print, process};

use crate::vm::guest::Guest;
use crate::vm::host::{Arch, install_qemu};
use crate::vm::kernel::{Kernel, KernelName};
use crate::vm::run::Ended;
use crate::workspace;

/// For one kernel.
const LIMIT: Duration = Duration::from_mins(90);

pub(super) fn run(
    kernels: &[KernelName],
    arch: Arch,
    is_core: bool,
    args: &[String],
) -> Result<()> {
    let interrupt = Interrupt::catch()?;
    install_qemu(arch)?;
    let guest = Guest::new(arch)?;
    let program = install_tests(&guest)?;
    let mut command: Vec<OsString> = vec!["env".into(), "ACCTD_TESTS_EMULATED=1".into()];
    if is_core {
        command.push("ACCTD_TESTS_CORE=1".into());
    }
    command.extend([program.into(), "--color=never".into()]);
    command.extend(args.iter().map(OsString::from));
    let mut failed = Vec::new();
    for name in kernels {
        let kernel = Kernel::find(name, None, arch)?;
        let text = name.text();
        print::line(format!("test: Linux {text}, {}", arch.name()))?;
        let start = Instant::now();
        let ended = guest.run(&kernel, &command, LIMIT, &interrupt)?;
        let seconds = start.elapsed().as_secs();
        let checked = check(&ended, &text);
        match &checked {
            Ok(()) => print::line(format!("test: Linux {text}: passed in {seconds} s"))?,
            Err(error) => print::line(format!("test: Linux {text}, {seconds} s: {error:#}"))?,
        }
        if checked.is_err() {
            failed.push(text);
        }
    }
    ensure!(
        failed.is_empty(),
        "failed under Linux {}",
        failed.join(", ")
    );
    Ok(())
}

fn check(ended: &Ended, kernel: &str) -> Result<()> {
    ensure!(ended.code == 0, "tests have failed");
    let [_, stderr] = ended.printed()?;
    let skipped = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("skipped: "));
    let list = workspace::root()?.join("acctd/tests/kernels").join(kernel);
    let known = fs::read_to_string(&list).with_context(|| format!("no {}", list.display()))?;
    let known: BTreeSet<&str> = known.lines().collect();
    let new: Vec<&str> = skipped.filter(|line| !known.contains(line)).collect();
    ensure!(
        new.is_empty(),
        "skipped, and not in {}:\n{}",
        list.display(),
        new.join("\n")
    );
    Ok(())
}

/// Builds the test program and acctd, and puts them at their places in the guest.
fn install_tests(guest: &Guest) -> Result<PathBuf> {
    let mut build = Command::new(cargo());
    build
        .args([
            "test",
            "--no-run",
            "--package",
            "acctd",
            "--test",
            "namespaces",
        ])
        .args(["--features", "acctd/fault-points"])
        .arg("--message-format=json-render-diagnostics");
    let messages = process::output(&mut build)?;
    let mut tests = None;
    for (name, executable) in executables(&messages) {
        guest.install_program(&executable, &executable)?;
        if name == "namespaces" {
            tests = Some(executable);
        }
    }
    tests.context("cargo has built no tests")
}
