//! When a reader looks at its socket next. While little comes, it is woken for each datagram; when
//! much comes, it looks every few milliseconds and is not woken at all, as NAPI does for network
//! cards. A rule with a threshold of 50 hands over thousands of datagrams a second, and being woken
//! for each costs more than reading it, on both sides: the kernel wakes in the path of the packet.
//!
//! Nothing depends on when a packet is read: its time stamp is the kernel's, and a closing period
//! reads the socket first.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::nflog::socket::NflogSocket;

/// How long to leave a busy socket alone.
const REST: Duration = Duration::from_millis(5);
/// The socket must have room for what comes meanwhile: of a million packets a second, a megabyte.
const BUFFER_TO_REST: usize = 8 * 1024 * 1024;

/// Paces the reads of one socket.
#[derive(Debug)]
pub struct Pace {
    socket: Arc<NflogSocket>,
    /// The socket's place in the runtime's epoll; `None` while resting, for epoll would wake the
    /// thread whether it is waited for or not.
    watch: Option<AsyncFd<Arc<NflogSocket>>>,
    may_rest: bool,
    emptied_at: Instant,
    n_read_since: usize,
    more_waits: bool,
}

impl Pace {
    /// Begins by watching, on the runtime that this is called in.
    pub fn new(socket: Arc<NflogSocket>) -> io::Result<Self> {
        let watch = NflogSocket::watch(&socket)?;
        Ok(Self {
            may_rest: socket.receive_buffer() >= BUFFER_TO_REST,
            socket,
            watch: Some(watch),
            emptied_at: Instant::now(),
            n_read_since: 0,
            more_waits: false,
        })
    }

    /// Returns when it is time to read. May be dropped at any point and called again.
    pub async fn time_to_read(&self) -> io::Result<()> {
        if self.more_waits {
            // Others first: a flood in one group is no reason to starve another.
            tokio::task::yield_now().await;
            return Ok(());
        }
        match &self.watch {
            // Cleared before the read, so that what comes behind the read's end wakes again.
            Some(watch) => watch.readable().await?.clear_ready(),
            None => sleep(REST).await,
        }
        Ok(())
    }

    /// Takes note of a read that brought `n_read` datagrams and left none waiting if `emptied`.
    pub fn note_read(&mut self, n_read: usize, emptied: bool) {
        self.n_read_since += n_read;
        self.more_waits = !emptied;
        if !emptied {
            return;
        }
        let now = Instant::now();
        let is_busy = match self.watch {
            Some(_) => self.may_rest && now - self.emptied_at < REST,
            None => self.n_read_since > 1,
        };
        if is_busy {
            self.watch = None;
        } else if self.watch.is_none() {
            // What has come since the read wakes at once. Should this fail, resting serves as well.
            self.watch = NflogSocket::watch(&self.socket).ok();
        }
        self.emptied_at = now;
        self.n_read_since = 0;
    }
}
