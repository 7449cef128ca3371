//! Python programs that tests run, with packages that are installed beside the build.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// A Python that has these packages, each as `NAME==VERSION`.
pub fn with_packages(name: &str, packages: &[&str]) -> Result<PathBuf> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/tools")
        .join(name);
    let python = place.join("bin/python3");
    // Behind the last step, so that half an installation is gone on with.
    let done = place.join("done");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    process::output(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&place),
    )
    .context("cannot make a virtual environment (Debian: apt-get install python3-venv)")?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    process::output(Command::new(&python).args(pip).args(packages))
        .with_context(|| format!("cannot install {}", packages.join(" ")))?;
    std::fs::write(&done, wanted)?;
    Ok(python)
}
