//! What is known of the open intervals' checkpoints.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::group::NflogGroup;
use crate::model::interval::{Interval, PeriodIndex};
use crate::output::checkpoint::Checkpoint;

/// What is known of the open periods' checkpoints.
#[derive(Debug)]
pub(super) struct Saving {
    pub(super) interval: Interval,
    pub(super) tag: NflogGroup,
    /// How often to save; `None` is never.
    pub(super) pause: Option<Duration>,
    pub(super) due_at: Instant,
    /// The files that may be there, by period.
    pub(super) files: BTreeMap<PeriodIndex, String>,
    /// The current period as an acctd that was killed had saved it: a part of what is open.
    pub(super) resumed: Option<Checkpoint>,
    /// Datagrams read when it was last saved.
    pub(super) n_datagrams: u64,
}

/// What was saved of a period that is over now.
pub(super) struct Saved {
    pub(super) files: Vec<String>,
    pub(super) resumed: Option<Checkpoint>,
}

impl Saving {
    /// That of this period, and of any before it that was not named.
    pub(super) fn take_through(&mut self, index: PeriodIndex) -> Saved {
        let later = self.files.split_off(&index.next());
        let files = std::mem::replace(&mut self.files, later);
        Saved {
            files: files.into_values().collect(),
            resumed: self.resumed.take_if(|resumed| resumed.index <= index),
        }
    }
}
