//! How far a group's reader has come.

use serde::{Deserialize, Serialize};

use crate::model::interval::UnixNanos;

/// Where a group's reader is in what the kernel logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number that the next packet has; unknown until the first one came.
    pub next_sequence: Option<u32>,
    /// The time of the last packet.
    pub last_time: UnixNanos,
    /// Overruns of the socket of which no number has shown yet how many packets they cost.
    pub open_overruns: u32,
}
