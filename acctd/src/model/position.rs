//! How far a group's reader has read.

use serde::{Deserialize, Serialize};

use crate::model::interval::UnixNanos;

/// How far a group's reader has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The sequence number of the next packet; `None` before the first packet.
    pub next_sequence: Option<u32>,
    /// The time stamp of the last packet.
    pub last_time: UnixNanos,
    /// Overruns since the last packet. The next sequence number will show how many packets are lost.
    pub open_overruns: u32,
}
