//! Pins the maps to bpffs, for bpftool: `bpftool map dump pinned DIR/ACCTD_EPOCHS` shows the id of each
//! epoch's map.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::Map;
use aya::pin::PinError;
use log::warn;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// `linux/magic.h`.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// Pins, removed when dropped.
#[derive(Debug)]
pub(crate) struct Pins {
    paths: Vec<PathBuf>,
    /// Locked, so that no other acctd replaces the pins.
    _directory: File,
}

impl Pins {
    /// Pins the maps by their names in `directory`, which is created if necessary. An existing pin is a killed
    /// acctd's and is replaced.
    pub(crate) fn pin(directory: &Path, maps: &[(&str, Option<&Map>)]) -> Result<Self> {
        let shown = directory.display();
        must_be_on_bpffs(directory)?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create --crosscheck-pin {shown}"))?;
        let opened = File::open(directory)
            .with_context(|| format!("cannot open --crosscheck-pin {shown}"))?;
        flock(&opened, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => {
                anyhow!("another acctd pins its maps in {shown}: choose another --crosscheck-pin")
            }
            error => anyhow!("cannot lock --crosscheck-pin {shown}: {error}"),
        })?;
        let mut pins = Self {
            paths: Vec::new(),
            _directory: opened,
        };
        for &(name, map) in maps {
            let path = directory.join(name);
            remove(&path)?;
            let Some(map) = map else { continue };
            map.pin(&path)
                .map_err(|error| match error {
                    PinError::SyscallError(error) => error.io_error.into(),
                    error => anyhow::Error::from(error),
                })
                .with_context(|| format!("cannot pin a map to {}", path.display()))?;
            pins.paths.push(path);
        }
        Ok(pins)
    }
}

/// Checked before anything is created or removed there.
fn must_be_on_bpffs(directory: &Path) -> Result<()> {
    let shown = directory.display();
    let existing = directory
        .ancestors()
        .map(|path| {
            if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                path
            }
        })
        .find(|path| path.exists())
        .unwrap_or(directory);
    let file_system = rustix::fs::statfs(existing)
        .with_context(|| format!("cannot read the file system of --crosscheck-pin {shown}"))?;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    if file_system.f_type as i64 != BPF_FS_MAGIC {
        bail!(
            "--crosscheck-pin {shown} is not on bpffs: choose a directory below /sys/fs/bpf, after: mount -t bpf bpf /sys/fs/bpf"
        );
    }
    Ok(())
}

impl Drop for Pins {
    fn drop(&mut self) {
        for path in &self.paths {
            if let Err(error) = remove(path) {
                warn!("{error:#}; remove it with: rm {}", path.display());
            }
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}
