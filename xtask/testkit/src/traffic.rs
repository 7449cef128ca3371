//! The traffic generator: so many UDP packets, from and to so many addresses,
//! at this rate, and a report of exactly what was sent.
//!
//! It is a process of its own, because a network namespace is entered by
//! processes: `cargo xtask traffic …`, or any program whose `main` hands the
//! word `traffic` and what follows it to [`main_from`]. [`send`] and [`spawn`]
//! start it in a [`Namespace`]. It also sends single frames made elsewhere, see
//! [`send_frames`] and [`Tun`].

use std::{
    ffi::OsString,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use serde::{Deserialize, Serialize};

use crate::{
    netns::Namespace,
    process::{self, Process},
};

mod args;
mod generator;
mod pace;
mod plan;

mod frames;
#[expect(unsafe_code, reason = "a tun device is made by an ioctl")]
mod tun;

pub use args::{Sizes, TrafficArgs};
pub use frames::{Tun, send_frames, send_frames_with_hooks};
pub use generator::run;

use frames::FramesArgs;

/// What was sent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Packets the device has taken.
    pub packets: u64,
    /// The sum of the lengths in their IP headers.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// With `--clock-sources` or `--clock-dests`: packets whose address may
    /// name the second before the one in which they were sent.
    pub straddled: u64,
}

/// Runs the generator from a command line, whose first word is `traffic` or
/// whatever else took it here, and prints what was sent as one line of JSON.
pub fn main_from(args: impl Iterator<Item = OsString>) -> Result<()> {
    /// Sends UDP packets as raw Ethernet frames and prints what was sent.
    #[derive(Parser)]
    #[command(name = "traffic")]
    struct Cli {
        #[command(flatten)]
        request: Request,
    }

    match Cli::try_parse_from(args) {
        Ok(cli) => cli.request.run_and_print(),
        Err(error) => error.exit(),
    }
}

/// What may follow the word `traffic`: the generator's options, or `frames`
/// and its own.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Request {
    #[command(flatten)]
    traffic: Option<TrafficArgs>,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Send given frames as they are, or write given packets into a tun device
    #[command(hide = true)]
    Frames(FramesArgs),
}

impl Request {
    /// Does in this process what is asked for, and prints what was sent as
    /// one line of JSON.
    pub fn run_and_print(&self) -> Result<()> {
        match (&self.other, &self.traffic) {
            (Some(Other::Frames(frames)), _) => frames.run_and_print(),
            (None, Some(traffic)) => run_and_print(traffic),
            (None, None) => bail!("nothing to send"),
        }
    }
}

/// Runs the generator in this process and prints what was sent as one line of
/// JSON.
pub fn run_and_print(args: &TrafficArgs) -> Result<()> {
    let sent = serde_json::to_string(&run(args)?)?;
    writeln!(std::io::stdout(), "{sent}").context("cannot print what was sent")
}

/// Starts the generator in `namespace`. `generator` is a program that takes
/// the word `traffic` as its first argument.
pub fn spawn(namespace: &Namespace, generator: &Path, args: &TrafficArgs) -> Result<Traffic> {
    let mut command = command(namespace, generator, args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(Traffic(Process::spawn(&mut command)?))
}

/// Runs the generator in `namespace` to its end.
pub fn send(namespace: &Namespace, generator: &Path, args: &TrafficArgs) -> Result<Sent> {
    parse(&process::output(&mut command(namespace, generator, args))?)
}

/// A generator at work, stopped when dropped.
#[derive(Debug)]
pub struct Traffic(Process);

impl Traffic {
    /// Waits for its end and returns what it sent.
    pub fn finish(self) -> Result<Sent> {
        parse(&self.0.output()?)
    }

    /// The process, to wait for with a limit, or to signal.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}

fn command(namespace: &Namespace, generator: &Path, args: &TrafficArgs) -> Command {
    let mut command = namespace.command(generator);
    command.arg("traffic").args(args.to_args());
    command
}

fn parse(json: &str) -> Result<Sent> {
    if json.is_empty() {
        bail!("the generator printed nothing: does that program know the word `traffic`?");
    }
    serde_json::from_str(json).with_context(|| format!("what the generator printed: {json}"))
}
