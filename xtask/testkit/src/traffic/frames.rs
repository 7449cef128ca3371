//! Frames made elsewhere, for instance by [`crate::craft`], sent as they are:
//! from a device, or as packets into a tun device.

use std::{
    fmt,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{ChildStdin, ChildStdout, Stdio},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{generator::send_all, tun};
use crate::{
    frame::Frame,
    netns::Namespace,
    packet_socket::PacketSocket,
    process::{self, Process},
};

/// Sends the frames in their order, all of them `rounds` times, from `device`
/// in `namespace`, and says how many that were. `generator` is a program that
/// takes the word `traffic` as its first argument.
pub fn send_frames(
    namespace: &Namespace,
    generator: &Path,
    device: &str,
    frames: &[impl AsRef<[u8]>],
    rounds: u64,
) -> Result<u64> {
    let args = FramesArgs {
        rounds,
        ..FramesArgs::new(Device::dev(device), frames)
    };
    args.run_in(namespace, generator)
}

/// As [`send_frames`], each frame once and through the device's egress hooks:
/// [`send_frames`] passes them by.
pub fn send_frames_with_hooks(
    namespace: &Namespace,
    generator: &Path,
    device: &str,
    frames: &[impl AsRef<[u8]>],
) -> Result<u64> {
    let args = FramesArgs {
        hooks: true,
        ..FramesArgs::new(Device::dev(device), frames)
    };
    args.run_in(namespace, generator)
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
    /// Makes the device `name` in `namespace`, for these packets. `generator`
    /// is a program that takes the word `traffic` as its first argument.
    pub fn new(
        namespace: &Namespace,
        generator: &Path,
        name: &str,
        packets: &[impl AsRef<[u8]>],
    ) -> Result<Self> {
        let args = FramesArgs::new(Device::tun(name), packets);
        let mut command = namespace.command(generator);
        command
            .arg("traffic")
            .args(args.to_args())
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
        let line = tun.next_line()?;
        ensure!(line == READY, "no tun device {name}, but: {line}");
        namespace.run(&["ip", "link", "set", name, "up"])?;
        Ok(tun)
    }

    /// Writes all the packets, each once, in their order, so that they arrive
    /// on the device. Says how many that were.
    pub fn write(&mut self) -> Result<u64> {
        // This fails only if the process has ended, and then it has said why.
        writeln!(self.input).ok();
        FramesSent::parse(&self.next_line()?)
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

/// What the process with a tun device prints when it has one.
const READY: &str = "ready";

/// What to send: the command line after the word `frames`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(super) struct FramesArgs {
    #[command(flatten)]
    device: Device,

    /// A frame, or for a tun device a packet; several are sent in turn
    #[arg(long = "frame", value_name = "HEX", required = true)]
    frames: Vec<Bytes>,

    /// How often to send them all
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u64,

    /// Do not pass the device's egress hooks by
    #[arg(long)]
    hooks: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[group(required = true, multiple = false)]
struct Device {
    /// Device to send from
    #[arg(long, value_name = "DEVICE")]
    dev: Option<String>,

    /// Make this tun device, print `ready`, and write the packets into it at each line of the
    /// input, until that ends
    #[arg(long, value_name = "DEVICE")]
    tun: Option<String>,
}

impl Device {
    fn dev(name: &str) -> Self {
        Self {
            dev: Some(name.to_owned()),
            tun: None,
        }
    }

    fn tun(name: &str) -> Self {
        Self {
            dev: None,
            tun: Some(name.to_owned()),
        }
    }
}

impl FramesArgs {
    fn new(device: Device, frames: &[impl AsRef<[u8]>]) -> Self {
        let frames = frames.iter().map(|frame| Bytes(frame.as_ref().to_vec()));
        Self {
            device,
            frames: frames.collect(),
            rounds: 1,
            hooks: false,
        }
    }

    /// The command line that parses to this, without the word `traffic`.
    fn to_args(&self) -> Vec<String> {
        let Self {
            device: Device { dev, tun },
            frames,
            rounds,
            hooks,
        } = self;
        let mut args = vec!["frames".to_owned(), format!("--rounds={rounds}")];
        args.extend(dev.iter().map(|name| format!("--dev={name}")));
        args.extend(tun.iter().map(|name| format!("--tun={name}")));
        args.extend(hooks.then(|| "--hooks".to_owned()));
        args.extend(frames.iter().map(|frame| format!("--frame={frame}")));
        args
    }

    fn run_in(&self, namespace: &Namespace, generator: &Path) -> Result<u64> {
        let mut command = namespace.command(generator);
        command.arg("traffic").args(self.to_args());
        FramesSent::parse(&process::output(&mut command)?)
    }

    pub(super) fn run_and_print(&self) -> Result<()> {
        match (&self.device.dev, &self.device.tun) {
            (Some(dev), _) => self.send_from(dev),
            (None, Some(tun)) => self.write_into(tun),
            (None, None) => bail!("no device to send from"),
        }
    }

    fn send_from(&self, dev: &str) -> Result<()> {
        let socket = if self.hooks {
            PacketSocket::open_with_hooks(dev)
        } else {
            PacketSocket::open(dev)
        };
        let socket = socket.with_context(|| format!("cannot send from device {dev}"))?;
        let frames: Vec<Frame> = self
            .frames
            .iter()
            .map(|Bytes(bytes)| Frame::verbatim(bytes.clone()))
            .collect();
        self.count_and_print(|place| {
            let frame = frames.get(place..=place).unwrap_or_default();
            send_all(&socket, frame, dev, format_args!("it"))
        })
    }

    fn write_into(&self, tun: &str) -> Result<()> {
        let mut device =
            tun::create(tun).with_context(|| format!("cannot make the tun device {tun}"))?;
        writeln!(io::stdout(), "{READY}")?;
        for line in io::stdin().lines() {
            line?;
            self.count_and_print(|place| {
                let packet = self.frames.get(place).map_or(&[][..], |Bytes(bytes)| bytes);
                device
                    .write_all(packet)
                    .with_context(|| format!("{tun} does not take it"))
            })?;
        }
        Ok(())
    }

    /// Has each frame sent in all the rounds, by its place among them.
    fn count_and_print(&self, mut send: impl FnMut(usize) -> Result<()>) -> Result<()> {
        let mut total = FramesSent { frames: 0 };
        for _ in 0..self.rounds {
            for place in 0..self.frames.len() {
                send(place).with_context(|| format!("frame {} was not sent", place + 1))?;
                total.frames += 1;
            }
        }
        let json = serde_json::to_string(&total)?;
        writeln!(io::stdout(), "{json}").context("cannot print what was sent")
    }
}

/// What was sent.
#[derive(Serialize, Deserialize)]
struct FramesSent {
    /// Frames the device has taken.
    frames: u64,
}

impl FramesSent {
    fn parse(json: &str) -> Result<u64> {
        let sent: Self = serde_json::from_str(json)
            .with_context(|| format!("what the sender of frames printed: {json:?}"))?;
        Ok(sent.frames)
    }
}

/// Bytes as hexadecimal digits on a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Bytes {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: Option<Vec<u32>> = text.chars().map(|c| c.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
        let digits = digits.ok_or("expected pairs of hexadecimal digits")?;
        let bytes = digits.as_chunks().0.iter();
        #[expect(clippy::cast_possible_truncation, reason = "two digits are a byte")]
        let bytes = bytes.map(|[high, low]| (high << 4 | low) as u8);
        Ok(Self(bytes.collect()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        request: crate::traffic::Request,
    }

    fn parse(args: &[&str]) -> Result<FramesArgs, clap::Error> {
        let program = ["traffic", "frames"];
        let cli = Cli::try_parse_from(program.iter().chain(args))?;
        let Some(crate::traffic::Other::Frames(frames)) = cli.request.other else {
            panic!("`frames` was not understood");
        };
        Ok(frames)
    }

    #[test]
    fn a_command_line_made_from_code_parses_to_the_same() {
        let frames = [vec![0, 0x0f, 0xf0, 0xff], vec![1; 1514]];
        for device in [Device::dev("eth0"), Device::tun("tun0")] {
            let args = FramesArgs {
                rounds: 3,
                hooks: true,
                ..FramesArgs::new(device, &frames)
            };
            let words = args.to_args();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(words[0], "frames");
            assert_eq!(parse(&words[1..]).unwrap(), args);
        }
    }

    #[test]
    fn one_device_and_a_frame_are_needed() {
        assert!(parse(&["--dev=eth0", "--frame=00"]).is_ok());
        for args in [
            &["--frame=00"][..],
            &["--dev=eth0"],
            &["--dev=eth0", "--tun=tun0", "--frame=00"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn bytes_are_pairs_of_hexadecimal_digits() {
        assert_eq!("".parse(), Ok(Bytes(vec![])));
        assert_eq!("00fF1a".parse(), Ok(Bytes(vec![0, 0xff, 0x1a])));
        for text in ["0", "0g", "+1", "é", "0x00", "00 00"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_generator_still_demands_its_own_options() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.request);
        assert!(parse("traffic").is_err());
        assert!(parse("traffic --dev eth0").is_err());
        let full =
            "traffic --dev eth0 --to-mac 02:00:00:00:00:01 --source 10.0.0.1 --dest 10.0.0.2";
        let request = parse(full).unwrap();
        assert!(request.traffic.is_some() && request.other.is_none());
        assert!(parse(&format!("{full} frames --dev eth0 --frame 00")).is_err());
    }
}
