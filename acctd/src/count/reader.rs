//! The task of one group: its socket, its buffer, its ledgers. It shares only the published counters with other
//! tasks, and waits only for packets and requests.

use std::io;
use std::sync::Arc;

use log::warn;
use tokio::sync::{mpsc, oneshot};

use crate::count::accumulator::Accumulator;
use crate::count::capture::{Capture, Wanted};
use crate::count::slots::{Closed, ClosedSlot};
use crate::model::counts::SharedCounts;
use crate::model::group::GroupConfig;
use crate::model::interval::{PeriodIndex, UnixNanos};
use crate::model::shutdown_mode::ShutdownMode;
use crate::nflog::binding::{Answer, Change};
use crate::nflog::message;
use crate::nflog::pace::Pace;
use crate::nflog::socket::{MAX_DATAGRAM, NflogSocket, Received};

/// How many datagrams the task reads before it checks for a request and lets other tasks run.
const BURST: usize = 64;

/// The least that the kernel counts for a waiting datagram besides its bytes: `struct sk_buff` and
/// `struct skb_shared_info`.
const SKB_OVERHEAD: usize = 512;

/// A command of the engine. The reader replies with the ledgers that the command closes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    /// Close all periods before this one. First the reader reads what waits in the socket: it may hold packets
    /// with time stamps before the boundary.
    CloseBefore(PeriodIndex),
    /// Reply with a copy of all open periods.
    Copy,
    /// The clock was set back: close all periods, and start again at this time.
    Restart(UnixNanos),
    /// Close all periods for good. If the group is unbound, they include what the kernel still holds.
    Finish(ShutdownMode),
}

/// A request to a reader, and where the reply goes.
pub(crate) enum Request {
    Command(Command, oneshot::Sender<Closed>),
    /// Ask the kernel whether the group is still bound to the socket. The answer arrives after the packets before
    /// it are read. There is no answer if the reader has no socket or the socket is full.
    CheckBinding(oneshot::Sender<Answer>),
    /// Unbind the group if it is still bound, read what the socket holds, and close it.
    Release(oneshot::Sender<io::Result<()>>),
    /// Reply with a copy of all open periods, without what waits in the socket: for `acctd top`.
    Copy(oneshot::Sender<Vec<ClosedSlot>>),
    /// Keep packets, for `acctd explain`.
    StartCapture(Wanted),
    /// Read what waits in the socket, so that it is known when it was empty.
    ReadWhatWaits,
    /// Reply with what was kept since; `None` if nothing was to be kept.
    EndCapture(oneshot::Sender<Option<Capture>>),
    /// Read from this socket.
    Adopt(NflogSocket, oneshot::Sender<io::Result<()>>),
}

/// The engine's end of a reader.
pub(crate) struct ReaderHandle {
    commands: mpsc::UnboundedSender<Request>,
    /// Since the start.
    pub(crate) counts: Arc<SharedCounts>,
}

impl ReaderHandle {
    /// A handle, and the receiver of its requests.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (commands, requests) = mpsc::unbounded_channel();
        let counts = Arc::default();
        (Self { commands, counts }, requests)
    }

    /// For requests of `acctd explain` and `acctd top`; it does not keep the reader running.
    pub(crate) fn weak(&self) -> mpsc::WeakUnboundedSender<Request> {
        self.commands.downgrade()
    }

    /// Sends a command. The reply arrives when the reader has executed it. If the reader has panicked, the
    /// channel closes without a reply.
    pub(crate) fn request(&self, command: Command) -> oneshot::Receiver<Closed> {
        self.send(|reply| Request::Command(command, reply))
    }

    /// See [`Request::CheckBinding`].
    pub(crate) fn check_binding(&self) -> oneshot::Receiver<Answer> {
        self.send(Request::CheckBinding)
    }

    /// Closes the reader's socket, or gives it another one.
    pub(crate) fn change(&self, change: Change) -> oneshot::Receiver<io::Result<()>> {
        match change {
            Change::Release => self.send(Request::Release),
            Change::Adopt(socket) => self.send(|reply| Request::Adopt(socket, reply)),
        }
    }

    fn send<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        // If the reader is gone, the sender of the reply is dropped, and the caller sees that.
        let _gone = self.commands.send(request(reply));
        answer
    }
}

