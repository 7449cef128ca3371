//! What waits to be written.

use std::time::Duration;

use crate::model::closed_interval::ClosedInterval;
use crate::model::counts::FileTotals;
use crate::output::commit::Prepared;

/// An interval without a file.
pub(super) struct Unwritten {
    /// It has its verdicts when it goes to the disk.
    pub(super) closed: ClosedInterval,
    /// Its file, complete. Once the disk was asked to record it or to give it its name, no other may be made: the
    /// answer may be lost though it was done.
    pub(super) prepared: Option<(Prepared, Written)>,
}

/// A line for intervals.jsonl, and the record that goes when it is there.
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) record: Option<String>,
}

pub(super) struct Written {
    pub(super) totals: FileTotals,
    pub(super) took: Duration,
}
