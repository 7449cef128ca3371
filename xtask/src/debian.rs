//! The release of Debian that acctd is made for, in a directory.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use testkit::debian::Debian;
use testkit::{print, process};

use crate::arch::Arch;

pub(crate) const RELEASE: &str = "bookworm";

/// Fetches packages, with commas between, and what they depend on, into the new directory `root`. With the variant
/// `extract` (mmdebstrap(1)) they are unpacked and no script is run: they may be for another processor.
pub(crate) fn bootstrap(
    root: &Path,
    variant: &str,
    arch: Arch,
    packages: &str,
    left_out: &[&str],
) -> Result<()> {
    let debian = Debian::find().context("this needs Debian's tools")?;
    debian.install(&["mmdebstrap"])?;
    let arch = arch.debian();
    print::line(format!("debian: {packages} ({RELEASE}, {arch})"))?;
    let mut mmdebstrap = Command::new("mmdebstrap");
    mmdebstrap
        .args(["--quiet", "--variant", variant, "--architectures", arch])
        .args(["--include", packages])
        .args(
            left_out
                .iter()
                .map(|path| format!("--dpkgopt=path-exclude={path}")),
        )
        .arg(RELEASE)
        .arg(root);
    process::output(&mut mmdebstrap).map(drop)
}
