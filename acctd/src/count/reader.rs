//! One group's task: its socket, its buffer, its ledgers. Nothing here is shared with another
//! task but the published counters, and nothing waits but for packets and commands.

use std::io;
use std::sync::Arc;

use log::warn;
use tokio::sync::{mpsc, oneshot};

use crate::count::accumulator::Accumulator;
use crate::count::slots::Closed;
use crate::model::counts::SharedCounts;
use crate::model::group::NflogGroup;
use crate::model::interval::{PeriodIndex, UnixNanos};
use crate::model::shutdown_mode::ShutdownMode;
use crate::nflog::binding::{Answer, Change};
use crate::nflog::message;
use crate::nflog::pace::Pace;
use crate::nflog::socket::{MAX_DATAGRAM, NflogSocket, Received};

/// Datagrams read before the task looks for a command and lets others run.
const BURST: usize = 64;

/// What the kernel counts for a waiting datagram beyond its bytes, at the least: the descriptor
/// (`struct sk_buff`) and its tail (`struct skb_shared_info`).
const SKB_OVERHEAD: usize = 512;

/// What the engine asks of a reader. Each is answered with the ledgers that it closes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    /// Hand over all periods before this one, after reading what has waited in the socket: it
    /// may hold packets that were stamped before the boundary.
    CloseBefore(PeriodIndex),
    /// Give a copy of all that is open, and go on.
    Copy,
    /// Hand over everything and begin anew at this time: the clock was set back.
    Restart(UnixNanos),
    /// Hand over everything, what the kernel still holds included if the group is let go of.
    Finish(ShutdownMode),
}

/// What is asked of a reader, and where the answer goes.
pub(crate) enum Request {
    /// A command, answered with what it closes.
    Do(Command, oneshot::Sender<Closed>),
    /// Ask the kernel whether the group is still bound to the socket. The answer comes when the packets
    /// before it are read; there is none without a socket, nor in one that is full.
    Ask(oneshot::Sender<Answer>),
    /// Let go of the group, if it is bound to the socket after all, and of the socket, after reading
    /// what it still holds.
    Release(oneshot::Sender<io::Result<()>>),
    /// Go on with this socket.
    Adopt(NflogSocket, oneshot::Sender<io::Result<()>>),
}

/// The engine's end of a reader.
pub(crate) struct ReaderHandle {
    commands: mpsc::UnboundedSender<Request>,
    /// The reader's counters since the start.
    pub(crate) counts: Arc<SharedCounts>,
}

impl ReaderHandle {
    /// A handle, and where its requests arrive.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Request>) {
        let (commands, requests) = mpsc::unbounded_channel();
        let counts = Arc::default();
        (Self { commands, counts }, requests)
    }

    /// Sends a command; the answer comes when the reader has carried it out. An answer that
    /// never comes means that the reader has panicked.
    pub(crate) fn request(&self, command: Command) -> oneshot::Receiver<Closed> {
        self.send(|reply| Request::Do(command, reply))
    }

    /// Has the reader ask whether the group is still bound to its socket.
    pub(crate) fn ask(&self) -> oneshot::Receiver<Answer> {
        self.send(Request::Ask)
    }

    /// Has the reader let go of its socket, or go on with another one.
    pub(crate) fn change(&self, change: Change) -> oneshot::Receiver<io::Result<()>> {
        match change {
            Change::Release => self.send(Request::Release),
            Change::Adopt(socket) => self.send(|reply| Request::Adopt(socket, reply)),
        }
    }

    fn send<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        // A reader that is gone drops the sender of the reply, and the caller sees that.
        let _gone = self.commands.send(request(reply));
        answer
    }
}

/// Reads one group until it is told to finish.
pub(crate) struct Reader {
    group: NflogGroup,
    /// `None` while the group is not bound.
    source: Option<Source>,
    accumulator: Accumulator,
    buffer: Box<[u8]>,
    counts: Arc<SharedCounts>,
}

struct Source {
    socket: Arc<NflogSocket>,
    pace: Pace,
    /// It gives errors and nothing else.
    failure: Option<io::Error>,
    /// How often the kernel was asked whether the group is bound to it.
    n_asked: u32,
    /// Where the answer to the last time goes.
    asked: Option<oneshot::Sender<Answer>>,
}

impl Source {
    fn new(socket: NflogSocket) -> io::Result<Self> {
        let socket = Arc::new(socket);
        Ok(Self {
            pace: Pace::new(Arc::clone(&socket))?,
            socket,
            failure: None,
            n_asked: 0,
            asked: None,
        })
    }

    fn ask(&mut self, reply: oneshot::Sender<Answer>) {
        self.n_asked = self.n_asked.wrapping_add(1);
        let asked = match self.failure.take() {
            None => self.socket.ask_whether_bound(self.n_asked),
            Some(error) => Err(error),
        };
        match asked {
            Ok(()) => self.asked = Some(reply),
            Err(error) => {
                let _gone = reply.send(Answer::Lost(error));
            }
        }
    }

