//! Where and how files are written.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::warn;

use crate::config::crosscheck::Watched;
use crate::model::group::NflogGroup;
use crate::model::zone::Zone;
use crate::output::checkpoint::Checkpoint;
use crate::output::log_directory::{LogDirectory, make_directory};

#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) directory: PathBuf,
    /// The time zone of names and rows.
    pub(crate) zone: Zone,
    /// The interfaces that are cross-checked; empty without a cross-check.
    pub(crate) watched: Vec<Watched>,
    /// Files have columns for what packets are on the wire.
    pub(crate) wire: bool,
    /// Distinguishes processes that share the directory.
    pub(crate) tag: NflogGroup,
    /// The most rows that may wait.
    pub(crate) backlog: usize,
}

impl Destination {
    /// Opens the directory. If it is missing, it is created again.
    pub(super) fn open(&self) -> io::Result<LogDirectory> {
        match LogDirectory::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.directory)?;
                let shown = self.directory.display();
                warn!("log directory {shown} was missing and is created again");
                LogDirectory::open(&self.directory)
            }
            opened => opened,
        }
    }
}

pub(super) struct SaveJob {
    pub(super) file: String,
    pub(super) checkpoint: Checkpoint,
    pub(super) _in_flight: InFlight,
}

/// Decrements the counter when it is dropped.
pub(super) struct InFlight(pub(super) Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
