//! `cargo xtask dist`: acctd as a Debian package, as an rpm and as a tarball, and what must hold of them.

mod check;
mod machine;
mod reproducible;
mod rpm;
mod sbom;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use testkit::{debian::Debian, print, process};

use crate::setup;

const CARGO_DEB: &str = "3.8.0";

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
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .canonicalize()?;
        let target = root.join("target");
        let place = target.join("dist");
        fs::create_dir_all(&place)?;
        let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        reproducible::build(&cargo, &root, &target)?;
        let sources = reproducible::copy(&root, &target)?;
        let packages = Packages::build(&cargo, &root, sources.path(), &target, &place)?;
        let tarball = tarball(&root, &place)?;
        for built in packages.files().into_iter().chain([tarball.as_path()]) {
            let size = fs::metadata(built)?.len();
            print::line(format!("dist: {} ({} kB)", built.display(), size / 1000))?;
        }
        if self.check {
            let debian = Debian::find().context("this needs Debian's tools")?;
            debian.install(&["apparmor", "binutils", "lintian", "rpm"])?;
            lintian(&packages.debian)?;
            apparmor(&root)?;
            sbom::check(&packages.sbom, &target.join("release/acctd"))?;
            rpm::check(&packages.rpm, &packages.debian)?;
            reproducible::check(&cargo, &root, &target, &packages)?;
            check::run(&packages.debian, &target)?;
        }
        Ok(())
    }
}

/// With what it prints going where this program's goes.
fn run(command: &mut Command) -> Result<()> {
    let shown = process::command_line(command);
    let status = command.status().with_context(|| shown.clone())?;
    ensure!(status.success(), "{shown}: {status}");
    Ok(())
}

/// A command of cargo's that others have written, built with `profile`.
fn tool(cargo: &str, target: &Path, name: &str, version: &str, profile: &str) -> Result<PathBuf> {
    let tools = target.join("tools");
    let install = ["install", name, "--version", version, "--profile", profile];
    // A minute or two on two cores; the next run finds it there.
    let how = ["--locked", "--quiet", "--root"];
    run(Command::new(cargo).args(install).args(how).arg(&tools))?;
    Ok(tools.join("bin").join(name))
}

struct Packages {
    debian: PathBuf,
    rpm: PathBuf,
    sbom: PathBuf,
}

impl Packages {
    /// Of what is built in `target` and of a copy of the sources: what is packed is new there, and those who pack
    /// may write beside it.
    fn build(
        cargo: &str,
        root: &Path,
        sources: &Path,
        target: &Path,
        place: &Path,
    ) -> Result<Self> {
        let date = source_date(root)?;
        let release = sources.join("target/release");
        fs::create_dir_all(&release)?;
        fs::copy(target.join("release/acctd"), release.join("acctd"))?;
        let sbom = sbom::write(cargo, sources, target, &date, &release)?;
        let beside = place.join(sbom::NAME);
        fs::copy(sbom, &beside)?;
        Ok(Self {
            debian: debian_package(cargo, sources, target, place, &date)?,
            rpm: rpm::package(cargo, sources, target, place, &date)?,
            sbom: beside,
        })
    }

    fn files(&self) -> [&Path; 3] {
        [&self.debian, &self.rpm, &self.sbom]
    }
}

fn debian_package(
    cargo: &str,
    sources: &Path,
    target: &Path,
    place: &Path,
    date: &str,
) -> Result<PathBuf> {
    let mut build = Command::new(tool(cargo, target, "cargo-deb", CARGO_DEB, "dev")?);
    build
        .args(["--package", "acctd", "--no-build", "--output"])
        .arg(place)
        .env("CARGO", cargo)
        .env("CARGO_TARGET_DIR", sources.join("target"))
        .env("SOURCE_DATE_EPOCH", date)
        .current_dir(sources);
    let printed = process::output(&mut build)?;
    let path = printed
        .lines()
        .last()
        .context("cargo-deb names no package")?;
    Ok(path.into())
}

/// Debian's own checks of a package. What is right as it is has its reason in dist/deb/lintian-overrides.
fn lintian(package: &Path) -> Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    run(lintian.arg(package))?;
    print::line("dist: ok: lintian has no complaint")
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
fn tarball(root: &Path, place: &Path) -> Result<PathBuf> {
    let name = format!(
        "acctd-{}-{}-linux-gnu",
        env!("CARGO_PKG_VERSION"),
        env::consts::ARCH
    );
    let tarball = place.join(format!("{name}.tar.gz"));
    let date = source_date(root)?;
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

/// The time of the last commit, so that the same sources give the same files.
fn source_date(root: &Path) -> Result<String> {
    if let Ok(date) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    let log = ["log", "-1", "--format=%ct"];
    let date = process::output(Command::new("git").args(log).current_dir(root))?;
    Ok(date.trim().to_owned())
}
