//! `cargo xtask vm`: a command in a small virtual machine, under a kernel of one's choice.
//!
//! ```text
//!  Debian's kernel ─► modules ─┐
//!  Debian's packages ─► root ──┼─► one initramfs ─► qemu ─► output, exit code, files
//!  acctd, the repository ──────┘
//! ```

mod archive;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod kernel;
mod machine;
mod root;
pub(crate) mod run;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use testkit::interrupt::Interrupt;
use testkit::process;
use testkit::programs::cargo;

use crate::arch::Arch;
use crate::cross::Target;
use crate::workspace;
use guest::Guest;
use host::install_qemu;
use kernel::{Kernel, KernelName};

/// Run a command in a small virtual machine, under the kernel of your choice
///
/// The machine has Debian's tools for networks, acctd (on PATH), and this repository at the same path. What the
/// command prints and its exit code are passed on. No network, no disk: what it leaves in /out comes back with --out.
#[derive(clap::Args)]
pub(crate) struct Vm {
    /// A version (5.10, 6.1, 6.12, 7.2), which comes from Debian; `newest`; `host`; or the path of a kernel image
    #[arg(long, default_value = "6.1")]
    kernel: KernelName,
    /// The modules of a kernel image of your own: what `make modules_install INSTALL_MOD_PATH=DIR` has filled
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// The processor; another than this machine's is emulated
    #[arg(long, value_enum, default_value_t = Arch::of_this_machine())]
    arch: Arch,
    /// Where the files that the command leaves in /out go
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many seconds the machine may run
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    limit: u64,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Vm {
    /// The command's exit code.
    pub(crate) fn run(self) -> Result<u8> {
        let interrupt = Interrupt::catch()?;
        install_qemu(self.arch)?;
        let kernel = Kernel::find(&self.kernel, self.modules, self.arch)?;
        let guest = Guest::new(self.arch)?;
        guest.install_program(&build_acctd(self.arch)?, "usr/sbin/acctd".as_ref())?;
        let limit = Duration::from_secs(self.limit);
        let guest = guest.pack(&self.command)?;
        let ended = guest.run(&kernel, "", limit, &interrupt)?;
        if let Some(out) = self.out {
            ended.unpack_files(&out)?;
        }
        Ok(ended.code)
    }
}

fn build_acctd(arch: Arch) -> Result<PathBuf> {
    let target = Target::prepare(arch)?;
    let mut build = Command::new(cargo());
    // As the tests build it, so that it is built once.
    build.args(["build", "--quiet", "--package", "acctd", "--bin", "acctd"]);
    build.args(["--features", "acctd/fault-points"]);
    target.set(&mut build);
    process::run(&mut build)?;
    let directory = target.directory(&workspace::root()?.join("target"));
    Ok(directory.join("debug/acctd"))
}
