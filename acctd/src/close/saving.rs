//! The checkpoints of the open intervals.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::group::NflogGroup;
use crate::model::interval::{Interval, PeriodIndex};
use crate::output::checkpoint::Checkpoint;

pub(super) struct Saving {
    pub(super) interval: Interval,
    pub(super) tag: NflogGroup,
    /// How often to save; `None`: never.
    pub(super) pause: Option<Duration>,
    pub(super) due_at: Instant,
    /// The files that may exist, by period.
    pub(super) files: BTreeMap<PeriodIndex, String>,
    /// The checkpoint of a killed acctd that the open period continues.
    pub(super) resumed: Option<Checkpoint>,
    /// How many datagrams had been read at the last save.
    pub(super) n_datagrams: u64,
}

/// The checkpoints of a period that is over.
pub(super) struct Saved {
    pub(super) files: Vec<String>,
    pub(super) resumed: Option<Checkpoint>,
}

impl Saving {
    /// The checkpoints of this period, and of earlier periods that have not been taken.
    pub(super) fn take_through(&mut self, index: PeriodIndex) -> Saved {
        let later = self.files.split_off(&index.next());
        let files = std::mem::replace(&mut self.files, later);
        Saved {
            files: files.into_values().collect(),
            resumed: self.resumed.take_if(|resumed| resumed.index <= index),
        }
    }
}
