//! `cargo xtask test`: every test of the workspace, or those with real packets under other kernels.

mod kernels;

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use testkit::print;
use testkit::programs::cargo;

use crate::arch::Arch;
use crate::setup;
use crate::vm::kernel::KernelName;

/// Run all tests, after `setup`
///
/// With --kernels only those that send packets, each time in a virtual machine with that kernel.
#[derive(clap::Args)]
pub(crate) struct Test {
    /// Versions as of `cargo xtask vm --kernel`, with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    kernels: Vec<KernelName>,
    /// The processor of the virtual machine
    #[arg(long, value_enum, default_value_t = Arch::of_this_machine(), requires = "kernels")]
    arch: Arch,
    /// Only the tests of acctd/tests/kernels/core
    #[arg(long, requires = "kernels")]
    core: bool,
    /// Arguments for `cargo test`; with --kernels for the test program: a part of the tests' names, for instance
    #[arg(last = true)]
    args: Vec<String>,
}

impl Test {
    pub(crate) fn run(&self) -> Result<()> {
        setup::run()?;
        if self.kernels.is_empty() {
            setup::for_tests()?;
            run_here(&self.args)
        } else {
            kernels::run(&self.kernels, self.arch, self.core, &self.args)
        }
    }
}

fn run_here(args: &[String]) -> Result<()> {
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
