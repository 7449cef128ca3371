//! What one acctd leaves to the next, so that a restart loses nothing and doubles nothing.
//!
//! ```text
//!  old acctd   ──── last interval ────┤ drains the sockets, leaves a note
//!  the kernel     logs into the sockets, which the service manager keeps  ─────────►
//!  new acctd                          ├ drains what has waited ──── first interval ────
//! ```
//!
//! The note says where the last interval has ended, and for each group which number its next packet has. It
//! is a sealed piece of memory, kept by the manager beside the sockets. After a kill there are sockets
//! and no note: the first packet that waits is where accounting begins again.

use std::fs::File;
use std::io::{self, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Result, bail};
use log::{info, warn};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::{Deserialize, Serialize};

use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::{SETTLE_TIME, UnixNanos};
use crate::model::position::Position;
use crate::restart::checksummed::{self, Checksummed};
use crate::restart::inherited::Named;
use crate::restart::systemd;

/// The note's name in the manager's store.
const NOTE: &str = "acctd-state";
/// Nothing in it can change.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK);

/// The note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The end of the last interval.
    pub end: UnixNanos,
    /// The groups that are left.
    pub groups: Vec<(NflogGroup, Position)>,
}

impl Checksummed for Handover {
    const TITLE: &'static str = "acctd handover 2\n";
    /// It has some 20 bytes for each group.
    const LONGEST: u64 = 64 * 1024;
}

impl Handover {
    /// Leaves it with the service manager, and waits until it is there: then this process may end.
    pub fn leave(&self) -> io::Result<()> {
        // One that a process without an end has left is not for the next one.
        systemd::forget(NOTE);
        let note = self.write()?;
        systemd::keep(NOTE, note.as_fd());
        systemd::wait_until_done()
    }

    fn write(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(NOTE, flags)?);
        checksummed::write(self, &file)?;
        rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
        Ok(file.into())
    }

    /// Reads what may be anything.
    fn read(note: OwnedFd) -> Result<Self> {
        // Only memory has seals, and reading it never waits.
        let Ok(seals) = rustix::fs::fcntl_get_seals(&note) else {
            bail!("it is no sealed memory");
        };
        if !seals.contains(SEALS) {
            bail!("it is no sealed memory");
        }
        let mut file = File::from(note);
        file.rewind()?;
        Ok(checksummed::read_file(&file)??)
    }

    /// Where the group was left; `None` if it was not.
    #[must_use]
    pub fn position(&self, group: NflogGroup) -> Option<Position> {
        let mut groups = self.groups.iter();
        groups.find_map(|(left, position)| (*left == group).then_some(*position))
    }
}

/// The name of a group's socket in the manager's store.
#[must_use]
pub fn socket_name(group: NflogGroup) -> String {
    format!("nflog-{group}")
}

/// What the service manager has kept, by what it claims to be.
#[derive(Debug, Default)]
pub struct Kept {
    descriptors: Vec<Named>,
}

impl Kept {
    /// Keeps what may be these groups' sockets, or the note, and closes the rest: sockets of groups that
    /// are not read any more, and whatever else was in the store.
    #[must_use]
    pub fn for_groups(groups: &[GroupConfig], descriptors: Vec<Named>) -> Self {
        let known: Vec<String> = groups
            .iter()
            .map(|group| socket_name(group.group))
            .collect();
        let is_known = |(name, _): &Named| name == NOTE || known.contains(name);
        let (descriptors, others): (_, Vec<Named>) = descriptors.into_iter().partition(is_known);
        let is_any_closed = !others.is_empty();
        for (name, _closed) in others {
            info!("The service manager has kept {name}, which is not asked for any more: closed");
            systemd::forget(&name);
        }
        if is_any_closed {
            systemd::let_it_finish();
        }
        Self { descriptors }
    }

    /// Those that claim to be the group's socket.
    pub fn take_sockets(&mut self, group: NflogGroup) -> Vec<OwnedFd> {
        self.take(&socket_name(group))
    }

    /// The note, if there is one that can be understood. It is used up with that.
    #[must_use]
    pub fn take_note(mut self) -> Option<Handover> {
        let mut handover = None;
        let notes = self.take(NOTE);
        if !notes.is_empty() {
            // Before a packet is read: from then on it is not true any more.
            systemd::forget(NOTE);
        }
        for note in notes {
            match Handover::read(note) {
                Ok(read) => handover = Some(read),
                Err(error) => warn!(
                    "what the acctd before has left ({NOTE}) is not used: {error:#}; accounting begins as after a kill"
                ),
            }
        }
        handover
    }

    fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        let taken = self.descriptors.extract_if(.., |(found, _)| found == name);
        taken.map(|(_, fd)| fd).collect()
    }
}

/// Where the first interval begins: where the last one has ended; after a kill, with the oldest packet that
/// waits in a socket that was kept (`oldest_waiting`: of each socket, `None` where none waits); else now.
///
/// An end that lies long ago is no reason to doubt it: the kernel has gone on numbering. The clock may
/// have been set forward meanwhile, and then `timeline` deals with it as if acctd had run on.
#[must_use]
pub fn begins_at(
    handover: Option<&Handover>,
    oldest_waiting: impl IntoIterator<Item = Option<UnixNanos>>,
    now: UnixNanos,
) -> UnixNanos {
    let Some(handover) = handover else {
        let oldest = oldest_waiting.into_iter().flatten().min();
        return oldest.map_or(now, |oldest| oldest.min(now));
    };
    if handover.end > now.plus(SETTLE_TIME) {
        warn!(
            "the clock was set back since acctd was stopped: a new interval begins now; a file name that is taken gets a suffix"
        );
        return now;
    }
    handover.end
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: UnixNanos = UnixNanos(1_000_000_000_000);

    fn handover(end: UnixNanos) -> Handover {
        let position = Position {
            next_sequence: Some(7),
            last_time: end,
            open_overruns: 3,
        };
        Handover {
            end,
            groups: vec![(NflogGroup(5), position)],
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let written = handover(NOW);
        let read = Handover::read(written.write().unwrap()).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.position(NflogGroup(5)).unwrap().next_sequence, Some(7));
        assert_eq!(read.position(NflogGroup(6)), None);
    }

    /// Saved by the version that has made format 2. A later one must read it, or have a title of its own.
    #[test]
    fn a_note_of_format_2_is_read() {
        let mut written = handover(UnixNanos(71_000_000_000));
        let unknown = Position {
            next_sequence: None,
            last_time: UnixNanos(0),
            open_overruns: 0,
        };
        written.groups.push((NflogGroup(6), unknown));
        checksummed::testing::ensure_format("handover-2", &written);
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
        let text = Handover::read(pipe).unwrap_err().to_string();
        assert!(text.contains("no sealed memory"), "{text}");
        let unsealed = rustix::fs::memfd_create(NOTE, MemfdFlags::CLOEXEC).unwrap();
        assert!(Handover::read(unsealed).is_err());
        let foreign = rustix::fs::memfd_create(NOTE, MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&foreign, b"something else").unwrap();
        rustix::fs::fcntl_add_seals(&foreign, SEALS).unwrap();
        let text = Handover::read(foreign).unwrap_err().to_string();
        assert!(text.contains("of another program"), "{text}");
    }

    #[test]
    fn the_first_interval_begins_where_the_last_one_has_ended() {
        let earlier = NOW.minus(Duration::from_secs(3));
        let much_earlier = NOW.minus(Duration::from_secs(300_000));
        let kept = || [Some(earlier), None];
        assert_eq!(begins_at(Some(&handover(earlier)), kept(), NOW), earlier);
        let old = handover(much_earlier);
        assert_eq!(begins_at(Some(&old), kept(), NOW), much_earlier);
        // As a running acctd takes a clock that was set back a little.
        let ahead = NOW.plus(SETTLE_TIME);
        assert_eq!(begins_at(Some(&handover(ahead)), kept(), NOW), ahead);
        let far_ahead = handover(ahead.plus(Duration::from_nanos(1)));
        assert_eq!(begins_at(Some(&far_ahead), kept(), NOW), NOW);
    }

    #[test]
    fn after_a_kill_it_begins_with_the_oldest_packet_that_waits() {
        let at = |seconds| Some(NOW.minus(Duration::from_secs(seconds)));
        let kept = [at(2), None, at(5)];
        assert_eq!(Some(begins_at(None, kept, NOW)), at(5));
        assert_eq!(begins_at(None, [None], NOW), NOW);
        assert_eq!(begins_at(None, [], NOW), NOW);
        let ahead = Some(NOW.plus(Duration::from_secs(1)));
        assert_eq!(begins_at(None, [ahead], NOW), NOW);
    }
}
