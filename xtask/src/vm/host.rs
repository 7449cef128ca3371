//! What the host has for guests: processors, qemu, a place for files.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use testkit::debian::Debian;

use crate::workspace;

/// A processor, as qemu and Linux call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    pub(crate) fn of_this_machine() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian calls it.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

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
    debian.install(&[
        "binutils",
        "cpio",
        "debian-archive-keyring",
        "kmod",
        "mmdebstrap",
        qemu,
    ])
}
