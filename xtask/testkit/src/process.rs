//! Child processes that do not outlive their owner, and errors that name the
//! command line that failed.

use std::{
    io::Read as _,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(5);

/// A running child process, killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command_line: String,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let command_line = command_line(command);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start `{command_line}`"))?;
        Ok(Self {
            child,
            command_line,
        })
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn command_line(&self) -> &str {
        &self.command_line
    }

    /// Sends a signal. A process that has ended but is not yet reaped takes
    /// it silently.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot send {signal:?} to `{}`", self.command_line))
    }

    /// The exit status, if the process has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for `{}`", self.command_line))
    }

    /// Waits for the end of the process and returns what it printed, like
    /// [`output`]. Its standard output and error must be pipes.
    pub fn output(mut self) -> Result<String> {
        let mut stdout = String::new();
        let mut stderr = String::new();
        let pipes = (self.child.stdout.take(), self.child.stderr.take());
        thread::scope(|scope| {
            // Both are read at once: a child blocks on a pipe that nobody reads.
            let reader = scope.spawn(|| pipes.1.map(|mut pipe| pipe.read_to_string(&mut stderr)));
            pipes
                .0
                .map(|mut pipe| pipe.read_to_string(&mut stdout))
                .transpose()?;
            reader.join().ok().flatten().transpose()
        })
        .with_context(|| format!("the output of `{}`", self.command_line))?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!(
                "`{}` failed, {status}: {}",
                self.command_line,
                stderr.trim()
            );
        }
        Ok(stdout)
    }

    /// Waits for the end of the process, but no longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.wait_unless(limit, || Ok(()))
    }

    /// As [`Process::wait`], but gives up as soon as `check` fails.
    pub fn wait_unless(
        &mut self,
        limit: Duration,
        check: impl Fn() -> Result<()>,
    ) -> Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            check()?;
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                bail!("`{}` still runs after {limit:?}", self.command_line);
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for a process that is already gone.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `command` to completion without input and returns what it printed.
/// The error holds the command line and its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let line = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed, {}: {}", output.status, stderr.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("the output of `{line}`"))
}

/// Runs `command` to completion without input; its output passes.
pub fn run(command: &mut Command) -> Result<()> {
    let line = command_line(command);
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start `{line}`"))?;
    if !status.success() {
        bail!("`{line}` failed, {status}");
    }
    Ok(())
}

/// The command line as one would type it.
pub fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        line.push(' ');
        line.push_str(&arg.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_names_the_command_and_its_complaint() {
        let error = output(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("sh -c"), "{text}");
        assert!(text.contains("exit status: 3: no"), "{text}");
    }

    #[test]
    fn dropping_a_process_ends_it() {
        let process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
        let pid = Pid::from_raw(process.pid().try_into().unwrap()).unwrap();
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn waiting_has_a_limit() {
        let mut process = Process::spawn(Command::new("sleep").arg("600")).unwrap();
        let error = process.wait(Duration::from_millis(20)).unwrap_err();
        assert!(error.to_string().contains("still runs"));
    }
}
