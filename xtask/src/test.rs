//! `cargo xtask test`: every test of the workspace.

use std::{env, ffi::OsString, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{print, setup};

/// Runs `cargo test` with these arguments.
pub(crate) fn run(args: &[String]) -> Result<()> {
    setup::run()?;
    if !rustix::process::geteuid().is_root() {
        print::line("test: not root; the tests that need root will be reported as skipped")?;
    }
    // acctd-ebpf is a program for the BPF target and has no tests here.
    let status = Command::new(cargo())
        .args(["test", "--workspace", "--exclude", "acctd-ebpf"])
        .args(["--features", "acctd/fault-points"])
        .args(args)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo test` failed, {status}");
    }
    Ok(())
}

/// The cargo that runs this program, else the one on `PATH`.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
