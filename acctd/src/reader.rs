//! One group's task: its socket, its buffer, its ledgers. Nothing here is shared with another
//! task but the published counters, and nothing waits but for packets and commands.

use std::io;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::accumulator::{Accumulator, Closed};
use crate::counts::SharedCounts;
use crate::interval::{PeriodIndex, UnixNanos};
use crate::nflog_socket::{MAX_DATAGRAM, NflogSocket, Received};
use crate::pace::Pace;

/// Datagrams read before the task looks for a command and lets others run.
const BURST: usize = 64;

/// What the kernel counts for a waiting datagram beyond its bytes, at the least: the descriptor
/// (`struct sk_buff`) and its tail (`struct skb_shared_info`).
const SKB_OVERHEAD: usize = 512;

/// What the engine asks of a reader. Each is answered with the ledgers that it closes.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Hand over all periods before this one, after reading what has waited in the socket: it
    /// may hold packets that were stamped before the boundary.
    CloseBefore(PeriodIndex),
    /// Give a copy of all that is open, and go on.
    Copy,
    /// Hand over everything and begin anew at this time: the clock was set back.
    Restart(UnixNanos),
    /// Let go of the group and hand over everything, what the kernel still held included.
    Finish,
}

/// A command and where its answer goes.
pub type Request = (Command, oneshot::Sender<Closed>);

/// The engine's end of a reader.
#[derive(Debug)]
pub struct ReaderHandle {
    commands: mpsc::UnboundedSender<Request>,
    /// The reader's counters since the start.
    pub counts: Arc<SharedCounts>,
}

impl ReaderHandle {
    /// A handle, and where its requests arrive.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (commands, requests) = mpsc::unbounded_channel();
        let counts = Arc::default();
        (Self { commands, counts }, requests)
    }

    /// Sends a command; the answer comes when the reader has carried it out. An answer that
    /// never comes means that the reader has panicked.
    #[must_use]
    pub fn request(&self, command: Command) -> oneshot::Receiver<Closed> {
        let (reply, answer) = oneshot::channel();
        // A reader that is gone drops the sender of the reply, and the caller sees that.
        let _gone = self.commands.send((command, reply));
        answer
    }
}

/// Reads one group until it is told to finish.
#[derive(Debug)]
pub struct Reader {
    socket: Arc<NflogSocket>,
    pace: Pace,
    accumulator: Accumulator,
    buffer: Box<[u8]>,
    counts: Arc<SharedCounts>,
}

impl Reader {
    /// Starts the task, on the runtime that this is called in. A socket that fails for good is
    /// reported to `failures`, once; the reader goes on to answer commands, so that what it had
    /// counted is handed over.
    pub fn start(
        socket: NflogSocket,
        accumulator: Accumulator,
        failures: mpsc::UnboundedSender<io::Error>,
    ) -> io::Result<ReaderHandle> {
        let (handle, requests) = ReaderHandle::new();
        let socket = Arc::new(socket);
        let reader = Self {
            pace: Pace::new(Arc::clone(&socket))?,
            socket,
            accumulator,
            buffer: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            counts: Arc::clone(&handle.counts),
        };
        tokio::spawn(reader.run(requests, failures));
        Ok(handle)
    }

    async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        failures: mpsc::UnboundedSender<io::Error>,
    ) {
        let mut failed = false;
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => {
                    let Some((command, reply)) = request else { return };
                    // The engine waits for the answer, unless it has panicked.
                    let _gone = reply.send(self.obey(command));
                }
                woken = self.pace.time_to_read(), if !failed => {
                    if let Err(error) = woken.and_then(|()| self.read_burst()) {
                        failed = true;
                        let _gone = failures.send(error);
                    }
                }
            }
        }
    }

    fn read_burst(&mut self) -> io::Result<()> {
        let mut n_read = 0;
        let mut emptied = false;
        while n_read < BURST && !emptied {
            let received = self.socket.receive(&mut self.buffer)?;
            let now = UnixNanos::now();
            match received {
                Received::Datagram(length) => {
                    self.accumulator.absorb(&self.buffer[..length], now);
                    n_read += 1;
                }
                Received::Overrun => self.accumulator.overrun(now),
                Received::Nothing => emptied = true,
            }
        }
        self.counts.publish(self.accumulator.totals());
        self.pace.note_read(n_read, emptied);
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Closed {
        let group = self.socket.group();
        if let Err(error) = self.drain() {
            log::warn!("group {group}: cannot read what waits in the socket: {error}");
        }
        if matches!(command, Command::Finish) {
            let unbound = self.socket.unbind();
            // The kernel has put its batch into the socket and adds nothing more to it.
            if let Err(error) = unbound.and_then(|()| self.drain()) {
                log::warn!("group {group}: cannot let go of it cleanly: {error}");
            }
        }
        let open_loss = self.accumulator.open_loss();
        let slots = match command {
            Command::CloseBefore(first_open) => self.accumulator.close_before(first_open),
            Command::Copy => self.accumulator.copy(),
            Command::Restart(now) => self.accumulator.restart(now),
            Command::Finish => self.accumulator.finish(UnixNanos::now()),
        };
        self.counts.publish(self.accumulator.totals());
        Closed { slots, open_loss }
    }

    /// Reads until nothing waits, or as much as can have waited when this began: under a flood
    /// the socket is never empty.
    fn drain(&mut self) -> io::Result<()> {
        let mut left = self.socket.receive_buffer();
        loop {
            let received = self.socket.receive(&mut self.buffer)?;
            let now = UnixNanos::now();
            match received {
                Received::Datagram(length) => {
                    self.accumulator.absorb(&self.buffer[..length], now);
                    match left.checked_sub(length + SKB_OVERHEAD) {
                        Some(less) => left = less,
                        None => break,
                    }
                }
                Received::Overrun => self.accumulator.overrun(now),
                Received::Nothing => break,
            }
        }
        self.counts.publish(self.accumulator.totals());
        Ok(())
    }
}
