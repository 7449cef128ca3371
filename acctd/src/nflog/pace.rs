//! When a reader next reads its socket. At low load the kernel wakes the reader for each datagram. At high
//! load the reader polls every few milliseconds and is not woken at all, as NAPI does for network cards: a
//! rule with a threshold of 50 sends thousands of datagrams per second, and a wake-up for each costs more
//! than reading it. It also costs the kernel time in the path of the packet.
//!
//! Nothing depends on when a packet is read: its time stamp is the kernel's, and the socket is read before a
//! period closes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::nflog::socket::NflogSocket;

const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// A smaller receive buffer is not polled: it must hold what arrives between two polls. At a million packets
/// per second this is a megabyte.
const MIN_BUFFER_TO_POLL: usize = 8 * 1024 * 1024;

/// Schedules the reads of one socket.
#[derive(Debug)]
pub(crate) struct Pace {
    socket: Arc<NflogSocket>,
    /// The socket's registration with epoll. `None` while polling: epoll would wake the thread even if
    /// nobody waits for it.
    watch: Option<AsyncFd<Arc<NflogSocket>>>,
    may_poll: bool,
    emptied_at: Instant,
    n_read_since: usize,
    more_waits: bool,
}

impl Pace {
    /// Begins with wake-ups, on the current runtime.
    pub(crate) fn new(socket: Arc<NflogSocket>) -> io::Result<Self> {
        let watch = NflogSocket::watch(&socket)?;
        Ok(Self {
            may_poll: socket.receive_buffer() >= MIN_BUFFER_TO_POLL,
            socket,
            watch: Some(watch),
            emptied_at: Instant::now(),
            n_read_since: 0,
            more_waits: false,
        })
    }

    /// Returns when it is time to read. It is cancel-safe.
    pub(crate) async fn time_to_read(&self) -> io::Result<()> {
        if self.more_waits {
            // Other tasks first: a flood in one group must not starve another.
            tokio::task::yield_now().await;
            return Ok(());
        }
        match &self.watch {
            // Cleared before the read, so that what arrives after the read wakes again.
            Some(watch) => watch.readable().await?.clear_ready(),
            None => sleep(POLL_INTERVAL).await,
        }
        Ok(())
    }

    /// A read has received `n_read` datagrams, and all that waited if `emptied`.
    pub(crate) fn note_read(&mut self, n_read: usize, emptied: bool) {
        self.n_read_since += n_read;
        self.more_waits = !emptied;
        if !emptied {
            return;
        }
        let now = Instant::now();
        let is_busy = match self.watch {
            Some(_) => self.may_poll && now - self.emptied_at < POLL_INTERVAL,
            None => self.n_read_since > 1,
        };
        if is_busy {
            self.watch = None;
        } else if self.watch.is_none() {
            // What has arrived since the read wakes at once. If this fails, polling continues.
            self.watch = NflogSocket::watch(&self.socket).ok();
        }
        self.emptied_at = now;
        self.n_read_since = 0;
    }
}
