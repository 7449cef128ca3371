//! Data that wait to be written.

use std::time::Duration;

use crate::model::closed_interval::ClosedInterval;
use crate::model::counts::FileTotals;
use crate::output::commit::Prepared;

/// An interval without a file.
pub(super) struct Unwritten {
    /// With a cross-check, its verdicts are given before it is written.
    pub(super) closed: ClosedInterval,
    /// Its complete file. After a try to write the record or to rename the file, no other file may be created: the try
    /// may have succeeded although it returned an error.
    pub(super) prepared: Option<(Prepared, Written)>,
}

/// A line for intervals.jsonl. When it is written, the record is removed.
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) record: Option<String>,
}

pub(super) struct Written {
    pub(super) totals: FileTotals,
    pub(super) took: Duration,
}
