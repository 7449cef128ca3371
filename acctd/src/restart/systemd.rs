//! What acctd tells the service manager (systemd, by `sd_notify(3)`), and what it has the manager keep
//! for the next acctd: the descriptor store. Without `NOTIFY_SOCKET` nothing here does anything.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use log::warn;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::PipeFlags;
use rustix::time::Timespec;
use sd_notify::NotifyState;

/// The manager must not watch what it keeps: it would let go of a socket that reports an overrun.
const UNWATCHED: NotifyState<'_> = NotifyState::Custom("FDPOLL=0");

/// Between two lines for `systemctl status`.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// A manager that does not answer must not hold up the stop.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is one.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Accounting has begun.
pub fn ready() {
    warn_of(sd_notify::notify(&[NotifyState::Ready]));
}

/// Accounting ends.
pub fn stopping() {
    warn_of(sd_notify::notify(&[NotifyState::Stopping]));
}

/// What `systemctl status` shows, and the sign of life that the manager may wait for (`WatchdogSec=`).
#[derive(Debug)]
pub struct Watchdog {
    /// How often a sign of life is due.
    life_every: Option<Duration>,
    shown_at: Option<Instant>,
    alive_at: Option<Instant>,
}

impl Watchdog {
    /// As often as the manager wants it.
    #[must_use]
    pub fn new() -> Self {
        // A third of the time after which it takes us for dead: one may be late, and one be lost.
        let life_every = sd_notify::watchdog_enabled().map(|patience| patience / 3);
        Self {
            life_every: life_every.filter(|_| is_there()),
            shown_at: None,
            alive_at: None,
        }
    }

    /// To be called from the loop whose life it shows.
    pub fn ping(&mut self, status: impl FnOnce() -> String) {
        if is_due(self.life_every, self.alive_at) {
            self.alive_at = Some(Instant::now());
            warn_of(sd_notify::notify(&[NotifyState::Watchdog]));
        }
        if is_due(is_there().then_some(STATUS_EVERY), self.shown_at) {
            self.shown_at = Some(Instant::now());
            warn_of(sd_notify::notify(&[NotifyState::Status(&status())]));
        }
    }
}

impl Default for Watchdog {
    fn default() -> Self {
        Self::new()
    }
}

fn is_due(every: Option<Duration>, last: Option<Instant>) -> bool {
    every.is_some_and(|every| last.is_none_or(|last| last.elapsed() >= every))
}

/// Has the manager keep a copy of a descriptor, under this name, for the next process.
pub fn keep(name: &str, fd: BorrowedFd<'_>) {
    let request = [NotifyState::FdStore, NotifyState::FdName(name), UNWATCHED];
    if let Err(error) = sd_notify::notify_with_fds(&request, &[fd]) {
        warn!(
            "the service manager cannot be asked to keep {name}: {error}; a restart will lose what is logged meanwhile"
        );
    }
}

/// Has the manager close whatever it keeps under this name.
pub fn forget(name: &str) {
    warn_of(sd_notify::notify(&[
        NotifyState::FdStoreRemove,
        NotifyState::FdName(name),
    ]));
}

/// As [`wait_until_done`]. What it closes may have held a group that is about to be opened.
pub fn let_it_finish() {
    if let Err(error) = wait_until_done() {
        warn!("the service manager does not answer: {error}; a group may still be taken by it");
    }
}

/// Waits until the manager has dealt with all that it was sent: then it closes its copy of a pipe
/// (`BARRIER=1`).
pub fn wait_until_done() -> io::Result<()> {
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

fn warn_of(told: io::Result<()>) {
    if let Err(error) = told {
        warn!("the service manager cannot be told: {error}; see NOTIFY_SOCKET");
    }
}
