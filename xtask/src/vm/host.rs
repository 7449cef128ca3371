//! What the host has for guests: qemu, a place for files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use testkit::debian::Debian;

use crate::arch::Arch;
use crate::workspace;

/// Where what was downloaded and unpacked is kept.
pub(super) fn directory() -> Result<PathBuf> {
    let directory = workspace::root()?.join("target/vm");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// qemu, and what makes its guests.
pub(crate) fn install_qemu(arch: Arch) -> Result<()> {
    let qemu = match arch {
        Arch::X86_64 => "qemu-system-x86",
        Arch::Aarch64 => "qemu-system-arm",
    };
    let debian = Debian::find().context("this needs Debian's tools")?;
    let archives = ["cpio", "debian-archive-keyring", "kmod"];
    debian.install(&[&archives[..], &["binutils", qemu]].concat())
}
