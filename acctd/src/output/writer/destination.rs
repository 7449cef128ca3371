//! Where files go, and what is written there.

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

/// Where and how files are written.
#[derive(Clone)]
pub(crate) struct Destination {
    /// The log directory.
    pub(crate) directory: PathBuf,
    /// The zone of names and rows.
    pub(crate) zone: Zone,
    /// The interfaces that are cross-checked; empty without a cross-check.
    pub(crate) watched: Vec<Watched>,
    /// Whose files these are, where several processes share the directory.
    pub(crate) tag: NflogGroup,
    /// The most rows that may wait.
    pub(crate) backlog: usize,
}

impl Destination {
    /// Opens the directory. Where it is gone it is made again.
    pub(super) fn open(&self) -> io::Result<LogDirectory> {
        match LogDirectory::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.directory)?;
                let shown = self.directory.display();
                warn!("log directory {shown} was gone and is made again");
                LogDirectory::open(&self.directory)
            }
            opened => opened,
        }
    }
}

pub(super) struct SaveJob {
    pub(super) file: String,
    pub(super) checkpoint: Checkpoint,
    /// Counts it for as long as it is there.
    pub(super) _counted: CountedIn,
}

pub(super) struct CountedIn(pub(super) Arc<AtomicUsize>);

impl Drop for CountedIn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
