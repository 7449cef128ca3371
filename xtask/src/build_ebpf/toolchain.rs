//! Who builds the eBPF objects: a Rust that knows the unstable `build-std`,
//! and bpf-linker, made for the LLVM that this Rust has.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use testkit::{debian::Debian, netns::find_program, print, process, programs::cargo};

use super::run;

/// The LLVM of the bpf-linker that is built here. It reads what a Rust with
/// this LLVM or an older one has written.
const LLVM: u32 = 22;
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
/// The packages of Debian 12 to build bpf-linker.
const LINKER_PACKAGES: [&str; 1] = ["llvm-22-dev"];
/// Those to compile, with bpf-linker. Debian 12's newest Rust is there as what
/// Debian builds its browsers with.
const PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "llvm-22-dev"];
/// Those that an object's bytes depend on.
const IDENTITY: [&str; 3] = ["rustc-web", "rust-web-src", "libllvm22"];
const BPF_LINKER: &str = "0.13.0";

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

const NOTHING_FITS: &str = "an eBPF object needs a nightly Rust with its sources (`rustup toolchain \
     install nightly --component rust-src`) and a bpf-linker made for its LLVM, on PATH; or Debian 12";

/// What builds the objects.
pub(super) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
    identity: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Compiler {
    Nightly(Rustc),
    Debian(Rustc),
}

/// What a rustc says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rustc {
    sysroot: PathBuf,
    host: String,
    llvm: u32,
}

/// Where bpf-linker comes from.
#[derive(Debug, PartialEq, Eq)]
enum Linker {
    OnPath(PathBuf),
    BuiltHere,
}

/// Which compiler and which linker.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Nightly(Rustc, Linker),
    Debian,
}

/// The user's own nightly before Debian's packages. A bpf-linker on `PATH` is
/// taken to be made for that nightly; of Debian's Rust it may know nothing.
fn choose(nightly: Option<Rustc>, on_path: Option<PathBuf>, on_debian: bool) -> Option<Choice> {
    match (nightly, on_path) {
        (Some(nightly), Some(linker)) => Some(Choice::Nightly(nightly, Linker::OnPath(linker))),
        (Some(nightly), None) if on_debian && nightly.llvm <= LLVM => {
            Some(Choice::Nightly(nightly, Linker::BuiltHere))
        }
        _ => on_debian.then_some(Choice::Debian),
    }
}

impl Toolchain {
    /// Finds it, or installs it.
    pub(super) fn prepare(root: &Path) -> Result<Self> {
        let debian = Debian::find();
        let choice = choose(
            nightly_with_sources(),
            find_program("bpf-linker"),
            debian.is_some(),
        );
        match (choice, debian) {
            (Some(Choice::Nightly(nightly, Linker::OnPath(linker))), _) => {
                print::line(format!(
                    "build-ebpf: with nightly Rust and {}",
                    linker.display()
                ))?;
                Ok(Self::nightly(nightly, linker))
            }
            (Some(Choice::Nightly(nightly, Linker::BuiltHere)), Some(debian)) => {
                print::line("build-ebpf: with nightly Rust and a bpf-linker built here")?;
                debian.install(&LINKER_PACKAGES)?;
                Ok(Self::nightly(nightly, built_linker(root)?))
            }
            (Some(Choice::Debian), Some(debian)) => {
                print::line("build-ebpf: with Debian's Rust and a bpf-linker built here")?;
                Self::debian(root, &debian)
            }
            _ => bail!(NOTHING_FITS),
        }
    }

    fn nightly(nightly: Rustc, linker: PathBuf) -> Self {
        Self {
            compiler: Compiler::Nightly(nightly),
            linker,
            // A linker on PATH does not tell its LLVM.
            identity: None,
        }
    }

    fn debian(root: &Path, debian: &Debian) -> Result<Self> {
        debian
            .install(&PACKAGES)
            .context("Debian 12's Rust for eBPF")?;
        let rustc = Rustc::ask(|| Command::new(DEBIAN_RUSTC))?;
        if rustc.llvm > LLVM {
            bail!(
                "{DEBIAN_RUSTC} has LLVM {}, bpf-linker would have LLVM {LLVM}: raise it in {}",
                rustc.llvm,
                file!()
            );
        }
        let versions = debian.versions(&IDENTITY)?;
        let packages: Vec<&str> = versions.lines().collect();
        Ok(Self {
            compiler: Compiler::Debian(rustc),
            linker: built_linker(root)?,
            identity: Some(format!("{}, bpf-linker {BPF_LINKER}", packages.join(", "))),
        })
    }

    /// Exactly what an object's bytes depend on besides its sources, in one
    /// line, if that is known.
    pub(super) fn identity(&self) -> Option<&str> {
        self.identity.as_deref()
    }

    /// bpf-linker.
    pub(super) fn linker(&self) -> &Path {
        &self.linker
    }

