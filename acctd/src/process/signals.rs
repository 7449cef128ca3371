//! The signals that end acctd, as one stream: the first asks it to finish, a second not to wait. By its
//! kind it says whether another acctd follows at once.
//! And those that must not end it.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use signal_hook::consts::{SIGUSR1, SIGXFSZ};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::model::shutdown_mode::ShutdownMode;

/// A file that would grow beyond the limit (`ulimit -f`, `LimitFSIZE=`) is a write that fails, tried
/// again like any other, and not the end of the process.
pub fn outlive_file_size_limit() -> io::Result<()> {
    // Any handler takes the place of the default; nobody looks at this flag.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// From the first moment on: whoever asks too early gets no answer, and kills nobody.
pub fn outlive_questions() -> io::Result<()> {
    signal_hook::flag::register(SIGUSR1, Arc::default())?;
    Ok(())
}

/// Signals to which there is an answer in the log.
#[derive(Debug)]
pub struct Questions {
    status: Signal,
    /// SIGHUP; from a terminal that is closed it is a stop.
    reload: Option<Signal>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// SIGUSR1: what acctd is doing.
    Status,
    /// SIGHUP: to read its flags again, which it does not.
    Reload,
}

impl Questions {
    /// Takes the signals over, on the runtime that this is called in.
    pub fn listen() -> io::Result<Self> {
        let reload = (!is_on_terminal()).then(|| signal(SignalKind::hangup()));
        Ok(Self {
            status: signal(SignalKind::user_defined1())?,
            reload: reload.transpose()?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Question {
        tokio::select! {
            _ = self.status.recv() => Question::Status,
            () = received(self.reload.as_mut()) => Question::Reload,
        }
    }
}

fn is_on_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Never, where nobody listens for it.
async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// SIGINT, SIGTERM, SIGQUIT and SIGUSR2, and SIGHUP from a terminal. From when it is made, none of them
/// kills the process.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hand_over: Signal,
    hang_up: Option<Signal>,
}

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The name that Go has for it.
    pub name: &'static str,
    /// What is to become of the groups.
    pub parting: ShutdownMode,
}

impl Shutdown {
    /// Takes the signals over, on the runtime that this is called in.
    pub fn listen() -> io::Result<Self> {
        let hang_up = is_on_terminal().then(|| signal(SignalKind::hangup()));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hand_over: signal(SignalKind::user_defined2())?,
            hang_up: hang_up.transpose()?,
        })
    }

    /// The next signal.
    pub async fn signal(&mut self) -> Received {
        let name = tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
            _ = self.quit.recv() => "quit",
            () = received(self.hang_up.as_mut()) => "hangup",
            _ = self.hand_over.recv() => return Received {
                name: "user defined signal 2",
                parting: ShutdownMode::KeepBound,
            },
        };
        Received {
            name,
            parting: ShutdownMode::Unbind,
        }
    }
}
