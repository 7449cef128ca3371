//! Who builds the eBPF objects: a Rust that knows the unstable `build-std`,
//! and bpf-linker, made for the LLVM that this Rust has.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testkit::{
    debian::Debian,
    netns::find_program,
    print,
    process::{self, run},
    programs,
};

/// The LLVM of the bpf-linker that is built here. It reads what a Rust with
/// this LLVM or an older one has written.
const LLVM: &str = "22";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// Debian 12's newest Rust is there as what Debian builds its browsers with.
const PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "llvm-22-dev"];
/// Those that an object's bytes depend on.
const IDENTITY: [&str; 3] = ["rustc-web", "rust-web-src", "libllvm22"];
const BPF_LINKER: &str = "0.13.0";

const NOTHING_FITS: &str = "an eBPF object needs a nightly Rust with its sources (`rustup toolchain \
     install nightly --component rust-src`) and a bpf-linker made for its LLVM, on PATH; or Debian 12";

/// What builds the objects.
pub(super) struct Toolchain {
    is_nightly: bool,
    pub(super) linker: PathBuf,
    /// Exactly what an object's bytes depend on besides its sources, if that is known.
    pub(super) identity: Option<String>,
    /// rustc's own libraries.
    libraries: PathBuf,
}

impl Toolchain {
    /// rustup's nightly with a bpf-linker on `PATH`, which is taken to be made for it; else Debian's.
    pub(super) fn prepare(root: &Path) -> Result<Self> {
        let has_nightly = process::output(program(true, "rustc").arg("-V")).is_ok();
        let on_path = find_program("bpf-linker").filter(|_| has_nightly);
        let is_nightly = on_path.is_some();
        let (linker, identity) = if let Some(linker) = on_path {
            print::line(format!(
                "build-ebpf: with nightly Rust and {}",
                linker.display()
            ))?;
            // A linker on PATH does not tell its LLVM.
            (linker, None)
        } else {
            print::line("build-ebpf: with Debian's Rust and a bpf-linker built here")?;
            let debian = Debian::find().context(NOTHING_FITS)?;
            debian
                .install(&PACKAGES)
                .context("Debian 12's Rust for eBPF")?;
            let versions = debian.versions(&IDENTITY)?;
            let versions = versions.trim_end().replace('\n', ", ");
            let identity = format!("{versions}, bpf-linker {BPF_LINKER}");
            (built_linker(root)?, Some(identity))
        };
        let mut rustc = program(is_nightly, "rustc");
        let libraries = process::output(rustc.args(["--print", "target-libdir"]))?;
        Ok(Self {
            is_nightly,
            linker,
            identity,
            libraries: libraries.trim_end().into(),
        })
    }

    /// cargo, with this rustc, that takes `-Z`.
    pub(super) fn cargo(&self) -> Command {
        let mut cargo = program(self.is_nightly, "cargo");
        if self.is_nightly {
            cargo.env_remove("RUSTC");
        } else {
            cargo.env("RUSTC", "/usr/bin/rustc");
            cargo.env("RUSTC_BOOTSTRAP", "1");
        }
        cargo
    }

    /// LLVM's objcopy: nightly Rust has its own.
    pub(super) fn objcopy(&self) -> Command {
        if !self.is_nightly {
            return Command::new(Path::new(LLVM_PREFIX).join("bin/llvm-objcopy"));
        }
        let mut objcopy = Command::new(self.libraries.join("../bin/rust-objcopy"));
        objcopy.env("LD_LIBRARY_PATH", self.libraries.join("../../.."));
        objcopy
    }

    /// Where rustc has the sources of `core`.
    pub(super) fn sources(&self) -> PathBuf {
        let rustlib = self.libraries.ancestors().nth(2);
        rustlib.unwrap_or(&self.libraries).join("src/rust")
    }
}

/// A program of the nightly's or of Debian's.
fn program(is_nightly: bool, name: &str) -> Command {
    if !is_nightly {
        return Command::new(Path::new("/usr/bin").join(name));
    }
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", name])
        // It is the user's to install a toolchain.
        .env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// bpf-linker, built with the Rust that has built this program.
fn built_linker(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/bpf-tools");
    let linker = tools.join("bin/bpf-linker");
    let version = process::output(Command::new(&linker).arg("--version"));
    if version.is_ok_and(|it| it.trim_end().ends_with(BPF_LINKER)) {
        return Ok(linker);
    }
    print::line(format!("build-ebpf: building bpf-linker {BPF_LINKER}"))?;
    run(Command::new(programs::cargo())
        .args(["install", "bpf-linker", "--version", BPF_LINKER])
        .args(["--locked", "--quiet", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{LLVM}"), "--root"])
        .arg(&tools)
        // Not in /tmp, where cargo would put it.
        .arg("--target-dir")
        .arg(tools.join("build"))
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env(format!("LLVM_SYS_{LLVM}1_PREFIX"), LLVM_PREFIX))?;
    Ok(linker)
}
