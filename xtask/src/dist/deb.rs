//! The package for Debian, by cargo-deb.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testkit::{
    print,
    process::{self, run},
};

use super::packing::Packing;

const CARGO_DEB: &str = "3.8.0";

pub(super) fn package(packing: &Packing<'_>) -> Result<PathBuf> {
    let mut build = packing.tool("cargo-deb", CARGO_DEB, "0")?;
    build
        .args(["--package", "acctd", "--no-build", "--output"])
        .arg(packing.place)
        .env("CARGO_TARGET_DIR", packing.sources.join("target"));
    let printed = process::output(&mut build)?;
    let path = printed.lines().last();
    Ok(path.context("cargo-deb names no package")?.into())
}

/// Debian's own checks of a package. What is right as it is has its reason in dist/deb/lintian-overrides.
pub(super) fn lintian(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    run(lintian.arg(package))?;
    print::line("dist: ok: lintian has no complaint")
}
