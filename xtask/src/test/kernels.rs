//! The tests with real packets, in a virtual machine for each kernel.
//!
//! What a kernel cannot run is skipped by name. The lists of it are part of the repository, so that a new one is seen:
//! `acctd/tests/kernels/VERSION`, one `NAME: REASON` a line, and there `everywhere` and `PROCESSOR`. `NAME` may end with
//! a `*`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testkit::interrupt::Interrupt;
use testkit::programs::{cargo, executables};
use testkit::{print, process};

use crate::arch::Arch;
use crate::cross::Target;
use crate::vm::guest::{Guest, Packed};
use crate::vm::host::install_qemu;
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
    let program = install_tests(&guest, &Target::prepare(arch)?)?;
    let mut command: Vec<OsString> = vec!["env".into(), "ACCTD_TESTS_EMULATED=1".into()];
    if is_core {
        command.push("ACCTD_TESTS_CORE=1".into());
    }
    // Most of them wait most of the time. Those that measure time are alone.
    command.extend([program.into(), "--test-threads=2".into()]);
    command.extend(args.iter().map(OsString::from));
    let guest = guest.pack(&command)?;
    let kernels = kernels.iter().map(|name| {
        let kernel = Kernel::find(name, None, arch)?;
        Ok((name, kernel))
    });
    let kernels: Vec<(&KernelName, Kernel)> = kernels.collect::<Result<_>>()?;
    let waiting = Mutex::new(kernels.iter());
    let failed = Mutex::new(Vec::new());
    // An emulated machine takes one of this machine's processors.
    let n_beside = thread::available_parallelism()?.get().min(kernels.len());
    thread::scope(|scope| {
        for _ in 0..n_beside {
            scope.spawn(|| {
                let next = || lock(&waiting).next();
                while let Some((name, kernel)) = next() {
                    let passed = run_under(kernel, name, arch, &guest, &interrupt);
                    if let Err(error) = passed {
                        lock(&failed).push(format!("Linux {name}: {error:#}"));
                    }
                }
            });
        }
    });
    interrupt.check()?;
    let failed = lock(&failed);
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run_under(
    kernel: &Kernel,
    name: &KernelName,
    arch: Arch,
    guest: &Packed,
    interrupt: &Interrupt,
) -> Result<()> {
    let start = Instant::now();
    let ended = guest.run(kernel, &format!("{name}: "), LIMIT, interrupt)?;
    check(&ended, name.version(), arch)?;
    let seconds = start.elapsed().as_secs();
    print::line(format!(
        "test: Linux {name}, {}: passed in {seconds} s",
        arch.name()
    ))
}

/// `version` is that of a kernel that has a list.
fn check(ended: &Ended, version: Option<&str>, arch: Arch) -> Result<()> {
    ensure!(ended.code == 0, "tests have failed");
    let Some(version) = version else {
        return Ok(());
    };
    let lists = workspace::root()?.join("acctd/tests/kernels");
    let mut known = String::new();
    for list in ["everywhere", arch.name(), version] {
        // Not every processor has one.
        known += &fs::read_to_string(lists.join(list)).unwrap_or_default();
    }
    let stderr = ended.stderr()?;
    let skipped = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("skipped: "));
    let new: Vec<&str> = skipped
        .filter(|line| !known.lines().any(|known| is_same(known, line)))
        .collect();
    ensure!(
        new.is_empty(),
        "skipped, and not in {}/{version}:\n{}",
        lists.display(),
        new.join("\n")
    );
    Ok(())
}

/// Whether a line of a list is the skipped test's. If it is for several tests, the reason must be the same.
fn is_same(known: &str, skipped: &str) -> bool {
    let parts = known.split_once(": ").zip(skipped.split_once(": "));
    parts.is_some_and(
        |((name, reason), (skipped, why))| match name.strip_suffix('*') {
            None => name == skipped,
            Some(start) => skipped.starts_with(start) && reason == why,
        },
    )
}

/// Builds the test program and acctd, and puts them at their places in the guest.
fn install_tests(guest: &Guest, target: &Target) -> Result<PathBuf> {
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
    target.set(&mut build);
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
