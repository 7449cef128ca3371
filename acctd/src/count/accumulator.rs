//! Sorts the packets of one group into the periods of their time stamps. Pure: the datagram and the time are
//! passed in, so the tests can step the clock.
//!
//! Invariant: each packet of each datagram is in exactly one slot's ledger, or in exactly one counter of that
//! slot that says why not.

use std::ops::Range;

use crate::count::slots::{ClosedSlot, Settings, Slots};
use crate::model::counts::Counts;
use crate::model::entries::Entries;
use crate::model::interval::{Period, PeriodIndex, UnixNanos};
use crate::model::position::Position;
use crate::model::prefix::Family;

/// The open ledgers of one group, with the smallest key that holds its prefixes.
#[derive(Debug)]
pub enum Accumulator {
    /// IPv4 prefixes.
    Ip4(Slots<u32>),
    /// IPv6 prefixes of at most 64 bits.
    Ip6Half(Slots<u64>),
    /// IPv6 prefixes of more than 64 bits.
    Ip6(Slots<u128>),
}

/// The same expression for each kind of key.
macro_rules! each {
    ($accumulator:expr, $slots:ident => $result:expr) => {
        match $accumulator {
            Accumulator::Ip4($slots) => $result,
            Accumulator::Ip6Half($slots) => $result,
            Accumulator::Ip6($slots) => $result,
        }
    };
}

impl Accumulator {
    /// An empty accumulator. Its first open period is the one that holds `now`.
    #[must_use]
    pub fn new(settings: Settings, now: UnixNanos) -> Self {
        let length = settings.prefix_length;
        match length.family() {
            Family::Ip4 => Self::Ip4(Slots::new(settings, now)),
            Family::Ip6 if length.bits() <= 64 => Self::Ip6Half(Slots::new(settings, now)),
            Family::Ip6 => Self::Ip6(Slots::new(settings, now)),
        }
    }

    /// Counts the packets of one datagram, received at `now`.
    pub fn absorb(&mut self, datagram: &[u8], now: UnixNanos) {
        each!(self, slots => slots.absorb(datagram, now));
    }

    /// Counts that the kernel has dropped datagrams. The next sequence number shows how many packets.
    pub fn overrun(&mut self, now: UnixNanos) {
        each!(self, slots => slots.overrun(now));
    }

    /// The socket is empty at `now`.
    pub fn emptied(&mut self, now: UnixNanos) {
        each!(self, slots => slots.overruns.note_empty(now));
    }

    /// When the kernel restarted its packet numbers, if it did since the last call.
    pub fn take_renumbered(&mut self) -> Option<Period> {
        each!(self, slots => slots.renumbered.take())
    }

    /// A copy of the open periods, which stay open.
    #[must_use]
    pub fn copy(&self) -> Vec<ClosedSlot> {
        match self {
            Self::Ip4(slots) => slots.copy(Entries::Ip4),
            Self::Ip6Half(slots) => slots.copy(Entries::Ip6Half),
            Self::Ip6(slots) => slots.copy(Entries::Ip6),
        }
    }

    /// Closes all periods before `first_open`. Packets that arrive for them later are counted as late.
    pub fn close_before(&mut self, first_open: PeriodIndex) -> Vec<ClosedSlot> {
        match self {
            Self::Ip4(slots) => slots.close_before(first_open, Entries::Ip4),
            Self::Ip6Half(slots) => slots.close_before(first_open, Entries::Ip6Half),
            Self::Ip6(slots) => slots.close_before(first_open, Entries::Ip6),
        }
    }

    /// Closes all periods and starts again at `now`, which may be before or after them.
    pub fn restart(&mut self, now: UnixNanos) -> Vec<ClosedSlot> {
        let closed = self.close_before(PeriodIndex(i64::MAX));
        each!(self, slots => slots.reopen(now));
        closed
    }

    /// Closes all periods for good.
    pub fn finish(&mut self, now: UnixNanos) -> Vec<ClosedSlot> {
        each!(self, slots => slots.count_overruns_without_gap(now));
        self.restart(now)
    }

    /// How far the group has been read.
    #[must_use]
    pub fn position(&self) -> Position {
        each!(self, slots => slots.position())
    }

    /// Continues where an earlier process ended.
    pub fn resume_from(&mut self, position: Position) {
        each!(self, slots => slots.resume_from(position));
    }

    /// The next packets come from another socket, which has other numbers.
    pub fn forget_sequence(&mut self, now: UnixNanos) {
        each!(self, slots => slots.forget_sequence(now));
    }

    /// Periods that may lack packets whose loss is counted in a later period, or is not known yet.
    #[must_use]
    pub fn open_loss(&self) -> Option<Range<PeriodIndex>> {
        each!(self, slots => slots.open_loss())
    }

    /// The counters since the start.
    #[must_use]
    pub fn totals(&self) -> &Counts {
        each!(self, slots => &slots.totals)
    }
}

#[cfg(test)]
mod tests;
