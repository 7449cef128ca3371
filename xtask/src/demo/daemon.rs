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
use xtask::{netns::Namespace, process::Process};

use crate::{interrupt::Interrupt, programs::bound_command};

/// The line by which acctd says that it counts.
const READY: &str = "Started accounting";

/// How often a wait looks whether a signal has come.
const POLL: Duration = Duration::from_millis(20);

/// How long it may take to start, and to stop.
const LIMIT: Duration = Duration::from_secs(10);

/// Short intervals, so that some end while one watches; the groups as in the
/// rules.
const FLAGS: [&str; 5] = [
    "-interval=5s",
    "-ip4-dst-group=4",
    "-ip4-src-group=5",
    "-ip6-dst-group=6",
    "-ip6-src-group=7",
];

/// Both ends' addresses beyond host0 are accounted: who sends to host, and whom it sends to.
const CROSS_CHECK: &str = "-crosscheck=host0";

/// A running acctd.
pub(super) struct Daemon {
    process: Process,
    lines: Receiver<String>,
    log: Vec<String>,
    flags: Vec<String>,
}

impl Daemon {
    pub(super) fn start(
        host: &Namespace,
        acctd: &Path,
        log_directory: &Path,
        crosscheck: bool,
    ) -> Result<Self> {
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
        flags.extend(crosscheck.then(|| CROSS_CHECK.to_owned()));
        flags.push(format!("-log-directory={}", log_directory.display()));
        let mut command = bound_command(host, acctd);
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
    pub(super) fn shown(&self) -> String {
        format!("acctd {}", self.flags.join(" "))
    }

    pub(super) fn wait_until_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
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

    /// Asks acctd to end, and waits until it has.
    pub(super) fn stop(&mut self, interrupt: &Interrupt) -> Result<()> {
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
    pub(super) fn log(&mut self) -> &[String] {
        let ended = matches!(self.process.try_wait(), Ok(Some(_)));
        if ended {
            self.log.extend(self.lines.iter());
        } else {
            self.log.extend(self.lines.try_iter());
        }
        &self.log
    }
}
