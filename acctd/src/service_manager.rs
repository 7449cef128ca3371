//! The service manager, if there is one: it is told how far acctd is, and keeps the groups' sockets over
//! a restart in its file descriptor store (`FileDescriptorStoreMax=` of systemd.service(5)). The kernel
//! goes on queueing packets into them, and the next acctd drains them.
//!
//! Beside the sockets lies a small file in memory with what the next one has to know to go on where
//! this one has stopped. Both go with the store: what is there is of the last run, or nothing is.
//! Everything that comes from it is looked at before it is used: anybody could have started us.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use log::{debug, info, warn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::MemfdFlags;
use rustix::pipe::PipeFlags;
use rustix::time::Timespec;
use sd_notify::NotifyState;
use serde::{Deserialize, Serialize};

use crate::interval::UnixNanos;
use crate::nflog_socket::NflogGroup;
use crate::sealed::{self, Sealed};

/// The name of the state among the descriptors.
const STATE: &str = "acctd-state";
/// What sockets' names begin with; the group follows.
const SOCKET: &str = "nflog-";
/// A manager that does not answer must not hold up the stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one acctd leaves to the next, beside its sockets.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Where its last interval ended, and the next one begins.
    pub end: UnixNanos,
    /// How far each group was read.
    pub groups: Vec<Position>,
}

impl Sealed for State {
    const TITLE: &'static str = "acctd state 1\n";
}

/// How far a group was read.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Position {
    /// The group.
    pub group: NflogGroup,
    /// The number that its next packet should have; unknown if none came yet.
    pub next_sequence: Option<u32>,
    /// The time of its last packet.
    pub last_time: UnixNanos,
}

/// What an acctd before this one has left.
#[derive(Debug, Default)]
pub struct Kept {
    sockets: HashMap<NflogGroup, OwnedFd>,
    /// What it said when it stopped; none if it was killed.
    pub state: Option<State>,
}

impl Kept {
    /// Takes the descriptors that this process was started with. What is not known is let go of.
    #[must_use]
    pub fn take() -> Self {
        let mut kept = Self::default();
        let descriptors = match sd_notify::listen_fds_with_names() {
            Ok(descriptors) => descriptors,
            Err(error) => {
                warn!("the descriptors from the service manager are not used: {error}");
                return kept;
            }
        };
        for (number, name) in descriptors {
            // SAFETY: LISTEN_PID was our pid, so these were opened for us before we were started,
            // nobody else here knows their numbers, and each comes once.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            if name == STATE {
                // It is of one stop: after the next, there is another.
                remove(&name);
                kept.state = read_state(descriptor);
                continue;
            }
            let group = name
                .strip_prefix(SOCKET)
                .and_then(|group| group.parse().ok());
            if let Some(group) = group {
                kept.sockets.insert(NflogGroup(group), descriptor);
            } else {
                warn!("descriptor {name:?} from the service manager is not acctd's, and is closed");
                remove(&name);
            }
        }
        kept
    }

    /// The socket that was kept for a group.
    #[must_use]
    pub fn socket(&mut self, group: NflogGroup) -> Option<OwnedFd> {
        self.sockets.remove(&group)
    }

    /// Closes the sockets that nobody has asked for.
    pub fn close_others(&mut self) {
        for (group, _socket) in self.sockets.drain() {
            info!("group {group} was read before and is not any more: its socket is closed");
            remove(&socket_name(group));
        }
    }
}

fn read_state(descriptor: OwnedFd) -> Option<State> {
    /// Some hundred groups take a few kilobytes.
    const MOST: u64 = 1 << 20;
    let mut file = File::from(descriptor);
    let mut bytes = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(MOST).read_to_end(&mut bytes));
    let state = read
        .map_err(|error| error.to_string())
        .and_then(|_| sealed::read(&bytes).map_err(|damage| damage.to_string()));
    state
        .inspect_err(|error| warn!("the state of the last run is not used: {error}"))
        .ok()
}

fn socket_name(group: NflogGroup) -> String {
    format!("{SOCKET}{group}")
}

/// Whether there is a service manager that may keep descriptors.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Has a socket kept.
pub fn keep_socket(group: NflogGroup, socket: BorrowedFd<'_>) {
    let name = socket_name(group);
    store(&name, socket);
}

/// Lets go of a socket that was kept.
pub fn forget_socket(group: NflogGroup) {
    remove(&socket_name(group));
}

/// Has the state kept, and waits until the manager has it: afterwards this process may end.
pub fn keep_state(state: &State) -> io::Result<()> {
    let mut file = File::from(rustix::fs::memfd_create(STATE, MemfdFlags::CLOEXEC)?);
    sealed::write(state, &mut file)?;
    store(STATE, file.as_fd());
    wait_for_manager()
}

/// acctd counts.
pub fn ready() {
    notify(&[NotifyState::Ready], &[]);
}

/// acctd has begun to stop.
pub fn stopping() {
    notify(&[NotifyState::Stopping], &[]);
}

fn store(name: &str, descriptor: BorrowedFd<'_>) {
    // An overrun is an error on a socket, and no reason to drop it.
    let no_poll = NotifyState::Custom("FDPOLL=0");
    let state = [NotifyState::FdStore, NotifyState::FdName(name), no_poll];
    notify(&state, &[descriptor]);
}

fn remove(name: &str) {
    notify(
        &[NotifyState::FdStoreRemove, NotifyState::FdName(name)],
        &[],
    );
}

fn notify(state: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
    if let Err(error) = sd_notify::notify_with_fds(state, descriptors) {
        debug!("the service manager does not listen: {error}");
    }
}

/// It has dealt with all that was sent before when it closes its copy of a pipe (`BARRIER=1` of
/// `sd_notify(3)`).
fn wait_for_manager() -> io::Result<()> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let mut hung_up = [PollFd::new(&ours, PollFlags::HUP)];
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    match poll(&mut hung_up, Some(&patience))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}
