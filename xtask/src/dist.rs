//! `cargo xtask dist`: acctd as a Debian package, as an rpm and as a tarball, and what must hold of them.

mod check;
mod deb;
mod machine;
mod packages;
mod packing;
mod reproducible;
mod rpm;
mod sbom;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testkit::{
    debian::Debian,
    print,
    process::{self, run},
};

use crate::{setup, workspace};
use packages::Packages;
use packing::{Packing, source_date};

/// Build the packages of acctd for Debian and for systems with rpm, a tarball and the list of crates, in target/dist
#[derive(clap::Args)]
pub(crate) struct Dist {
    /// Try the package in a clean Debian that boots its own systemd (needs root)
    #[arg(long)]
    check: bool,
}

impl Dist {
    pub(crate) fn run(&self) -> Result<()> {
        setup::run()?;
        let root = workspace::root()?;
        let target = root.join("target");
        let place = target.join("dist");
        fs::create_dir_all(&place)?;
        reproducible::build(&root, &target)?;
        let sources = reproducible::copy(&root, &target)?;
        let date = source_date(&root)?;
        let packing = Packing {
            sources: sources.path(),
            target: &target,
            place: &place,
            date: &date,
        };
        let packages = Packages::build(&packing)?;
        let tarball = tarball(&root, &place, &date)?;
        for built in packages.files().into_iter().chain([tarball.as_path()]) {
            let size = fs::metadata(built)?.len();
            print::line(format!("dist: {} ({} kB)", built.display(), size / 1000))?;
        }
        if self.check {
            let debian = Debian::find().context("this needs Debian's tools")?;
            debian.install(&["apparmor", "binutils", "lintian", "rpm"])?;
            deb::lintian(&packages.debian)?;
            apparmor(&root)?;
            sbom::check(&packages.sbom, &target.join("release/acctd"))?;
            rpm::check(&packages.rpm, &packages.debian)?;
            reproducible::check(&root, &packing, &packages)?;
            check::run(&packages.debian, &target)?;
        }
        Ok(())
    }
}

/// That the profile is one: the kernel of the tests may have no `AppArmor` to put it in force.
fn apparmor(root: &Path) -> Result<()> {
    let mut parser = Command::new("apparmor_parser");
    parser.args(["--skip-kernel-load", "--skip-cache"]);
    run(parser.arg(root.join("dist/acctd.apparmor")))?;
    print::line("dist: ok: the AppArmor profile is understood")
}

/// What the package has, for systems without dpkg. The program is linked dynamically: Debian has
/// `libnetfilter_log` as a shared library alone.
fn tarball(root: &Path, place: &Path, date: &str) -> Result<PathBuf> {
    let name = format!(
        "acctd-{}-{}-linux-gnu",
        env!("CARGO_PKG_VERSION"),
        env::consts::ARCH
    );
    let tarball = place.join(format!("{name}.tar.gz"));
    let files = [
        "dist",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "SECURITY.md",
        "docs",
    ];
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--gzip",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ])
    .arg(format!("--mtime=@{date}"))
    .arg(format!("--transform=s,^target/[a-z]*/,,;s,^,{name}/,"))
    .arg("--file")
    .arg(&tarball)
    .args(["target/release/acctd", "target/dist/acctd.cdx.json"])
    .args(files.into_iter().filter(|file| root.join(file).exists()))
    .current_dir(root);
    process::output(&mut tar)?;
    Ok(tarball)
}
