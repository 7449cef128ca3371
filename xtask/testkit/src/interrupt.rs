//! Ctrl-C, Ctrl-\ and SIGTERM, as an error that unwinds through the drop guards.

use std::{
    error::Error,
    fmt,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

use crate::process::Process;

/// The error that stands for a signal to stop.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl Error for Interrupted {}

/// Whether a signal has asked this process to stop.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on a signal no longer ends this process; every wait must go
    /// through the methods below.
    pub fn catch() -> Result<Self> {
        let caught = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            flag::register(signal, Arc::clone(&caught))?;
        }
        Ok(Self(caught))
    }

    /// An error once a signal has come.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!(Interrupted);
        }
        Ok(())
    }

    /// The interruption instead of the error that came of it: a signal can also show as the failure of
    /// a command that it reached.
    pub fn instead_of_error<T>(&self, done: Result<T>) -> Result<T> {
        match done {
            Err(_) if self.check().is_err() => bail!(Interrupted),
            done => done,
        }
    }

    /// Sleeps, but not through a signal.
    pub fn rest(&self, time: Duration) -> Result<()> {
        const STEP: Duration = Duration::from_millis(50);
        let mut left = time;
        while !left.is_zero() {
            self.check()?;
            thread::sleep(left.min(STEP));
            left = left.saturating_sub(STEP);
        }
        Ok(())
    }

    /// Waits for the end of a process, but no longer than `limit`.
    pub fn wait(&self, process: &mut Process, limit: Duration) -> Result<ExitStatus> {
        process.wait_unless(limit, || self.check())
    }

    /// Waits for a process that is to succeed.
    pub fn wait_for_success(&self, process: &mut Process, limit: Duration) -> Result<()> {
        let status = self.wait(process, limit)?;
        if !status.success() {
            bail!("`{}` failed, {status}", process.command_line());
        }
        Ok(())
    }
}