    /// Whether a datagram is no packets but an answer, which is passed on then.
    fn is_answer(&mut self, datagram: &[u8]) -> bool {
        let Some((number, result)) = message::reply(datagram) else {
            return false;
        };
        if number == self.n_asked
            && let Some(reply) = self.asked.take()
        {
            let _gone = reply.send(result.map_or_else(Answer::Lost, |()| Answer::Bound));
        }
        true
    }

    /// Never, if there is nothing to read.
    async fn time_to_read(source: Option<&Self>) -> io::Result<()> {
        match source {
            Some(source) if source.failure.is_none() => source.pace.time_to_read().await,
            _ => std::future::pending().await,
        }
    }
}

impl Reader {
    /// Starts the task, on the runtime that this is called in. Whoever asks next is told of a socket that
    /// fails; the reader goes on to answer requests, one of which may bring another socket.
    pub(crate) fn start(socket: NflogSocket, accumulator: Accumulator) -> io::Result<ReaderHandle> {
        let (handle, requests) = ReaderHandle::new();
        let reader = Self {
            group: socket.group(),
            source: Some(Source::new(socket)?),
            accumulator,
            buffer: vec![0; MAX_DATAGRAM].into_boxed_slice(),
            counts: Arc::clone(&handle.counts),
        };
        tokio::spawn(reader.run(requests));
        Ok(handle)
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(request) => self.answer(request),
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

    /// Whoever asks waits for the answer, unless it has panicked.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Do(command, reply) => {
                let _gone = reply.send(self.obey(command));
            }
            Request::Ask(reply) => {
                // Dropped otherwise, which says as much.
                if let Some(source) = &mut self.source {
                    source.ask(reply);
                }
            }
            Request::Release(reply) => {
                let released = self.unbind_and_drain();
                self.source = None;
                self.accumulator.forget_sequence(UnixNanos::now());
                self.counts.publish(self.accumulator.totals());
                let _gone = reply.send(released);
            }
            Request::Adopt(socket, reply) => {
                let adopted = Source::new(socket).map(|source| self.source = Some(source));
                let _gone = reply.send(adopted);
            }
        }
    }

    fn read_burst(&mut self) -> io::Result<()> {
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        let mut n_read = 0;
        let mut emptied = false;
        while n_read < BURST && !emptied {
            let received = source.socket.receive(&mut self.buffer)?;
            let now = UnixNanos::now();
            match received {
                Received::Datagram(length) => {
                    let datagram = &self.buffer[..length];
                    if !source.is_answer(datagram) {
                        self.accumulator.absorb(datagram, now);
                    }
                    n_read += 1;
                }
                Received::Overrun => self.accumulator.overrun(now),
                Received::Nothing => {
                    self.accumulator.emptied(now);
                    emptied = true;
                }
            }
        }
        self.counts.publish(self.accumulator.totals());
        source.pace.note_read(n_read, emptied);
        Ok(())
    }

    fn obey(&mut self, command: Command) -> Closed {
        let group = self.group;
        if let Err(error) = self.drain() {
            warn!("group {group}: cannot read what waits in the socket: {error}");
        }
        if matches!(command, Command::Finish(ShutdownMode::Unbind))
            && let Err(error) = self.unbind_and_drain()
        {
            warn!("group {group}: cannot let go of it cleanly: {error}");
        }
        if matches!(command, Command::Finish(_)) {
            // What comes from now on is for the next process to read.
            self.source = None;
        }
        let open_loss = self.accumulator.open_loss();
        let slots = match command {
            Command::CloseBefore(first_open) => self.accumulator.close_before(first_open),
            Command::Copy => self.accumulator.copy(),
            Command::Restart(now) => self.accumulator.restart(now),
            Command::Finish(ShutdownMode::Unbind) => self.accumulator.finish(UnixNanos::now()),
            // A loss that is not known yet shows to the next process.
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
        // The kernel has put its batch into the socket and adds nothing more to it.
        self.drain().and(unbound)
    }

    /// Reads until nothing waits, or as much as can have waited when this began: under a flood
    /// the socket is never empty.
    fn drain(&mut self) -> io::Result<()> {
        let Some(source) = &mut self.source else {
            return Ok(());
        };
        let mut left = source.socket.receive_buffer();
        loop {
            let received = source.socket.receive(&mut self.buffer)?;
            let now = UnixNanos::now();
            match received {
                Received::Datagram(length) => {
                    let datagram = &self.buffer[..length];
                    if !source.is_answer(datagram) {
                        self.accumulator.absorb(datagram, now);
                    }
                    match left.checked_sub(length + SKB_OVERHEAD) {
                        Some(less) => left = less,
                        None => break,
                    }
                }
                Received::Overrun => self.accumulator.overrun(now),
                Received::Nothing => {
                    self.accumulator.emptied(now);
                    break;
                }
            }
        }
        self.counts.publish(self.accumulator.totals());
        Ok(())
    }
}
