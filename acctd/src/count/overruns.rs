//! Tracks for which overruns of a group's socket the number of lost packets is known. Pure.
//!
//! If a socket is full, the kernel drops packets until the socket has been read empty. It returns `ENOBUFS` once,
//! before the packets that waited. So the gap in the sequence numbers comes after those packets:
//!
//! ```text
//!  ENOBUFS │ the packets that waited │ (empty) │ the next packet: its number shows the gap, or that there is none
//! ```
//!
//! There is no gap if the kernel dropped only an answer to a binding check.

use crate::model::interval::UnixNanos;

/// The overruns of one group's socket since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Overruns {
    /// Overruns whose gap has not been seen.
    open: u32,
    /// How many of them the next packet settles: the socket has been empty since, so their gap can only be directly
    /// before that packet.
    settled_by_next: u32,
    /// When the socket was empty after the last of these.
    emptied_at: UnixNanos,
}

impl Overruns {
    /// Overruns that an earlier process left open.
    pub(crate) fn with_open(open: u32) -> Self {
        Self {
            open,
            ..Self::default()
        }
    }

    /// The kernel has reported that the socket was full.
    pub(crate) fn add(&mut self) {
        self.open = self.open.saturating_add(1);
    }

    /// The socket is empty.
    pub(crate) fn note_empty(&mut self, now: UnixNanos) {
        if self.settled_by_next < self.open {
            self.settled_by_next = self.open;
            self.emptied_at = now;
        }
    }

    /// Packets are missing before the one that was just read. If it is not known to which overrun they belong, they
    /// settle the oldest.
    pub(crate) fn note_gap(&mut self) {
        if self.settled_by_next == 0 {
            self.open = self.open.saturating_sub(1);
        }
    }

    /// A packet was read. If there was a gap before it, [`Overruns::note_gap`] comes first.
    pub(crate) fn note_packet(&mut self) {
        self.open = self.open.saturating_sub(self.settled_by_next);
        self.settled_by_next = 0;
    }

    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    /// All packets lost in the open overruns were logged before this time. `None` if the socket has not been empty
    /// since.
    pub(crate) fn over_at(&self) -> Option<UnixNanos> {
        (self.open > 0 && self.settled_by_next == self.open).then_some(self.emptied_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(7);

    #[test]
    fn the_first_packet_after_an_empty_socket_shows_whether_any_is_lost() {
        let mut overruns = Overruns::default();
        overruns.add();
        overruns.note_packet();
        assert_eq!((overruns.open(), overruns.over_at()), (1, None));
        overruns.note_empty(NOW);
        overruns.note_empty(UnixNanos(8));
        assert_eq!((overruns.open(), overruns.over_at()), (1, Some(NOW)));
        overruns.note_packet();
        assert_eq!((overruns.open(), overruns.over_at()), (0, None));
    }

    #[test]
    fn a_gap_settles_one_overrun_and_not_the_next() {
        let mut overruns = Overruns::default();
        overruns.add();
        overruns.note_empty(NOW);
        // Full again before the first packet is read: that packet settles one of the two.
        overruns.add();
        overruns.note_gap();
        overruns.note_packet();
        assert_eq!(overruns.open(), 1);
        // Under a flood the socket is never empty.
        overruns.note_gap();
        overruns.note_packet();
        assert_eq!(overruns.open(), 0);
        overruns.note_gap();
        assert_eq!(overruns.open(), 0);
    }
}
