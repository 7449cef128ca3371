//! What one acctd leaves to the next, so that a restart loses no packet and counts none twice.
//!
//! ```text
//!  old acctd   ──── last interval ────┤ drains the sockets, leaves a note
//!  the kernel     logs into the sockets, which the service manager stores  ────────►
//!  new acctd                          ├ drains the sockets ──── first interval ────
//! ```
//!
//! The note has the end of the last interval, and for each group the sequence number of its next packet. It is
//! in sealed memory, which the manager stores with the sockets. After a kill there are sockets, but no note: then
//! accounting begins with the first packet that waits.

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
use crate::restart::inherited::NamedFd;
use crate::restart::systemd;

/// The note's name in the service manager's store.
const NOTE: &str = "acctd-state";
/// With these, nobody can change the note.
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::GROW)
    .union(SealFlags::SHRINK);

/// The note to the next acctd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// The end of the last interval.
    pub end: UnixNanos,
    /// The groups whose sockets are left, and how far each was read.
    pub groups: Vec<(NflogGroup, Position)>,
}

impl Checksummed for Handover {
    const TITLE: &'static str = "acctd handover 2\n";
    /// A group takes about 20 bytes.
    const MAX_BYTES: u64 = 64 * 1024;
}

impl Handover {
    /// Stores the note with the service manager. When this returns, this process may end.
    pub fn leave(&self) -> io::Result<()> {
        // A note of an earlier process may be left.
        systemd::remove_stored(NOTE);
        let note = self.write()?;
        systemd::store(NOTE, note.as_fd());
        systemd::barrier()
    }

    fn write(&self) -> io::Result<OwnedFd> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create(NOTE, flags)?);
        checksummed::write(self, &file)?;
        rustix::fs::fcntl_add_seals(&file, SEALS | SealFlags::SEAL)?;
        Ok(file.into())
    }

    /// The descriptor may be anything. Only memory has seals, and a read of memory never waits.
    fn read(note: OwnedFd) -> Result<Self> {
        let seals = rustix::fs::fcntl_get_seals(&note);
        if !seals.is_ok_and(|seals| seals.contains(SEALS)) {
            bail!("it is not sealed memory");
        }
        let mut file = File::from(note);
        file.rewind()?;
        Ok(checksummed::read_file(&file)??)
    }

    /// How far the group was read; `None` if the previous acctd did not read it.
    #[must_use]
    pub fn position(&self, group: NflogGroup) -> Option<Position> {
        let mut groups = self.groups.iter();
        groups.find_map(|(other, position)| (*other == group).then_some(*position))
    }
}

/// The name of the socket for time stamps in the service manager's store.
pub(crate) const RECEIVE_STAMPS: &str = "receive-stamps";

/// The name of a group's socket in the service manager's store.
#[must_use]
pub fn socket_name(group: NflogGroup) -> String {
    format!("nflog-{group}")
}

/// Descriptors from the service manager's store. Anybody may have stored them, so users check what they are.
#[derive(Debug)]
pub struct FdStore {
    descriptors: Vec<NamedFd>,
}

impl FdStore {
    /// Takes the descriptors that are named as these groups' sockets or as the note. Closes all others, such as
    /// sockets of groups that are no longer read.
    #[must_use]
    pub fn for_groups(groups: &[GroupConfig], descriptors: Vec<NamedFd>) -> Self {
        let known: Vec<String> = groups
            .iter()
            .map(|group| socket_name(group.group))
            .collect();
        // The socket for time stamps has done its work: this process has one of its own.
        let is_known =
            |(name, _): &NamedFd| name == NOTE || name == RECEIVE_STAMPS || known.contains(name);
        let (descriptors, others): (_, Vec<NamedFd>) = descriptors.into_iter().partition(is_known);
        let is_any_closed = !others.is_empty();
        for (name, _closed) in others {
            info!(
                "Closed {name}, which the service manager had stored: acctd does not use it any more"
            );
            systemd::remove_stored(&name);
        }
        if is_any_closed {
            systemd::barrier_or_warn();
        }
        Self { descriptors }
    }

    /// The descriptors that are named as the group's socket.
    pub fn take_sockets(&mut self, group: NflogGroup) -> Vec<OwnedFd> {
        self.take(&socket_name(group))
    }

    /// The note, if there is a valid one.
    #[must_use]
    pub fn take_note(mut self) -> Option<Handover> {
        let mut handover = None;
        let notes = self.take(NOTE);
        if !notes.is_empty() {
            // Before a packet is read, because then the note is no longer true.
            systemd::remove_stored(NOTE);
        }
        for note in notes {
            match Handover::read(note) {
                Ok(read) => handover = Some(read),
                Err(error) => warn!(
                    "the note of the previous acctd ({NOTE}) is not used: {error:#}; accounting begins as after a kill"
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

/// The start of the first interval: the end of the last one, if there is a note. Without a note, the time of the
/// oldest packet that waits in a stored socket (`oldest_waiting`: one element per socket, `None` if no packet
/// waits). Otherwise now.
///
/// An end long ago is valid, because the kernel continued to number packets. If the clock was set forward
/// meanwhile, `timeline` handles it as in a running acctd.
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
            "the clock was set back since acctd was stopped: a new interval begins now; if a file name is taken, the new file gets a suffix"
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

    /// The version that introduced format 2 saved the file. A later version must read it, or use a new title.
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
    fn other_descriptors_are_not_read_as_a_note() {
        let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
        let text = Handover::read(pipe).unwrap_err().to_string();
        assert!(text.contains("not sealed memory"), "{text}");
        let unsealed = rustix::fs::memfd_create(NOTE, MemfdFlags::CLOEXEC).unwrap();
        assert!(Handover::read(unsealed).is_err());
        let foreign = rustix::fs::memfd_create(NOTE, MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&foreign, b"something else").unwrap();
        rustix::fs::fcntl_add_seals(&foreign, SEALS).unwrap();
        let text = Handover::read(foreign).unwrap_err().to_string();
        assert!(text.contains("of another program"), "{text}");
    }

    #[test]
    fn the_first_interval_begins_at_the_end_of_the_last_one() {
        let earlier = NOW.minus(Duration::from_secs(3));
        let much_earlier = NOW.minus(Duration::from_secs(300_000));
        let kept = || [Some(earlier), None];
        assert_eq!(begins_at(Some(&handover(earlier)), kept(), NOW), earlier);
        let old = handover(much_earlier);
        assert_eq!(begins_at(Some(&old), kept(), NOW), much_earlier);
        // A clock that was set back a little is ignored, as in a running acctd.
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
