//! acctd as a child process, and what it writes to its log.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use crate::{interrupt::Interrupt, netns::Namespace, process::Process, programs::bound_command};

/// The line by which acctd says that it counts.
const READY: &str = "Started accounting";

/// How often a wait looks whether a signal has come.
const POLL: Duration = Duration::from_millis(20);

/// How long it may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Daemon {
    process: Process,
    lines: Receiver<String>,
    log: Vec<String>,
    flags: Vec<String>,
}

impl Daemon {
    /// Starts it in a namespace; its log goes through a pipe.
    pub fn start(namespace: &Namespace, acctd: &Path, flags: Vec<String>) -> Result<Self> {
        let mut command = bound_command(namespace, acctd);
        command
            .args(&flags)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let stderr = process.child().stderr.take().context("no pipe to acctd")?;
        let (sender, lines) = mpsc::channel();
        // Ends with acctd, whose end closes the pipe.
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            process,
            lines,
            log: Vec::new(),
            flags,
        })
    }

    /// The command line without the words that enter the namespace.
    pub fn shown(&self) -> String {
        format!("acctd {}", self.flags.join(" "))
    }

    pub fn wait_until_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            interrupt.check()?;
            match self.lines.recv_timeout(POLL) {
                Ok(line) => {
                    let ready = line.contains(READY);
                    self.log.push(line);
                    if ready {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < end => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("acctd has not said `{READY}` after {LIMIT:?}");
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = interrupt.wait(&mut self.process, LIMIT)?;
                    bail!("acctd ended before it was ready, {status}");
                }
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it at once.
    pub fn kill(&mut self, interrupt: &Interrupt) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        interrupt.wait(&mut self.process, LIMIT).map(drop)
    }

    /// Asks acctd to end, and waits until it has.
    pub fn stop(&mut self, interrupt: &Interrupt) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            bail!("acctd ended before it was asked to, {status}");
        }
        self.process.signal(Signal::TERM)?;
        let status = interrupt.wait(&mut self.process, LIMIT)?;
        if !status.success() {
            bail!("acctd ended with {status}");
        }
        Ok(())
    }

    /// What acctd has written to its log so far; all of it, once it has ended.
    pub fn log(&mut self) -> &[String] {
        let ended = matches!(self.process.try_wait(), Ok(Some(_)));
        if ended {
            self.log.extend(self.lines.iter());
        } else {
            self.log.extend(self.lines.try_iter());
        }
        &self.log
    }
}
