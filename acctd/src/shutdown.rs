//! The signals that end acctd, as one stream: the first asks it to finish, a second not to wait. By its
//! kind it says whether another acctd follows at once.
//! And one that must not end it.

use std::io;
use std::sync::Arc;

use signal_hook::consts::SIGXFSZ;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::handover::Parting;

/// A file that would grow beyond the limit (`ulimit -f`, `LimitFSIZE=`) is a write that fails, tried
/// again like any other, and not the end of the process.
pub fn outlive_file_size_limit() -> io::Result<()> {
    // Any handler takes the place of the default; nobody looks at this flag.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    Ok(())
}

/// SIGINT, SIGTERM, SIGQUIT and SIGUSR2. From when it is made, none of them kills the process.
#[derive(Debug)]
pub struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hand_over: Signal,
}

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The name that Go has for it.
    pub name: &'static str,
    /// What is to become of the groups.
    pub parting: Parting,
}

impl Shutdown {
    /// Takes the signals over, on the runtime that this is called in.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hand_over: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next signal.
    pub async fn signal(&mut self) -> Received {
        let name = tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => "terminated",
            _ = self.quit.recv() => "quit",
            _ = self.hand_over.recv() => return Received {
                name: "user defined signal 2",
                parting: Parting::HandOver,
            },
        };
        Received {
            name,
            parting: Parting::LetGo,
        }
    }
}