/// Reads one group until it receives [`Command::Finish`].
pub(crate) struct Reader {
    group: GroupConfig,
    /// `None` while the group is not bound.
    source: Option<Source>,
    accumulator: Accumulator,
    buffer: Box<[u8]>,
    counts: Arc<SharedCounts>,
    /// While `acctd explain` asks.
    capture: Option<Box<Capture>>,
}

struct Source {
    socket: Arc<NflogSocket>,
    pace: Pace,
    /// The last read failed. The socket is not read again.
    failure: Option<io::Error>,
    /// How many binding checks were sent: the number of the last one.
    n_checks: u32,
    /// Where the answer to the last check goes.
    pending: Option<oneshot::Sender<Answer>>,
}

impl Source {
    fn new(socket: NflogSocket) -> io::Result<Self> {
        let socket = Arc::new(socket);
        Ok(Self {
            pace: Pace::new(Arc::clone(&socket))?,
            socket,
            failure: None,
            n_checks: 0,
            pending: None,
        })
    }

    fn check_binding(&mut self, reply: oneshot::Sender<Answer>) {
        self.n_checks = self.n_checks.wrapping_add(1);
        let sent = match self.failure.take() {
            None => self.socket.ask_whether_bound(self.n_checks),
            Some(error) => Err(error),
        };
        match sent {
            Ok(()) => self.pending = Some(reply),
            Err(error) => {
                let _gone = reply.send(Answer::Lost(error));
            }
        }
    }

    /// Whether the datagram is an answer instead of packets. If so, it is passed on.
    fn is_answer(&mut self, datagram: &[u8]) -> bool {
        let Some((number, result)) = message::reply(datagram) else {
            return false;
        };
        if number == self.n_checks
            && let Some(reply) = self.pending.take()
        {
            let _gone = reply.send(result.map_or_else(Answer::Lost, |()| Answer::Bound));
        }
        true
    }

    /// Never returns if there is no socket or it has failed.
    async fn time_to_read(source: Option<&Self>) -> io::Result<()> {
        match source {
            Some(source) if source.failure.is_none() => source.pace.time_to_read().await,
            _ => std::future::pending().await,
        }
    }
}

