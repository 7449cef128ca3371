//! The package for systems with rpm: what the Debian package has, where those systems look for it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use testkit::{print, process};

use super::packing::Packing;

const CARGO_GENERATE_RPM: &str = "0.21.1";

/// The sources are newer than the date: a file that is older would keep its time.
pub(super) fn package(packing: &Packing<'_>) -> Result<PathBuf> {
    let file = packing.place.join(format!(
        "acctd-{}-1.{}.rpm",
        env!("CARGO_PKG_VERSION"),
        packing.cross.arch.name()
    ));
    // What it packs is compressed in Rust, which takes minutes if that is not optimised at all.
    let mut build = packing.tool("cargo-generate-rpm", CARGO_GENERATE_RPM, "1")?;
    build
        .args(["generate-rpm", "--package", "acctd", "--target-dir"])
        .arg(packing.sources.join("target"))
        .args(packing.cross.options())
        // The other way takes a script of rpm's own, which is not everywhere.
        .args(["--auto-req", "builtin", "--source-date", packing.date])
        .arg("--output")
        .arg(&file);
    process::output(&mut build)?;
    Ok(file)
}

/// It has the files of the Debian package, and asks for the library and the user.
pub(super) fn check(rpm: &Path, debian: &Path) -> Result<()> {
    let query = |what: &str| process::output(Command::new("rpm").args(["-qp", what]).arg(rpm));
    let mut contents = Command::new("sh");
    let script = "dpkg-deb --fsys-tarfile \"$0\" | tar --list | grep -v '/$'";
    let contents = process::output(contents.args(["-euc", script]).arg(debian))?;
    let (rpm, debian) = (files(&query("--list")?), files(&contents));
    let differ: Vec<_> = rpm.symmetric_difference(&debian).collect();
    ensure!(differ.is_empty(), "the packages' files differ: {differ:?}");
    let requires = query("--requires")?;
    // As `deb` finds them in the program.
    for needed in [
        "libnetfilter_log.so.1()(64bit)",
        "libgcc_s.so.1()(64bit)",
        "libc.so.6(GLIBC_2.34)(64bit)",
    ] {
        ensure!(requires.contains(needed), "no {needed}: {requires}");
    }
    ensure!(query("--configfiles")?.contains("/etc/default/acctd\n"));
    ensure!(query("--scripts")?.contains("systemd-sysusers acctd.conf"));
    print::line("dist: ok: the rpm has what the Debian package has")
}

/// The files of a list, without those that only one kind of package has. If both have a file at different paths, the
/// path is the same here.
fn files(list: &str) -> BTreeSet<String> {
    let own = ["copyright", "changelog.Debian", "/lintian/", "/licenses/"];
    let files = list.lines().map(|line| {
        let line = line.trim_start_matches('.').trim_end_matches(".gz");
        line.replace("zsh/site-functions", "zsh/vendor-completions")
            .replace("/lib/systemd", "/usr/lib/systemd")
            .replace("/usr/usr/", "/usr/")
    });
    files
        .filter(|file| !own.iter().any(|part| file.contains(part)))
        .collect()
}
