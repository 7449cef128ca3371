//! The traffic generator: so many UDP packets, from and to so many addresses,
//! at this rate, and a report of exactly what was sent.
//!
//! It is a process of its own, because a network namespace is entered by
//! processes: any program whose `main` begins with [`run_if_asked`]. What it is
//! to send comes as JSON on its standard input. [`send`] and [`spawn`] start it
//! in a [`Namespace`]. It also sends single frames made elsewhere, see
//! [`send_frames`] and [`Tun`].

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    path::Path,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{interrupt::Interrupt, netns::Namespace, print, process::Process};

mod args;
mod generator;
mod given;
mod pace;
mod plan;
mod sending;
#[expect(unsafe_code, reason = "a tun device is made by an ioctl")]
mod tun;

pub use args::{Sent, Sizes, TrafficArgs};

/// The word that makes a program the generator.
const WORD: &str = "traffic";

/// What the generator is asked to do, in the first line of its input.
#[derive(Serialize, Deserialize)]
enum Job {
    Generate(TrafficArgs),
    Send {
        dev: String,
        frames: Vec<Vec<u8>>,
        rounds: u64,
        hooks: bool,
    },
    /// Further lines of the input say when.
    WriteInto {
        tun: String,
        is_vnet: bool,
        packets: Vec<Vec<u8>>,
    },
}

/// Does what this process was started for, if that is to be the generator.
pub fn run_if_asked() -> Option<Result<()>> {
    (std::env::args_os().nth(1)? == WORD).then(run)
}

fn run() -> Result<()> {
    let mut input = io::stdin().lines();
    let job = input.next().context("no job on standard input")??;
    match serde_json::from_str(&job)? {
        Job::Generate(args) => print::line(serde_json::to_string(&generator::run(&args)?)?),
        Job::Send {
            dev,
            frames,
            rounds,
            hooks,
        } => print::line(given::send(&dev, &frames, rounds, hooks)?),
        Job::WriteInto {
            tun,
            is_vnet,
            packets,
        } => given::write(&tun, is_vnet, &packets, input),
    }
}

impl TrafficArgs {
    /// Makes a command that starts a generator, but for its arguments, one that sends this.
    pub fn ask(&self, generator: &mut Command) -> Result<()> {
        ask(generator, &Job::Generate(self.clone()))
    }
}

fn ask(generator: &mut Command, job: &Job) -> Result<()> {
    let mut input = tempfile::tempfile().context("cannot make a temporary file")?;
    serde_json::to_writer(&mut input, job)?;
    input.rewind()?;
    generator.arg(WORD).stdin(input);
    Ok(())
}

/// Starts the generator in `namespace`. `generator` is a program that calls [`run_if_asked`].
pub fn spawn(namespace: &Namespace, generator: &Path, args: &TrafficArgs) -> Result<Traffic> {
    let mut command = namespace.command(generator);
    args.ask(&mut command)?;
    Traffic::spawn(&mut command)
}

/// Runs the generator in `namespace` to its end.
pub fn send(namespace: &Namespace, generator: &Path, args: &TrafficArgs) -> Result<Sent> {
    spawn(namespace, generator, args)?.finish()
}

/// A generator at work, stopped when dropped.
#[derive(Debug)]
pub struct Traffic(Process);

impl Traffic {
    /// Starts a command that was made by [`TrafficArgs::ask`].
    pub fn spawn(generator: &mut Command) -> Result<Self> {
        generator.stdout(Stdio::piped()).stderr(Stdio::piped());
        Process::spawn(generator).map(Self)
    }

    /// Waits for its end, but no longer than `limit`, and returns what it sent.
    pub fn finish_within(mut self, limit: Duration, interrupt: &Interrupt) -> Result<Sent> {
        interrupt.wait(&mut self.0, limit)?;
        self.finish()
    }

    /// Waits for its end and returns what it sent.
    pub fn finish(self) -> Result<Sent> {
        parse(&self.0.output()?)
    }

