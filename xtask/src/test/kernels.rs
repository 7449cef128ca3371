//! The tests with real packets, in a virtual machine for each kernel.
//!
//! What a kernel cannot run is skipped by name. The list of it is part of the repository, so that a new one is seen:
//! `acctd/tests/kernels/VERSION`, one `NAME: REASON` a line. For another processor than x86-64 it is
//! `VERSION-PROCESSOR`.

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
    let mut command: Vec<OsString> = vec!["env".into()];
    if is_core {
        command.push("ACCTD_TESTS_CORE=1".into());
    }
    // Its two processors are slow: a test for each.
    command.extend([program.into(), "--test-threads=2".into()]);
    command.extend(args.iter().map(OsString::from));
    let mut failed = Vec::new();
    for name in kernels {
        let kernel = Kernel::find(name, None, arch)?;
        print::line(format!("test: Linux {name}, {}", arch.name()))?;
        let start = Instant::now();
        let ended = guest.run(&kernel, &command, LIMIT, &interrupt)?;
        let seconds = start.elapsed().as_secs();
        let checked = check(&ended, name.version(), arch);
        match &checked {
            Ok(()) => print::line(format!("test: Linux {name}: passed in {seconds} s"))?,
            Err(error) => print::line(format!("test: Linux {name}, {seconds} s: {error:#}"))?,
        }
        if checked.is_err() {
            failed.push(name.to_string());
        }
    }
    ensure!(
        failed.is_empty(),
        "failed under Linux {}",
        failed.join(", ")
    );
    Ok(())
}

/// `version` is that of a kernel that has a list.
fn check(ended: &Ended, version: Option<&str>, arch: Arch) -> Result<()> {
    ensure!(ended.code == 0, "tests have failed");
    let list = match (version, arch) {
        (None, _) => return Ok(()),
        (Some(version), Arch::X86_64) => version.to_owned(),
        (Some(version), Arch::Aarch64) => format!("{version}-{}", arch.name()),
    };
    let list = workspace::root()?.join("acctd/tests/kernels").join(list);
    let stderr = ended.stderr()?;
    let skipped = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("skipped: "));
    let known = fs::read_to_string(&list).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().map(name_of).collect();
    let new: Vec<&str> = skipped
        .filter(|line| !known.contains(name_of(line)))
        .collect();
    let list = list.display();
    ensure!(
        new.is_empty(),
        "skipped, and not in {list}:\n{}",
        new.join("\n")
    );
    Ok(())
}

/// Of a test, without the reason why it is skipped.
fn name_of(line: &str) -> &str {
    line.split(':').next().unwrap_or(line)
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