impl Reader {
    /// Starts the task, on the current runtime. If the socket fails, the next binding check returns the error, and
    /// the reader continues to handle requests: one of them may bring another socket.
    pub(crate) fn start(
        socket: NflogSocket,
        group: GroupConfig,
        accumulator: Accumulator,
    ) -> io::Result<ReaderHandle> {
        let (handle, requests) = ReaderHandle::new();
        let reader = Self {
            group,
            source: Some(Source::new(socket)?),
            accumulator,
            buffer: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            counts: Arc::clone(&handle.counts),
            capture: None,
        };
        tokio::spawn(reader.run(requests));
        Ok(handle)
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => self.handle(request),
                    None => return,
                },
                woken = Source::time_to_read(self.source.as_ref()) => {
                    let read = woken.and_then(|()| self.read_burst());
                    if let Some(source) = &mut self.source {
                        source.failure = read.err();
                    }
                }
            }
        }
    }

    /// The receiver of a reply is only gone if its task has panicked.
    fn handle(&mut self, request: Request) {
        match request {
            Request::Command(command, reply) => {
                let _gone = reply.send(self.execute(command));
            }
            Request::CheckBinding(reply) => {
                if let Some(source) = &mut self.source {
                    source.check_binding(reply);
                }
            }
            Request::Release(reply) => {
                let released = self.unbind_and_drain();
                self.source = None;
                self.accumulator.forget_sequence(UnixNanos::now());
                self.counts.publish(self.accumulator.totals());
                let _gone = reply.send(released);
            }
            Request::Copy(reply) => {
                let _gone = reply.send(self.accumulator.copy());
            }
            Request::StartCapture(wanted) => {
                let now = UnixNanos::now();
                self.read_what_waits();
                self.capture = Some(Box::new(Capture::new(self.group, wanted, now)));
            }
            Request::ReadWhatWaits => self.read_what_waits(),
            Request::EndCapture(reply) => {
                self.read_what_waits();
                let _gone = reply.send(self.capture.take().map(|it| *it));
            }
            Request::Adopt(socket, reply) => {
                let adopted = Source::new(socket).map(|source| self.source = Some(source));
                let _gone = reply.send(adopted);
            }
        }
    }

    fn read_burst(&mut self) -> io::Result<()> {
        let mut n_read = 0;
        let mut emptied = false;
        while n_read < BURST && !emptied {
            match self.receive()? {
                Received::Datagram(_) => n_read += 1,
                Received::Overrun => {}
                Received::Nothing => emptied = true,
            }
        }
        self.counts.publish(self.accumulator.totals());
        if let Some(source) = &mut self.source {
            source.pace.note_read(n_read, emptied);
        }
        Ok(())
    }

    /// Receives once, and counts what has arrived.
    fn receive(&mut self) -> io::Result<Received> {
        let Some(source) = &mut self.source else {
            return Ok(Received::Nothing);
        };
        let before = self.capture.as_ref().map(|_| UnixNanos::now());
        let received = source.socket.receive(&mut self.buffer)?;
        let now = UnixNanos::now();
        match received {
            Received::Datagram(length) => {
                let datagram = &self.buffer[..length];
                if !source.is_answer(datagram) {
                    self.accumulator.absorb(datagram, now);
                    if let Some(capture) = &mut self.capture {
                        capture.absorb(datagram, now);
                    }
                }
            }
            Received::Overrun => {
                self.accumulator.overrun(now);
                if let Some(capture) = &mut self.capture {
                    capture.overran = true;
                }
            }
            Received::Nothing => {
                self.accumulator.emptied(now);
                if let (Some(capture), Some(before)) = (&mut self.capture, before) {
                    capture.emptied(before);
                }
            }
        }
        Ok(received)
    }

    fn read_what_waits(&mut self) {
        if let Err(error) = self.drain() {
            let group = self.group.group;
            warn!("group {group}: cannot read what waits in the socket: {error}");
        }
    }

    fn execute(&mut self, command: Command) -> Closed {
        let group = self.group.group;
        self.read_what_waits();
        if matches!(command, Command::Finish(ShutdownMode::Unbind))
            && let Err(error) = self.unbind_and_drain()
        {
            warn!("group {group}: cannot unbind it cleanly: {error}");
        }
        if matches!(command, Command::Finish(_)) {
            // What arrives from now on belongs to the next process.
            self.source = None;
        }
        let open_loss = self.accumulator.open_loss();
        let slots = match command {
            Command::CloseBefore(first_open) => self.accumulator.close_before(first_open),
            Command::Copy => self.accumulator.copy(),
            Command::Restart(now) => self.accumulator.restart(now),
            Command::Finish(ShutdownMode::Unbind) => self.accumulator.finish(UnixNanos::now()),
            // If a loss is not known yet, the next process finds it.
            Command::Finish(ShutdownMode::KeepBound) => self.accumulator.restart(UnixNanos::now()),
        };
        self.counts.publish(self.accumulator.totals());
        Closed {
            slots,
            open_loss,
            renumbered: self.accumulator.take_renumbered(),
            position: self.accumulator.position(),
        }
    }

    fn unbind_and_drain(&mut self) -> io::Result<()> {
        let unbound = match &self.source {
            Some(source) => source.socket.unbind(),
            None => Ok(()),
        };
        // The kernel has flushed its batch into the socket and adds nothing more.
        self.drain().and(unbound)
    }

    /// Reads until the socket is empty, or as much as it can have held at the start: under a flood it is never empty.
    fn drain(&mut self) -> io::Result<()> {
        let source = self.source.as_ref();
        let mut left = source.map_or(0, |source| source.socket.receive_buffer());
        loop {
            match self.receive()? {
                Received::Datagram(length) => match left.checked_sub(length + SKB_OVERHEAD) {
                    Some(less) => left = less,
                    None => break,
                },
                Received::Overrun => {}
                Received::Nothing => break,
            }
        }
        self.counts.publish(self.accumulator.totals());
        Ok(())
    }
}
