//! A network that fails: connections that are cut in the middle, and answers that are lost after they took effect.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

use crate::world::Random;

/// Passes connections on to a server, to its end with the process.
pub(super) struct Proxy {
    pub(super) port: u16,
    counts: Arc<[AtomicU64; 2]>,
}

/// What becomes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    /// After so many bytes to the server.
    Cut(u64),
    /// The server has the requests; its answers after so many bytes are lost.
    Lost(u64),
}

impl Proxy {
    pub(super) fn start(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let counts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            let random = &mut Random(99);
            for client in listener.incoming().flatten() {
                let fate = match random.below(4) {
                    0 => Fate::Cut(random.below(10_000)),
                    1 => Fate::Lost(random.below(2_000)),
                    _ => Fate::Passed,
                };
                let counts = Arc::clone(&shared);
                // An error is the end of the connection.
                thread::spawn(move || pass(&client, server, fate, &counts).ok());
            }
        });
        Ok(Self { port, counts })
    }

    pub(super) fn n_cut(&self) -> u64 {
        self.counts[0].load(Ordering::Relaxed)
    }

    pub(super) fn n_lost(&self) -> u64 {
        self.counts[1].load(Ordering::Relaxed)
    }
}

fn pass(client: &TcpStream, server: u16, fate: Fate, counts: &[AtomicU64; 2]) -> io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server))?;
    let (limit_there, limit_back) = match fate {
        Fate::Passed => (u64::MAX, u64::MAX),
        Fate::Cut(n) => (n, u64::MAX),
        Fate::Lost(n) => (u64::MAX, n),
    };
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let there = thread::spawn(move || copy(&mut from, &mut to, limit_there));
    let (mut from, mut to) = (server.try_clone()?, client.try_clone()?);
    if copy(&mut from, &mut to, limit_back) {
        counts[1].fetch_add(1, Ordering::Relaxed);
    }
    client.shutdown(Shutdown::Both).ok();
    server.shutdown(Shutdown::Both).ok();
    if there.join().unwrap_or(false) {
        counts[0].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether the limit was reached.
fn copy(from: &mut TcpStream, to: &mut TcpStream, limit: u64) -> bool {
    let mut left = limit;
    let mut buffer = [0; 16_384];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let n_passed = usize::try_from(left).unwrap_or(usize::MAX).min(n);
        if to.write_all(&buffer[..n_passed]).is_err() {
            break;
        }
        left -= n_passed as u64;
        if n_passed < n {
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
            return true;
        }
    }
    to.shutdown(Shutdown::Write).ok();
    false
}

/// A server that gives this answer to any request.
pub(super) fn answer_always(text: &'static str) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // An error is the end of the connection.
            answer(&client, text).ok();
        }
    });
    Ok(port)
}

fn answer(mut client: &TcpStream, text: &str) -> io::Result<()> {
    write!(
        client,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    client.shutdown(Shutdown::Write)?;
    // What it has not read of the request would reset the connection, and take the answer with it.
    io::copy(&mut client, &mut io::sink())?;
    Ok(())
}

/// A server that closes each connection at once.
pub(super) fn close_always() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(port)
}
