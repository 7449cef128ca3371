//! `cargo xtask dist`: acctd as a Debian package and as a tarball, and what must hold of them.

mod check;
mod machine;
mod reproducible;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use xtask::process;

use crate::{print, setup};

const CARGO_DEB: &str = "3.8.0";

/// Build the Debian package and a tarball of acctd, in target/dist
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
        let package = debian_package(&cargo, &root, &target, &place, &root)?;
        let tarball = tarball(&root, &place)?;
        for built in [&package, &tarball] {
            let size = fs::metadata(built)?.len();
            print::line(format!("dist: {} ({} kB)", built.display(), size / 1000))?;
        }
        if self.check {
            lintian(&package)?;
            reproducible::check(&cargo, &root, &target, &package)?;
            check::run(&package, &target)?;
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

/// Of the sources at `root`, whose history `dated` has, and of what is built of them in `target`.
fn debian_package(
    cargo: &str,
    root: &Path,
    target: &Path,
    place: &Path,
    dated: &Path,
) -> Result<PathBuf> {
    let tools = target.join("tools");
    // A minute on two cores; the next run finds it there.
    let install = [
        "install",
        "cargo-deb",
        "--version",
        CARGO_DEB,
        "--debug",
        "--locked",
        "--quiet",
    ];
    run(Command::new(cargo).args(install).arg("--root").arg(&tools))?;
    let mut build = Command::new(tools.join("bin/cargo-deb"));
    build
        .args(["--package", "acctd", "--no-build", "--output"])
        .arg(place)
        .env("CARGO", cargo)
        .env("CARGO_TARGET_DIR", target)
        .env("SOURCE_DATE_EPOCH", source_date(dated)?)
        .current_dir(root);
    let printed = process::output(&mut build)?;
    let path = printed
        .lines()
        .last()
        .context("cargo-deb names no package")?;
    Ok(path.into())
}

/// Debian's own checks of a package. What is right as it is has its reason in dist/deb/lintian-overrides.
fn lintian(package: &Path) -> Result<()> {
    let debian = setup::Debian::find().context("this needs Debian's tools")?;
    debian.install(&["lintian"])?;
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning"]);
    run(lintian.arg(package))?;
    print::line("dist: ok: lintian has no complaint")
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
    .arg(format!("--transform=s,^target/release/,,;s,^,{name}/,"))
    .arg("--file")
    .arg(&tarball)
    .arg("target/release/acctd")
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
