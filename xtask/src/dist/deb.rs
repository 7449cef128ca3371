//! The package for Debian, by cargo-deb.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use testkit::{
    print,
    process::{self, run},
};

use super::packing::Packing;
use crate::arch::Arch;

const CARGO_DEB: &str = "3.8.0";

pub(super) fn package(packing: &Packing<'_>) -> Result<PathBuf> {
    let mut build = packing.tool("cargo-deb", CARGO_DEB, "0")?;
    build
        .args(["--package", "acctd", "--no-build", "--output"])
        .arg(packing.place)
        .args(packing.cross.options())
        .env("CARGO_TARGET_DIR", packing.sources.join("target"));
    let printed = process::output(&mut build)?;
    let path = printed.lines().last();
    Ok(path.context("cargo-deb names no package")?.into())
}

/// What the program is linked to, and no more, is what the package depends on. (dpkg-shlibdeps(1) knows the libraries
/// of this machine's processor alone.)
pub(super) fn check_dependencies(package: &Path, program: &Path, arch: Arch) -> Result<()> {
    let mut objdump = Command::new(arch.gnu_tool("objdump"));
    let headers = process::output(objdump.arg("-p").arg(program))?;
    let words = || headers.split_whitespace();
    let glibc = words().filter_map(|word| word.strip_prefix("GLIBC_2."));
    let newest = glibc.filter_map(|minor| minor.parse::<u32>().ok()).max();
    let needed = words().zip(words().skip(1));
    let needed = needed.filter_map(|(before, word)| (before == "NEEDED").then_some(word));
    // Of GNU's libc too.
    let is_of_libc = |it: &&str| ["ld-linux", "libm."].iter().any(|own| it.starts_with(own));
    let needed: Vec<&str> = needed.filter(|it| !is_of_libc(it)).collect();
    let depends = process::output(
        Command::new("dpkg-deb")
            .arg("-f")
            .arg(package)
            .arg("Depends"),
    )?;
    let glibc = format!("libc6 (>= 2.{})", newest.context("a GNU libc")?);
    ensure!(
        needed == ["libnetfilter_log.so.1", "libgcc_s.so.1", "libc.so.6"]
            && depends.trim() == format!("{glibc}, libnetfilter-log1 (>= 0.0.13)"),
        "the program needs {needed:?} and {glibc}; the package depends on {depends}"
    );
    print::line("dist: ok: the package depends on what the program is linked to")
}

/// Debian's own checks of a package. What is right as it is has its reason in dist/deb/lintian-overrides.
pub(super) fn lintian(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    run(lintian.arg(package))?;
    print::line("dist: ok: lintian has no complaint")
}
