//! acctd built for another processor, by Debian's Rust: its compiler is this machine's, its standard library is there
//! for each processor. What is linked to comes from a directory of its own, so that the machine's packages stay as they
//! are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use testkit::debian::Debian;

use crate::arch::Arch;
use crate::debian::bootstrap;
use crate::workspace;

/// Of the other processor.
const LIBRARIES: &str = "libc6-dev,libgcc-12-dev,libnetfilter-log-dev,libstd-rust-web-dev";

/// What cargo builds for.
pub(crate) struct Target {
    pub(crate) arch: Arch,
    /// The other processor's libraries.
    sysroot: Option<PathBuf>,
}

impl Target {
    /// For another processor than this machine's: installs its tools, and unpacks its libraries.
    pub(crate) fn prepare(arch: Arch) -> Result<Self> {
        if arch.is_of_this_machine() {
            let sysroot = None;
            return Ok(Self { arch, sysroot });
        }
        let debian = Debian::find().context("building for another processor needs Debian")?;
        let gcc = format!("gcc-{}-linux-gnu", arch.name().replace('_', "-"));
        debian.install(&[&gcc, "rustc-web"])?;
        let sysroot = Some(unpacked(arch)?);
        Ok(Self { arch, sysroot })
    }

    fn triple(&self) -> String {
        format!("{}-unknown-linux-gnu", self.arch.name())
    }

    /// For cargo, and for what packs its programs.
    pub(crate) fn options(&self) -> Vec<String> {
        match self.sysroot {
            None => Vec::new(),
            Some(_) => vec!["--target".to_owned(), self.triple()],
        }
    }

    /// Has cargo build for it.
    pub(crate) fn set(&self, cargo: &mut Command) {
        let Some(sysroot) = &self.sysroot else {
            return;
        };
        let sysroot = sysroot.display();
        let variable = self.triple().replace('-', "_").to_uppercase();
        cargo
            .args(self.options())
            .env("RUSTC", "/usr/bin/rustc")
            .env(
                format!("CARGO_TARGET_{variable}_LINKER"),
                self.arch.gnu_tool("gcc"),
            )
            .env(
                format!("CARGO_TARGET_{variable}_RUSTFLAGS"),
                format!("--sysroot={sysroot}/usr -Clink-arg=--sysroot={sysroot}"),
            )
            .env(self.c_flags_name(), self.c_flags())
            // It would be taken instead.
            .env_remove("RUSTFLAGS");
    }

    /// The environment variable with the flags of crates that compile C.
    pub(crate) fn c_flags_name(&self) -> String {
        format!("CFLAGS_{}", self.triple().replace('-', "_"))
    }

    /// What these need for this target.
    pub(crate) fn c_flags(&self) -> String {
        let sysroot = self.sysroot.as_ref();
        sysroot.map_or_else(String::new, |it| format!("--sysroot={} ", it.display()))
    }

    /// Where cargo puts what it builds, in its own directory `target`.
    pub(crate) fn directory(&self, target: &Path) -> PathBuf {
        match self.sysroot {
            None => target.to_owned(),
            Some(_) => target.join(self.triple()),
        }
    }
}

/// Kept.
fn unpacked(arch: Arch) -> Result<PathBuf> {
    let place = workspace::root()?.join("target/cross");
    fs::create_dir_all(&place)?;
    let sysroot = place.join(arch.debian());
    if sysroot.exists() {
        return Ok(sysroot);
    }
    // Not half of it, should this be interrupted.
    let half = TempDir::with_prefix_in("half-", &place)?;
    let root = half.path().join("root");
    bootstrap(&root, "extract", arch, LIBRARIES, &[])?;
    fs::rename(&root, &sysroot)?;
    Ok(sysroot)
}
