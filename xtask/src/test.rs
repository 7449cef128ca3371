//! `cargo xtask test`: every test of the workspace.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::setup;
use testkit::{print, programs::cargo};

/// Runs `cargo test` with these arguments.
pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::run()?;
    if !rustix::process::geteuid().is_root() {
        print::line("test: not root; the tests that need root will be reported as skipped")?;
    }
    // acctd-ebpf is a program for the BPF target and has no tests here; `bench` is not to be built for this.
    let status = Command::new(cargo())
        .args(["test", "--workspace"])
        .args(["--exclude", "acctd-ebpf", "--exclude", "bench"])
        .args(["--features", "acctd/fault-points"])
        .args(args)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo test` failed, {status}");
    }
    Ok(())
}
