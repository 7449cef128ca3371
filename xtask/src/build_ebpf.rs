//! `cargo xtask build-ebpf`: the cross-check's eBPF objects, from their
//! sources.
//!
//! acctd holds the finished object, so that building acctd needs stable Rust
//! alone. The objects are in the repository with a [`stamp`] of what they were
//! made from; a test compares it, and CI builds them anew.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use testkit::{print, process::command_line};

mod stamp;
mod toolchain;

use stamp::Stamp;
use toolchain::Toolchain;

/// The objects. The program of `acctd.o` is the binary `acctd-bpf`: cargo puts
/// all binaries of a workspace side by side, and one `acctd` is there already.
const OBJECTS: [&str; 3] = ["acctd", "minimal", "mismatched"];
/// Where the repository has them.
const DIRECTORY: &str = "acctd-ebpf/objects";
const TARGET: &str = "bpfel-unknown-none";
/// The profile in Cargo.toml, and so cargo's directory.
const PROFILE: &str = "bpf";

/// Build the eBPF objects from their sources
///
/// Writes acctd-ebpf/objects/{acctd,minimal,mismatched}.o, and beside them SOURCES.sha256: what they
/// were made from, and by which compiler.
///
/// Takes a nightly Rust that has rust-src, with bpf-linker from PATH. Otherwise, on Debian 12, it
/// installs Debian's own Rust (rustc-web) and LLVM with apt-get, and builds bpf-linker, into
/// target/bpf-tools.
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
        let root = root()?;
        let toolchain = Toolchain::prepare(&root)?;
        build(&root, &toolchain, self.check)?;
        let checked_in = root.join(DIRECTORY);
        let out = self.out.as_ref().unwrap_or(&checked_in);
        fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
        for name in OBJECTS {
            strip(&root, &toolchain, name, out)?;
        }
        if self.out.is_none() {
            let stamp = Stamp::of_tree(&root)?.with_builder(toolchain.identity());
            write(&stamp::path(&root), stamp.to_string())?;
        }
        print::line(format!("build-ebpf: the objects are in {}", out.display()))?;
        if self.check {
            check(&root, &toolchain, out)?;
        }
        Ok(())
    }
}

/// The workspace.
pub(crate) fn root() -> Result<PathBuf> {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .context("cannot find the repository")
}

fn build(root: &Path, toolchain: &Toolchain, deny_warnings: bool) -> Result<()> {
    // The sources must be there before their directories can be listed.
    run(cargo(root, toolchain).args(["fetch", "--locked", "--target", TARGET]))?;
    let mut build = cargo(root, toolchain);
    build
        .args(["build", "--locked", "--package", "acctd-ebpf", "--bins"])
        .args(["--profile", PROFILE, "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_directory(root))
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", toolchain.linker())
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?);
    if deny_warnings {
        // Clippy on the host sees empty programs. A flag of rustc's for it would change the
        // names of symbols, and so the objects.
        build.args(["-Z", "warnings", "--config", "build.warnings=\"deny\""]);
    }
    run(&mut build)
}

fn cargo(root: &Path, toolchain: &Toolchain) -> Command {
    let mut cargo = toolchain.cargo();
    cargo.current_dir(root);
    cargo
}

fn target_directory(root: &Path) -> PathBuf {
    root.join("target/bpf")
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
    for registry in registries()? {
        remap(&registry, "/registry");
    }
    for sources in toolchain.rust_sources() {
        remap(&sources, "/rust");
    }
    Ok(flags)
}

/// The directories in which cargo has the sources of crates: one for
/// crates.io, by a name of its own, or for what takes its place.
fn registries() -> Result<Vec<PathBuf>> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
        .context("cannot tell cargo's home directory: set CARGO_HOME")?;
    let sources = home.join("registry/src");
    fs::read_dir(&sources)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("cannot list {}", sources.display()))
}

/// Writes an object without its DWARF, which is most of it and which nothing
/// that loads it reads. Its BTF stays.
fn strip(root: &Path, toolchain: &Toolchain, name: &str, out: &Path) -> Result<()> {
    let built = target_directory(root)
        .join(TARGET)
        .join(PROFILE)
        .join(format!("{name}-bpf"));
    run(toolchain
        .objcopy()
        .arg("--strip-debug")
        .arg(built)
        .arg(object(out, name)))
}

fn object(directory: &Path, name: &str) -> PathBuf {
    directory.join(name).with_extension("o")
}

/// Compares the objects with those of the repository. Another compiler may
/// well make other ones of the same sources.
fn check(root: &Path, toolchain: &Toolchain, out: &Path) -> Result<()> {
    let stamp = Stamp::read(root)?;
    fresh(root, &stamp)?;
    match (toolchain.identity(), stamp.builder()) {
        (Some(here), Some(there)) if here == there => {}
        _ => {
            return print::line(format!(
                "build-ebpf: not compared with {DIRECTORY}, which another compiler has built: {}",
                stamp.builder().unwrap_or("unknown")
            ));
        }
    }
    let checked_in = root.join(DIRECTORY);
    let mut different = Vec::new();
    for name in OBJECTS {
        if read(&object(out, name))? != read(&object(&checked_in, name))? {
            different.push(format!("{name}.o"));
        }
    }
    if !different.is_empty() {
        bail!(
            "{DIRECTORY} has another {} than its sources give: run `cargo xtask build-ebpf`",
            different.join(", ")
        );
    }
    print::line(format!("build-ebpf: equal to {DIRECTORY}, to the byte"))
}

/// Fails if anything has changed since the objects were built.
fn fresh(root: &Path, stamp: &Stamp) -> Result<()> {
    let now = Stamp::of_tree(root)?;
    let changed = now.differences(stamp);
    if !changed.is_empty() {
        bail!(
            "run `cargo xtask build-ebpf`: since {DIRECTORY} was built, there changed {}",
            changed.join(", ")
        );
    }
    Ok(())
}

/// Runs a command, whose output passes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed, {status}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: String) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_built_from_the_sources_beside_them() {
        let root = root().unwrap();
        if let Err(error) = Stamp::read(&root).and_then(|stamp| fresh(&root, &stamp)) {
            panic!("{error:#}");
        }
    }
}
