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
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testkit::{
    debian::Debian,
    print,
    process::{self, run},
};

use crate::{arch::Arch, cross::Target, setup, workspace};
use packages::Packages;
use packing::{Packing, source_date};

/// Build the packages of acctd for Debian and for systems with rpm, a tarball and the list of crates, in target/dist
#[derive(clap::Args)]
pub(crate) struct Dist {
    /// Check the packages, and try Debian's in a clean Debian that boots its own systemd (needs root)
    ///
    /// A package for another processor than this machine's is checked and not tried.
    #[arg(long)]
    check: bool,
    /// The processor that the packages are for
    #[arg(long, value_enum, default_value_t = Arch::of_this_machine())]
    arch: Arch,
}

impl Dist {
    pub(crate) fn run(&self) -> Result<()> {
        setup::run()?;
        let cross = Target::prepare(self.arch)?;
        let root = workspace::root()?;
        let target = root.join("target");
        let place = target.join("dist");
        fs::create_dir_all(&place)?;
        reproducible::build(&root, &target, &cross)?;
        let sources = reproducible::copy(&root, &target)?;
        let date = source_date(&root)?;
        let packing = Packing {
            sources: sources.path(),
            target: &target,
            cross: &cross,
            place: &place,
            date: &date,
        };
        let packages = Packages::build(&packing)?;
        let tarball = tarball(&packing)?;
        for built in packages.files().into_iter().chain([tarball.as_path()]) {
            let size = fs::metadata(built)?.len();
            print::line(format!("dist: {} ({} kB)", built.display(), size / 1000))?;
        }
        if self.check {
            let debian = Debian::find().context("this needs Debian's tools")?;
            debian.install(&["apparmor", "binutils", "lintian", "rpm"])?;
            deb::lintian(&packages.debian)?;
            apparmor(&root)?;
            let program = packing.release(&target).join("acctd");
            deb::check_dependencies(&packages.debian, &program, self.arch)?;
            sbom::check(&packages.sbom, &program, self.arch)?;
            rpm::check(&packages.rpm, &packages.debian)?;
            reproducible::check(&root, &packing, &packages)?;
            if self.arch.is_of_this_machine() {
                check::run(&packages.debian, &target)?;
            }
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
fn tarball(packing: &Packing<'_>) -> Result<PathBuf> {
    let name = format!(
        "acctd-{}-{}-linux-gnu",
        env!("CARGO_PKG_VERSION"),
        packing.cross.arch.name()
    );
    let tarball = packing.place.join(format!("{name}.tar.gz"));
    let files = [
        "dist",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "SECURITY.md",
        "docs",
    ];
    let release = packing.release("target".as_ref());
    let mut tar = Command::new("tar");
    tar.args([
        "--create",
        "--gzip",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ])
    .arg(format!("--mtime=@{}", packing.date))
    .arg(format!("--transform=s,^target/.*/,,;s,^,{name}/,"))
    .arg("--file")
    .arg(&tarball)
    .args([sbom::NAME, "acctd"].map(|file| release.join(file)))
    .args(files)
    .current_dir(packing.sources);
    process::output(&mut tar)?;
    Ok(tarball)
}
