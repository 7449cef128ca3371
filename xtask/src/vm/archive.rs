//! Archives that the kernel unpacks at its start (`Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use testkit::process;

/// Packs what is in `root`. Everything belongs to root there.
pub(super) fn pack(root: &Path, archive: &Path) -> Result<()> {
    // Not half of it, should this be interrupted.
    let half = archive.with_extension("half");
    let script = "cd \"$1\" && find . -print0 |
        cpio --null --create --format=newc --owner=0:0 --quiet > \"$2\"";
    let mut cpio = Command::new("sh");
    cpio.args(["-c", script, "pack"]).arg(root).arg(&half);
    process::output(&mut cpio)?;
    fs::rename(&half, archive).with_context(|| format!("cannot make {}", archive.display()))
}

/// The kernel unpacks one after the other.
pub(super) fn join(archives: &[&Path], joined: &Path) -> Result<()> {
    let mut joined = File::create(joined)?;
    for archive in archives {
        let copied =
            File::open(archive).and_then(|mut archive| io::copy(&mut archive, &mut joined));
        copied.with_context(|| format!("cannot copy {}", archive.display()))?;
    }
    Ok(())
}
