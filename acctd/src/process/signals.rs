//! The signals that end acctd, those that it answers in the log, and those that must not end it.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use signal_hook::consts::{SIGUSR1, SIGXFSZ};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::model::shutdown_mode::ShutdownMode;

/// If a file would grow beyond the limit (`ulimit -f`, `LimitFSIZE=`), the write fails and is retried like any
/// other. Without this, SIGXFSZ would end the process.
pub fn ignore_sigxfsz() -> io::Result<()> {
    // Any handler replaces the default action. Nothing reads this flag.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// Until [`Requests::listen`], SIGUSR1 has no answer, but does not end the process either.
pub fn ignore_sigusr1() -> io::Result<()> {
    signal_hook::flag::register(SIGUSR1, Arc::default())?;
    Ok(())
}

/// Signals that acctd answers in the log.
#[derive(Debug)]
pub struct Requests {
    status: Signal,
    /// SIGHUP; `None` if acctd has a terminal, because then it means that the terminal was closed.
    reload: Option<Signal>,
}

/// What a signal requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// SIGUSR1: log what acctd is doing.
    Status,
    /// SIGHUP: read the flags again. acctd does not do it.
    Reload,
}

impl Requests {
    /// Must be called in a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let reload = (!is_on_terminal()).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            status: signal(SignalKind::user_defined1())?,
            reload: reload.transpose()?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Request {
        tokio::select! {
            _ = self.status.recv() => Request::Status,
            () = received(self.reload.as_mut()) => Request::Reload,
        }
    }
}

fn is_on_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Never returns if there is no signal to wait for.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that end acctd: SIGINT, SIGTERM, SIGQUIT and SIGUSR2, and SIGHUP from a terminal. The first one
/// makes acctd finish; after the second one it waits less for the disk. While this exists, none of them kills
/// the process.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    restart: Signal,
    hang_up: Option<Signal>,
}

/// A signal that ends acctd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Go's name of the signal.
    pub name: &'static str,
    /// SIGUSR2 announces that another acctd follows at once.
    pub mode: ShutdownMode,
}

impl Shutdown {
    /// Must be called in a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let hang_up = is_on_terminal().then(|| signal(SignalKind::hangup()));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            restart: signal(SignalKind::user_defined2())?,
            hang_up: hang_up.transpose()?,
        })
    }

    /// Waits for the next one.
    pub async fn signal(&mut self) -> Received {
        let name = tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
            _ = self.quit.recv() => "quit",
            () = received(self.hang_up.as_mut()) => "hangup",
            _ = self.restart.recv() => return Received {
                name: "user defined signal 2",
                mode: ShutdownMode::KeepBound,
            },
        };
        Received {
            name,
            mode: ShutdownMode::Unbind,
        }
    }
}