    /// The process, to wait for with a limit, or to signal.
    pub fn process(&mut self) -> &mut Process {
        &mut self.0
    }
}

fn parse<T: DeserializeOwned>(printed: &str) -> Result<T> {
    serde_json::from_str(printed)
        .with_context(|| format!("what the generator printed: {printed:?}"))
}

/// Sends the frames in their order, all of them `rounds` times, from `device`
/// in `namespace`, and says how many that were. They pass by the device's egress hooks.
pub fn send_frames(
    namespace: &Namespace,
    generator: &Path,
    device: &str,
    frames: &[impl AsRef<[u8]>],
    rounds: u64,
) -> Result<u64> {
    let job = Job::Send {
        dev: device.to_owned(),
        frames: bytes(frames),
        rounds,
        hooks: false,
    };
    run_in(namespace, generator, &job)
}

/// As [`send_frames`], each frame once and through the device's egress hooks.
pub fn send_frames_with_hooks(
    namespace: &Namespace,
    generator: &Path,
    device: &str,
    frames: &[impl AsRef<[u8]>],
) -> Result<u64> {
    let job = Job::Send {
        dev: device.to_owned(),
        frames: bytes(frames),
        rounds: 1,
        hooks: true,
    };
    run_in(namespace, generator, &job)
}

fn bytes(frames: &[impl AsRef<[u8]>]) -> Vec<Vec<u8>> {
    frames.iter().map(|it| it.as_ref().to_vec()).collect()
}

fn run_in(namespace: &Namespace, generator: &Path, job: &Job) -> Result<u64> {
    let mut command = namespace.command(generator);
    ask(&mut command, job)?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    parse(&Process::spawn(&mut command)?.output()?)
}

/// A tun device: up, without addresses, and gone when dropped.
#[derive(Debug)]
pub struct Tun {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Holds the device.
    process: Process,
}

impl Tun {
    /// Makes the device `name` in `namespace`, for these packets.
    pub fn new(
        namespace: &Namespace,
        generator: &Path,
        name: &str,
        packets: &[impl AsRef<[u8]>],
    ) -> Result<Self> {
        Self::open(namespace, generator, name, false, packets)
    }

    /// The same for packets with a `virtio_net_hdr` in front of each, which may be of several segments.
    pub fn of_a_virtual_machine(
        namespace: &Namespace,
        generator: &Path,
        name: &str,
        packets: &[impl AsRef<[u8]>],
    ) -> Result<Self> {
        Self::open(namespace, generator, name, true, packets)
    }

    fn open(
        namespace: &Namespace,
        generator: &Path,
        name: &str,
        is_vnet: bool,
        packets: &[impl AsRef<[u8]>],
    ) -> Result<Self> {
        let job = Job::WriteInto {
            tun: name.to_owned(),
            is_vnet,
            packets: bytes(packets),
        };
        let mut command = namespace.command(generator);
        command
            .arg(WORD)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let input = process.child().stdin.take().context("no input")?;
        let output = process.child().stdout.take().context("no output")?;
        let mut tun = Self {
            input,
            output: BufReader::new(output),
            process,
        };
        writeln!(tun.input, "{}", serde_json::to_string(&job)?)?;
        let line = tun.next_line()?;
        ensure!(line == given::READY, "no tun device {name}, but: {line}");
        namespace.run(&["ip", "link", "set", name, "up"])?;
        Ok(tun)
    }

    /// Writes all the packets, each once, in their order, so that they arrive
    /// on the device. Says how many that were.
    pub fn write(&mut self) -> Result<u64> {
        // This fails only if the process has ended, and then it has said why.
        writeln!(self.input).ok();
        parse(&self.next_line()?)
    }

    /// What the process prints next. If it has ended instead, the error is
    /// what it complained of.
    fn next_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            let mut complaint = String::new();
            if let Some(stderr) = &mut self.process.child().stderr {
                stderr.read_to_string(&mut complaint)?;
            }
            bail!("{}", complaint.trim());
        }
        Ok(line.trim_end().to_owned())
    }
}
