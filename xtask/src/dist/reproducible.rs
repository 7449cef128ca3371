//! The same sources give the same package, to the byte, wherever they are built.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testkit::{
    print,
    process::{self, run},
    programs::cargo,
};

use super::{
    packages::Packages,
    packing::{Packing, tool},
};
use crate::cross::Target;
use crate::workspace::cargo_home;

/// Puts the list of dependencies into the program. It is cargo's `RUSTC_WORKSPACE_WRAPPER`, which leaves
/// `RUSTC_WRAPPER` to us.
const CARGO_AUDITABLE: &str = "0.7.7";

/// Passes on what cargo asks of rustc, and keeps this machine's directories out of it.
const WRAPPER: &str = "xtask/src/dist/rustc.sh";

/// Builds acctd in the sources at `root`, into `target`.
pub(super) fn build(root: &Path, target: &Path, cross: &Target) -> Result<()> {
    let home = cargo_home()?;
    let auditable = tool(target, "cargo-auditable", CARGO_AUDITABLE, "0")?;
    let build = || {
        let mut build = Command::new(&auditable);
        build
            .args(["auditable", "build", "--release", "--locked", "-p", "acctd"])
            .env("CARGO", cargo())
            .env("RUSTC_WRAPPER", root.join(WRAPPER))
            .env("DIST_ROOT", root)
            .env("DIST_CARGO_HOME", &home)
            .env("CARGO_TARGET_DIR", target)
            .current_dir(root);
        cross.set(&mut build);
        // As the wrapper does, for crates that compile C.
        let maps = [(&*home, "/usr/share/cargo"), (root, "/usr/src/acctd")];
        let maps = maps.map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()));
        let c_flags = format!("{}{}", cross.c_flags(), maps.join(" "));
        build.env(cross.c_flags_name(), c_flags);
        run(&mut build)
    };
    build()?;
    let release = cross.directory(target).join("release");
    if names_one_of(&release.join("acctd"), &[root, &home])? {
        // cargo does not know that what it has there was built without the wrapper.
        print::line("dist: what was built before names directories of this machine; built anew")?;
        fs::remove_dir_all(&release)?;
        build()?;
        ensure!(
            !names_one_of(&release.join("acctd"), &[root, &home])?,
            "the program names {} or {}",
            root.display(),
            home.display()
        );
    }
    Ok(())
}

fn names_one_of(program: &Path, directories: &[&Path]) -> Result<bool> {
    let bytes = fs::read(program).with_context(|| program.display().to_string())?;
    Ok(directories.iter().any(|directory| {
        let name = directory.as_os_str().as_encoded_bytes();
        bytes.windows(name.len()).any(|part| part == name)
    }))
}

/// A copy of the sources, without what is built of them.
pub(super) fn copy(root: &Path, target: &Path) -> Result<TempDir> {
    let elsewhere = TempDir::with_prefix_in("sources-", target)?;
    let list = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let files = process::output(Command::new("git").args(list).current_dir(root))?;
    for file in files.split_terminator('\0').map(Path::new) {
        // One that is removed, but not yet in a commit, is none any more.
        if !root.join(file).exists() {
            continue;
        }
        let copy = elsewhere.path().join(file);
        fs::create_dir_all(copy.parent().context("a directory")?)?;
        fs::copy(root.join(file), &copy).with_context(|| file.display().to_string())?;
    }
    Ok(elsewhere)
}

/// Builds acctd's own crates again, in another directory, and compares the packages.
pub(super) fn check(root: &Path, packing: &Packing<'_>, packages: &Packages) -> Result<()> {
    let target = packing.target;
    let elsewhere = copy(root, target)?;
    build(elsewhere.path(), target, packing.cross)?;
    let place = TempDir::with_prefix_in("again-", target)?;
    let again = Packages::build(&Packing {
        sources: elsewhere.path(),
        place: place.path(),
        ..*packing
    })?;
    for (package, again) in packages.files().into_iter().zip(again.files()) {
        ensure!(
            fs::read(package)? == fs::read(again)?,
            "built in another directory, {} is another",
            package.display()
        );
    }
    print::line("dist: ok: built in another directory, the packages are the same to the byte")
}
