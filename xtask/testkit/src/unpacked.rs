//! Programs of Debian packages that are not installed, since that would start a service: downloaded with
//! apt-get and unpacked beside the build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{netns::find_program, process};

/// The path of a program, which may be one that is installed. `in_package` is its path in the package.
pub fn program(package: &str, in_package: &str) -> Result<PathBuf> {
    let name = Path::new(in_package).file_name().context("a program")?;
    if let Some(installed) = find_program(&name.to_string_lossy()) {
        return Ok(installed);
    }
    let program = directory().join(package).join(in_package);
    if !program.exists() {
        unpack(package).with_context(|| format!("cannot unpack Debian's package {package}"))?;
    }
    ensure!(program.exists(), "package {package} has no {in_package}");
    Ok(program)
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/debian")
}

fn unpack(package: &str) -> Result<()> {
    fs::create_dir_all(directory())?;
    let download = TempDir::new_in(directory())?;
    let apt_get = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(words).current_dir(download.path());
        process::output(&mut command)
    };
    if apt_get(&["download", package]).is_err() {
        // A fresh machine has no lists, or old ones.
        apt_get(&["update"])?;
        apt_get(&["download", package])?;
    }
    let file = fs::read_dir(download.path())?.next();
    let file = file.context("nothing was downloaded")??.path();
    // Not half of it, should this be interrupted.
    let unpacked = download.path().join("unpacked");
    process::output(Command::new("dpkg-deb").arg("-x").arg(file).arg(&unpacked))?;
    let place = directory().join(package);
    // Somebody else may have been faster.
    if let Err(error) = fs::rename(&unpacked, &place) {
        ensure!(place.exists(), "cannot make {}: {error}", place.display());
    }
    Ok(())
}
