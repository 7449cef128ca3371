//! Which overruns of a group's socket have shown how many packets they cost. Pure.
//!
//! When a socket is full, the kernel drops what comes until the socket has been read empty, and says
//! `ENOBUFS` once, before it gives what had waited. So the gap in the numbers stands behind those packets:
//!
//! ```text
//!  ENOBUFS │ what had waited │ (empty) │ the next packet: its number shows the gap, or that there is none
//! ```
//!
//! There is none where it was the answer to a question that met the full socket.

use crate::model::interval::UnixNanos;

/// The overruns of one group's socket since it was opened.
#[derive(Debug, Default)]
pub(crate) struct Overruns {
    /// Those whose gap has not come.
    open: u32,
    /// Of these, those whose gap can only stand before the next packet.
    settled_by_next: u32,
    /// When the socket was found empty after the last of these.
    emptied_at: UnixNanos,
}

impl Overruns {
    /// As another process has left them.
    pub(crate) fn left_open(open: u32) -> Self {
        Self {
            open,
            ..Self::default()
        }
    }

    /// The kernel has said that the socket was full.
    pub(crate) fn note(&mut self) {
        self.open = self.open.saturating_add(1);
    }

    /// Nothing waits in the socket.
    pub(crate) fn note_empty(&mut self, now: UnixNanos) {
        if self.settled_by_next < self.open {
            self.settled_by_next = self.open;
            self.emptied_at = now;
        }
    }

    /// Packets are missing before the one that was read now. While it is not known whose they are, they are
    /// those of the oldest.
    pub(crate) fn note_gap(&mut self) {
        if self.settled_by_next == 0 {
            self.open = self.open.saturating_sub(1);
        }
    }

    /// A packet was read, and its gap noted, if it has one.
    pub(crate) fn note_packet(&mut self) {
        self.open = self.open.saturating_sub(self.settled_by_next);
        self.settled_by_next = 0;
    }

    /// How many are open.
    pub(crate) fn open(&self) -> u32 {
        self.open
    }

    /// All packets that the open ones have cost came before this; `None` where the socket was not empty
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
    fn the_first_packet_behind_an_empty_socket_shows_whether_any_is_lost() {
        let mut overruns = Overruns::default();
        overruns.note();
        overruns.note_packet();
        assert_eq!((overruns.open(), overruns.over_at()), (1, None));
        overruns.note_empty(NOW);
        overruns.note_empty(UnixNanos(8));
        assert_eq!((overruns.open(), overruns.over_at()), (1, Some(NOW)));
        overruns.note_packet();
        assert_eq!((overruns.open(), overruns.over_at()), (0, None));
    }

    #[test]
    fn a_gap_closes_one_overrun_and_not_the_next() {
        let mut overruns = Overruns::default();
        overruns.note();
        overruns.note_empty(NOW);
        // Full again before the first packet is read: two, of which that packet shows one.
        overruns.note();
        overruns.note_gap();
        overruns.note_packet();
        assert_eq!(overruns.open(), 1);
        // Under a flood the socket is never found empty.
        overruns.note_gap();
        overruns.note_packet();
        assert_eq!(overruns.open(), 0);
        overruns.note_gap();
        assert_eq!(overruns.open(), 0);
    }
}
