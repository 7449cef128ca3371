//! The maps under bpffs, for bpftool: `bpftool map dump pinned DIR/ACCTD_EPOCHS` shows the ids of
//! the epochs' own maps.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use acctd_common::contract;
use anyhow::{Context, Result, anyhow};
use aya::maps::Map;
use log::warn;

/// Names under bpffs, removed when dropped.
#[derive(Debug)]
pub struct Pins(Vec<PathBuf>);

impl Pins {
    /// Pins the maps in `directory`, which is made if need be. A pin that is there is a killed
    /// acctd's: it is replaced.
    pub fn pin(directory: &Path, epochs: &Map, clock: &Map, vlans: Option<&Map>) -> Result<Self> {
        let shown = directory.display();
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make --crosscheck-pin {shown}"))?;
        let mut pins = Self(Vec::new());
        let maps = [
            (contract::EPOCHS, Some(epochs)),
            (contract::CLOCK, Some(clock)),
            (contract::VLANS, vlans),
        ];
        for (name, map) in maps {
            let Some(map) = map else { continue };
            let path = directory.join(name);
            remove(&path)?;
            map.pin(&path).map_err(|error| {
                anyhow!(
                    "cannot pin to {}: {error}; the directory must be on bpffs: mount -t bpf bpf /sys/fs/bpf",
                    path.display()
                )
            })?;
            pins.0.push(path);
        }
        Ok(pins)
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Err(error) = remove(path) {
                warn!("{error:#}; remove it by: rm {}", path.display());
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
