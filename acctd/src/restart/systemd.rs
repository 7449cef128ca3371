//! Notifications to the service manager (systemd, `sd_notify(3)`), and its store of file descriptors, which keeps
//! sockets for the next acctd. Without `NOTIFY_SOCKET`, nothing here has an effect.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::PipeFlags;
use rustix::time::Timespec;
use sd_notify::NotifyState;

/// The manager must not poll what it stores: it would close a socket that reports an overrun.
const UNWATCHED: NotifyState<'_> = NotifyState::Custom("FDPOLL=0");

/// How often the line of `systemctl status` is updated.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// How long to wait for an answer of the manager, so that it cannot prevent a stop.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a service manager wants notifications.
#[must_use]
pub(crate) fn is_present() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Notifies that accounting has begun.
pub(crate) fn ready() {
    warn_if_failed(sd_notify::notify(&[NotifyState::Ready]));
}

/// Notifies that accounting ends.
pub(crate) fn stopping() {
    warn_if_failed(sd_notify::notify(&[NotifyState::Stopping]));
}

/// Sends the line of `systemctl status`, and the keep-alive pings of `WatchdogSec=`.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// `None` if the manager wants no pings.
    ping_every: Option<Duration>,
    pinged_at: Option<Instant>,
    status_at: Option<Instant>,
}

impl Watchdog {
    /// Pings as often as the manager wants them.
    #[must_use]
    pub(crate) fn start() -> Self {
        // A third of the time after which the manager ends acctd: one ping may be late, and one lost.
        let ping_every = sd_notify::watchdog_enabled().map(|timeout| timeout / 3);
        Self {
            ping_every: ping_every.filter(|_| is_present()),
            pinged_at: None,
            status_at: None,
        }
    }

    /// Sends what is due. The main loop calls it, so pings show that this loop runs.
    pub(crate) fn send_due(&mut self, status: impl FnOnce() -> String) {
        if is_due(self.ping_every, self.pinged_at) {
            self.pinged_at = Some(Instant::now());
            warn_if_failed(sd_notify::notify(&[NotifyState::Watchdog]));
        }
        if is_due(is_present().then_some(STATUS_EVERY), self.status_at) {
            self.status_at = Some(Instant::now());
            warn_if_failed(sd_notify::notify(&[NotifyState::Status(&status())]));
        }
    }
}

fn is_due(every: Option<Duration>, last: Option<Instant>) -> bool {
    every.is_some_and(|every| last.is_none_or(|last| last.elapsed() >= every))
}

/// Asks the manager to store a copy of a descriptor, under this name, for the next process.
pub(crate) fn store(name: &str, fd: BorrowedFd<'_>) {
    let request = [NotifyState::FdStore, NotifyState::FdName(name), UNWATCHED];
    if let Err(error) = sd_notify::notify_with_fds(&request, &[fd]) {
        warn!(
            "cannot ask the service manager to store {name}: {error}; a restart will lose the packets that are logged meanwhile"
        );
    }
}

/// Asks the manager to close all descriptors that it stores under this name.
pub(crate) fn remove_stored(name: &str) {
    warn_if_failed(sd_notify::notify(&[
        NotifyState::FdStoreRemove,
        NotifyState::FdName(name),
    ]));
}

/// As [`barrier`], with a warning if it fails. For a group that acctd opens next: until the manager has closed
/// its copy of the socket, the group is taken.
pub(crate) fn barrier_or_warn() {
    if let Err(error) = barrier() {
        warn!("the service manager does not answer: {error}; it may still hold a group's socket");
    }
}

/// Waits until the manager has processed all notifications: then it closes its copy of a pipe (`BARRIER=1`).
pub(crate) fn barrier() -> io::Result<()> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let mut hung_up = [PollFd::new(&ours, PollFlags::HUP)];
    let timeout = Timespec::try_from(ANSWER_TIMEOUT).map_err(io::Error::other)?;
    match poll(&mut hung_up, Some(&timeout))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

fn warn_if_failed(notified: io::Result<()>) {
    if let Err(error) = notified {
        warn!("cannot notify the service manager: {error}; see NOTIFY_SOCKET");
    }
}
