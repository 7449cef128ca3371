//! The two ends of the demo's TCP and UDP traffic, through ordinary sockets.

use std::{
    io::{self, ErrorKind, Write as _},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

const TCP_PORT: u16 = 7000;
const UDP_PORT: u16 = 7001;

/// How much goes each way over one TCP connection.
const STREAM: usize = 100_000;
/// How many datagrams are echoed in one round, and of which payload length.
const DATAGRAMS: usize = 20;
const DATAGRAM: usize = 400;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause between rounds.
const PAUSE: Duration = Duration::from_millis(500);

/// What the server prints when it can be talked to.
pub(crate) const READY: &str = "ready";

/// One end of the demo's traffic.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Peer {
    /// Answer until killed
    Serve,
    /// Talk to a server in rounds
    Talk {
        /// Address of the server; several are talked to in turn
        #[arg(long, required = true)]
        to: Vec<IpAddr>,
        /// For how long
        #[arg(long)]
        seconds: u64,
    },
}

impl Peer {
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Self::Serve => serve(),
            Self::Talk { to, seconds } => talk(to, Duration::from_secs(*seconds)),
        }
    }
}

/// Answers on all addresses, IPv4 and IPv6.
fn serve() -> Result<()> {
    let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
    let listener = TcpListener::bind((any, TCP_PORT)).context("cannot listen on TCP")?;
    let socket = UdpSocket::bind((any, UDP_PORT)).context("cannot listen on UDP")?;
    writeln!(io::stdout(), "{READY}")?;
    thread::spawn(move || echo_datagrams(&socket));
    for stream in listener.incoming() {
        // The other end reports what goes wrong with its connection.
        exchange(stream?).ok();
    }
    Ok(())
}

/// Sends every datagram back. An error is about one datagram, such as an
/// answer that its sender no longer waits for.
fn echo_datagrams(socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let datagram = buffer.get(..length).unwrap_or_default();
            socket.send_to(datagram, from).ok();
        }
    }
}

fn talk(to: &[IpAddr], duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        for &address in to {
            let server = SocketAddr::from((address, TCP_PORT));
            let stream = TcpStream::connect_timeout(&server, PATIENCE)
                .with_context(|| format!("cannot connect to {server}"))?;
            exchange(stream).with_context(|| format!("the connection to {server}"))?;
            echo(SocketAddr::from((address, UDP_PORT)))?;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Sends a stream's worth of bytes and receives as many, both at once. Both
/// ends of a connection do the same.
fn exchange(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        sender.write_all(&vec![b'a'; STREAM])?;
        sender.shutdown(Shutdown::Write)
    });
    let received = io::copy(&mut stream, &mut io::sink())?;
    sending
        .join()
        .ok()
        .context("the sending thread panicked")??;
    ensure!(received == STREAM as u64, "{received} bytes arrived");
    Ok(())
}

/// Sends datagrams one by one and waits for each to come back.
fn echo(server: SocketAddr) -> Result<()> {
    let any: IpAddr = if server.is_ipv4() {
        [0; 4].into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    let mut answer = [0; DATAGRAM];
    for _ in 0..DATAGRAMS {
        socket.send(&[b'u'; DATAGRAM])?;
        match socket.recv(&mut answer) {
            // A datagram may be lost; the demo counts packets, not answers.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            received => ensure!(received? == DATAGRAM, "{server} answered something else"),
        }
    }
    Ok(())
}
