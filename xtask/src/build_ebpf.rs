//! `cargo xtask build-ebpf`: the cross-check's eBPF objects, from their
//! sources.
//!
//! acctd holds the finished object, so that building acctd needs stable Rust
//! alone. The objects are in the repository with a [`stamp`] of what they were
//! made from; a test compares it, and CI builds them anew.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use testkit::{print, process::run};

use crate::workspace;

mod stamp;
mod toolchain;

use stamp::{DIRECTORY, OBJECTS};
use toolchain::Toolchain;

const TARGET: &str = "bpfel-unknown-none";
/// The profile in Cargo.toml, and so cargo's directory.
const PROFILE: &str = "bpf";

/// Build the eBPF objects from their sources
///
/// Writes acctd-ebpf/objects/{acctd,minimal,mismatched}.o, and beside them SOURCES.sha256: what they
/// were made from, and by which compiler.
///
/// If there is a bpf-linker on PATH, it takes rustup's nightly Rust with rust-src, for whose LLVM that
/// must be made. Otherwise, on Debian 12, it installs Debian's own Rust (rustc-web) and LLVM with
/// apt-get, and builds bpf-linker, into target/bpf-tools.
#[derive(Args)]
pub(crate) struct BuildEbpf {
    /// Write the objects to this directory, and leave those of the repository as they are
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Fail if there are warnings, or unless the objects equal those of the repository, if the same
    /// compiler has built both
    #[arg(long, requires = "out")]
    check: bool,
}

impl BuildEbpf {
    pub(crate) fn run(&self) -> Result<()> {
        let root = workspace::root()?;
        let toolchain = Toolchain::prepare(&root)?;
        build(&root, &toolchain, self.check)?;
        let checked_in = root.join(DIRECTORY);
        let out = self.out.as_ref().unwrap_or(&checked_in);
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        for name in OBJECTS {
            // Its DWARF is most of it, and nothing that loads it reads that. Its BTF stays.
            let built = format!("target/bpf/{TARGET}/{PROFILE}/{name}-bpf");
            let mut objcopy = toolchain.objcopy();
            objcopy.arg("--strip-debug").arg(root.join(built));
            run(objcopy.arg(out.join(name).with_extension("o")))?;
        }
        if self.out.is_none() {
            stamp::write(&root, toolchain.identity.as_deref())?;
        }
        print::line(format!("build-ebpf: the objects are in {}", out.display()))?;
        if self.check {
            check(&root, toolchain.identity.as_deref(), out)?;
        }
        Ok(())
    }
}

/// The program of `acctd.o` is the binary `acctd-bpf`: cargo puts all binaries of a workspace side by
/// side, and one `acctd` is there already.
fn build(root: &Path, toolchain: &Toolchain, deny_warnings: bool) -> Result<()> {
    // The sources must be there before their directories can be listed.
    let mut fetch = toolchain.cargo();
    run(fetch
        .args(["fetch", "--locked", "--target", TARGET])
        .current_dir(root))?;
    let mut build = toolchain.cargo();
    build
        .args(["build", "--locked", "--package", "acctd-ebpf", "--bins"])
        .args(["--profile", PROFILE, "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir", "target/bpf"])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?)
        .current_dir(root);
    if deny_warnings {
        // Clippy on the host sees empty programs. A flag of rustc's for it would change the
        // names of symbols, and so the objects.
        build.args(["-Z", "warnings", "--config", "build.warnings=\"deny\""]);
    }
    run(&mut build)
}

/// rustc's flags, as cargo takes them where a path may have a space. No path of
/// this machine gets into an object: two builds give the same bytes wherever
/// they run.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<OsString> {
    let mut flags = OsString::from("-Clink-arg=--btf");
    let mut remap = |from: &Path, to: &str| {
        flags.push("\u{1f}--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    };
    remap(root, "/acctd");
    // cargo has one directory for each registry. The name depends on the registry's address, so all are remapped.
    let registries = workspace::cargo_home()?.join("registry/src");
    let entries = fs::read_dir(&registries);
    for entry in entries.with_context(|| format!("cannot list {}", registries.display()))? {
        remap(&entry?.path(), "/registry");
    }
    // Debian has a symbolic link there.
    let sources = toolchain.sources();
    remap(&sources, "/rust");
    remap(&sources.canonicalize()?, "/rust");
    Ok(flags)
}

/// Compares the objects with those of the repository. Another compiler may
/// well make other ones of the same sources.
fn check(root: &Path, identity: Option<&str>, out: &Path) -> Result<()> {
    stamp::check(root)?;
    if !stamp::is_by(root, identity)? {
        return print::line(format!(
            "build-ebpf: not compared with {DIRECTORY}, which another compiler has built"
        ));
    }
    for name in OBJECTS {
        let file = Path::new(name).with_extension("o");
        if fs::read(out.join(&file))? != fs::read(root.join(DIRECTORY).join(&file))? {
            bail!(
                "{DIRECTORY} has another {name}.o than its sources give: run `cargo xtask build-ebpf`"
            );
        }
    }
    print::line(format!("build-ebpf: equal to {DIRECTORY}, to the byte"))
}
