//! A row of a CSV file.

use std::net::IpAddr;

use acctd_common::Counters;

use crate::model::prefix::Side;
use crate::model::verdict::Verdict;

/// One row of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The address of the prefix; the host bits are zero.
    pub address: IpAddr,
    /// The sum of the groups that account the source.
    pub source: Counters,
    /// The sum of the groups that account the destination.
    pub dest: Counters,
    /// Present if there is a cross-check.
    pub kernel: Option<KernelRow>,
}

/// The cross-check's part of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRow {
    /// The TC programs' count of packets from the prefix.
    pub source: Counters,
    /// The TC programs' count of packets to the prefix.
    pub dest: Counters,
    /// The worse one of both sides.
    pub verdict: Verdict,
    /// What the packets in `source` and `dest` are more on the wire, as several segments.
    pub segments: [Counters; 2],
}

impl KernelRow {
    /// The packets of a side as they are on the wire.
    #[must_use]
    pub fn wire(&self, side: Side) -> Counters {
        let mut wire = match side {
            Side::Source => self.source,
            Side::Dest => self.dest,
        };
        wire.add(self.segments[side as usize]);
        wire
    }
}