    /// cargo, with this rustc, that takes `-Z`.
    pub(super) fn cargo(&self) -> Command {
        match &self.compiler {
            Compiler::Nightly(_) => {
                let mut cargo = of_nightly("cargo");
                cargo.env_remove("RUSTC");
                cargo
            }
            Compiler::Debian(_) => {
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        }
    }

    /// LLVM's objcopy, of which each Rust has one.
    pub(super) fn objcopy(&self) -> Command {
        match &self.compiler {
            Compiler::Nightly(Rustc { sysroot, host, .. }) => {
                let bin = sysroot.join("lib/rustlib").join(host).join("bin");
                let mut objcopy = Command::new(bin.join("rust-objcopy"));
                objcopy.env("LD_LIBRARY_PATH", sysroot.join("lib"));
                objcopy
            }
            Compiler::Debian(_) => Command::new(Path::new(LLVM_PREFIX).join("bin/llvm-objcopy")),
        }
    }

    /// The paths by which rustc may name the sources of `core`.
    pub(super) fn rust_sources(&self) -> Vec<PathBuf> {
        let (Compiler::Nightly(rustc) | Compiler::Debian(rustc)) = &self.compiler;
        let named = rustc.sources();
        // Debian has a symbolic link there.
        let real = named.canonicalize().ok().filter(|real| *real != named);
        [Some(named), real].into_iter().flatten().collect()
    }
}

impl Rustc {
    fn ask(rustc: impl Fn() -> Command) -> Result<Self> {
        let version = process::output(rustc().arg("-vV"))?;
        let sysroot = process::output(rustc().args(["--print", "sysroot"]))?;
        Self::parse(&version, sysroot.trim_end())
            .with_context(|| format!("what rustc says of itself: {version}"))
    }

    fn parse(version: &str, sysroot: &str) -> Option<Self> {
        let value = |key: &str| version.lines().find_map(|line| line.strip_prefix(key));
        let (llvm, _) = value("LLVM version: ")?.split_once('.')?;
        Some(Self {
            sysroot: sysroot.into(),
            host: value("host: ")?.to_owned(),
            llvm: llvm.parse().ok()?,
        })
    }

    fn sources(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }
}

/// rustup's nightly, if it is there and has the component rust-src.
fn nightly_with_sources() -> Option<Rustc> {
    find_program("rustup")?;
    let nightly = Rustc::ask(|| of_nightly("rustc")).ok()?;
    nightly
        .sources()
        .join("library/core/Cargo.toml")
        .is_file()
        .then_some(nightly)
}

fn of_nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", program])
        // It is the user's to install a toolchain.
        .env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// bpf-linker, built with the Rust that has built this program.
fn built_linker(root: &Path) -> Result<PathBuf> {
    let tools = root.join("target/bpf-tools");
    let linker = tools.join("bin/bpf-linker");
    if version_of(&linker).is_some_and(|version| version == BPF_LINKER) {
        return Ok(linker);
    }
    print::line(format!("build-ebpf: building bpf-linker {BPF_LINKER}"))?;
    run(Command::new(cargo())
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

/// What a program that runs says after its name.
fn version_of(program: &Path) -> Option<String> {
    let text = process::output(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().nth(1).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rustc(llvm: u32) -> Rustc {
        Rustc {
            sysroot: "/opt/rust".into(),
            host: "x86_64-unknown-linux-gnu".to_owned(),
            llvm,
        }
    }

    #[test]
    fn a_nightly_with_its_linker_comes_first() {
        let linker = PathBuf::from("/opt/bin/bpf-linker");
        for on_debian in [false, true] {
            for llvm in [LLVM, LLVM + 1] {
                assert_eq!(
                    choose(Some(rustc(llvm)), Some(linker.clone()), on_debian),
                    Some(Choice::Nightly(rustc(llvm), Linker::OnPath(linker.clone())))
                );
            }
        }
    }

    #[test]
    fn debian_gives_a_nightly_its_linker_unless_its_llvm_is_too_new() {
        assert_eq!(
            choose(Some(rustc(LLVM)), None, true),
            Some(Choice::Nightly(rustc(LLVM), Linker::BuiltHere))
        );
        assert_eq!(
            choose(Some(rustc(LLVM + 1)), None, true),
            Some(Choice::Debian)
        );
    }

    #[test]
    fn without_a_nightly_it_is_debian_or_nothing() {
        let linker = Some(PathBuf::from("/opt/bin/bpf-linker"));
        assert_eq!(choose(None, None, true), Some(Choice::Debian));
        assert_eq!(choose(None, linker.clone(), true), Some(Choice::Debian));
        assert_eq!(choose(None, linker, false), None);
        assert_eq!(choose(Some(rustc(LLVM)), None, false), None);
    }

    #[test]
    fn what_rustc_says_of_itself_is_understood() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\n\
                    binary: rustc\n\
                    host: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\n\
                    LLVM version: 22.1.4\n";
        assert_eq!(Rustc::parse(text, "/opt/rust"), Some(rustc(22)));
        assert_eq!(Rustc::parse("rustc 1.97.0-nightly\n", "/opt/rust"), None);
    }
}
