//! Two namespaces joined by a veth pair, acctd in one of them, and what it left behind.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;
use testkit::netns::{Namespace, Privilege};
use testkit::nft::{self, Count};
use testkit::process::{self, Process};
use testkit::traffic::{self, Sent, TrafficArgs};
use testkit::veth::Veth;

use crate::kernel;
use crate::waiting::PATIENCE;

/// Packets are logged before routing and dropped, so that nothing answers them.
pub(crate) const LOG_AND_DROP: &str = "
    table inet rig {
        counter v4 {}
        counter v6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv6 counter name v6 log group 7 snaplen 40 queue-threshold 50
            drop
        }
    }";

/// The same for IPv4, but what is no full batch waits in the kernel for the flush timeout.
pub(crate) const LATE_LOG_AND_DROP: &str = "
    table inet rig {
        counter v4 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 5000
            drop
        }
    }";

/// The router, where acctd and the rules are, and the wire's other end, where traffic comes from.
pub(crate) struct Rig {
    pub(crate) router: Namespace,
    pub(crate) wire: Namespace,
    pub(crate) veth: Veth,
    directory: TempDir,
    acctd: PathBuf,
    generator: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Result<Self> {
        Self::with_privilege(Privilege::of_this_process())
    }

    pub(crate) fn with_privilege(privilege: Privilege) -> Result<Self> {
        let router = Namespace::new(privilege)?;
        let wire = router.peer()?;
        let veth = Veth::new(&router, "lan0", &wire, "wire0")?;
        let directory = tempfile::tempdir()?;
        let acctd = PathBuf::from(env!("CARGO_BIN_EXE_acctd"));
        let generator = std::env::current_exe()?;
        let mut rig = Self {
            router,
            wire,
            veth,
            directory,
            acctd,
            generator,
        };
        if privilege != Privilege::of_this_process() {
            rig.let_everyone_in()?;
        }
        Ok(rig)
    }

    /// Another user can neither run what is built in a private directory nor write to ours.
    fn let_everyone_in(&mut self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = self.directory.path();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777))?;
        for program in [&mut self.acctd, &mut self.generator] {
            let copy = directory.join(program.file_name().context("a program's name")?);
            copy_program(program, &copy)?;
            *program = copy;
        }
        Ok(())
    }

    /// Where acctd writes; made by acctd.
    pub(crate) fn log_directory(&self) -> PathBuf {
        self.directory.path().join("accounting")
    }

    /// A place for other files of a test.
    pub(crate) fn scratch(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn rules(&self, ruleset: &str) -> Result<()> {
        nft::load(&self.router, ruleset)
    }

    pub(crate) fn counter(&self, name: &str) -> Result<Count> {
        let counters = nft::counters(&self.router)?;
        counters
            .get(name)
            .copied()
            .with_context(|| format!("no counter {name}"))
    }

    /// Starts acctd and waits until it counts.
    pub(crate) fn acctd(&self, args: &[&str]) -> Result<Acctd> {
        let acctd = self.acctd_unready(args)?;
        acctd.wait_for_line("Started accounting")?;
        Ok(acctd)
    }

    pub(crate) fn acctd_unready(&self, args: &[&str]) -> Result<Acctd> {
        let mut command = self.acctd_command();
        command.args(args);
        Acctd::spawn(&mut command)
    }

    /// acctd in the router, writing to the log directory. Unless a flag says otherwise, no interval ends on the way:
    /// one of 1h would, in a test that runs at a full hour.
    pub(crate) fn acctd_command(&self) -> std::process::Command {
        let mut command = self.router.command(&self.acctd);
        command.env("ACCTD_INTERVAL", "36500d");
        command.arg("-log-directory").arg(self.log_directory());
        command
    }

    /// A command in the router, with as much locked memory as the package's unit allows. Newer kernels need none, and
    /// not every root may have it.
    pub(crate) fn command_of_unit(&self, program: &str) -> std::process::Command {
        if kernel::is_before(kernel::WITHOUT_MEMLOCK).is_err() {
            return self.router.command(program);
        }
        let mut command = self.router.command("prlimit");
        command.args(["--memlock=unlimited:unlimited", program]);
        command
    }

    /// acctd as root who can have these capabilities alone.
    pub(crate) fn acctd_limited(&self, capabilities: &str) -> std::process::Command {
        let mut command = self.command_of_unit("setpriv");
        command.arg(format!("--bounding-set=-all,{capabilities}"));
        command.arg("--inh-caps=-all").arg(&self.acctd);
        command.arg("-log-directory").arg(self.log_directory());
        command
    }

    /// This program, to be started in a namespace.
    pub(crate) fn generator(&self) -> &Path {
        &self.generator
    }

    pub(crate) fn acctd_path(&self) -> &Path {
        &self.acctd
    }

    /// Traffic from the wire to the router, `source` to `dest` (CIDR).
    pub(crate) fn traffic(&self, source: &str, dest: &str) -> Result<TrafficArgs> {
        Ok(TrafficArgs::new(
            &self.veth.far,
            self.veth.near_mac,
            source.parse()?,
            dest.parse()?,
        ))
    }

    /// The generator's full speed, for root. Anybody else has the receive buffer that
    /// `net.core.rmem_max` allows, 208 KiB on many machines, which holds some milliseconds of that.
    pub(crate) fn fastest_rate() -> u32 {
        if Privilege::of_this_process() == Privilege::Root {
            0
        } else {
            100_000
        }
    }

    pub(crate) fn send(&self, traffic: &TrafficArgs) -> Result<Sent> {
        traffic::send(&self.wire, &self.generator, traffic)
    }

    pub(crate) fn send_in_background(&self, traffic: &TrafficArgs) -> Result<traffic::Traffic> {
        traffic::spawn(&self.wire, &self.generator, traffic)
    }

    /// Frames from the wire to the router, each once.
    pub(crate) fn send_frames(&self, frames: &[impl AsRef<[u8]>]) -> Result<u64> {
        traffic::send_frames(&self.wire, &self.generator, &self.veth.far, frames, 1)
    }

    pub(crate) fn files(&self) -> Result<Vec<CsvFile>> {
        read_files(&self.log_directory())
    }

    /// The lines of intervals.jsonl.
    pub(crate) fn summaries(&self) -> Result<Vec<serde_json::Value>> {
        let text = fs::read_to_string(self.log_directory().join("intervals.jsonl"))?;
        text.lines()
            .map(|line| serde_json::from_str(line).context("a line of intervals.jsonl"))
            .collect()
    }

    /// The sum of a number over all lines of intervals.jsonl.
    pub(crate) fn summed(&self, field: &str) -> Result<u64> {
        self.summaries()?
            .iter()
            .map(|summary| {
                summary[field]
                    .as_u64()
                    .with_context(|| format!("no {field}"))
            })
            .sum()
    }
}

/// Copies a program by another: until the copy is closed, nobody can start it, and each process that another test
/// starts meanwhile would have what this one has open.
pub(crate) fn copy_program(from: &Path, to: &Path) -> Result<()> {
    process::output(std::process::Command::new("cp").args([from, to])).map(drop)
}

/// Runs something on a thread that is in this network namespace.
pub(crate) fn within<T: Send>(
    namespace: &Namespace,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let network = File::open(format!("/proc/{}/ns/net", namespace.pid()))?;
    let done = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join()
    });
    done.map_err(|_panicked| anyhow!("the thread has panicked"))?
}

/// A running acctd and its log.
pub(crate) struct Acctd {
    process: Process,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<thread::JoinHandle<()>>,
}

/// How acctd ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) log: Vec<String>,
    pub(crate) took: Duration,
}

impl Acctd {
    pub(crate) fn spawn(command: &mut std::process::Command) -> Result<Self> {
        Self::spawn_with_input(command.stdin(Stdio::null()))
    }

    /// The command has its standard input already.
    pub(crate) fn spawn_with_input(command: &mut std::process::Command) -> Result<Self> {
        let mut process = Process::spawn(command.stderr(Stdio::piped()))?;
        let stderr = process.child().stderr.take().context("stderr is a pipe")?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = Arc::clone(&log);
        let log_reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(line);
            }
        });
        Ok(Self {
            process,
            log,
            log_reader: Some(log_reader),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lines with this in them.
    pub(crate) fn count_lines(&self, part: &str) -> usize {
        let log = self.log();
        log.iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn wait_for_line(&self, part: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if let Some(line) = log.iter().find(|line| line.contains(part)) {
                return Ok(line.clone());
            }
            // It has ended.
            let is_whole = self.log_reader.as_ref().is_none_or(JoinHandle::is_finished);
            if Instant::now() > end || (is_whole && self.log().len() == log.len()) {
                bail!("no line with {part:?} in the log:\n{}", log.join("\n"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends a signal and waits for the end.
    pub(crate) fn stop(self, signal: Signal) -> Result<Ended> {
        self.signal(signal)?;
        self.wait()
    }

    /// SIGTERM, and all must be well.
    pub(crate) fn finish(self) -> Result<Ended> {
        let ended = self.stop(Signal::TERM)?;
        ensure!(
            ended.code == Some(0),
            "acctd ended with {:?}:\n{}",
            ended.code,
            ended.log.join("\n")
        );
        Ok(ended)
    }

    pub(crate) fn wait(mut self) -> Result<Ended> {
        let begun = Instant::now();
        let status = self.process.wait(PATIENCE)?;
        let took = begun.elapsed();
        if let Some(log_reader) = self.log_reader.take() {
            ensure!(log_reader.join().is_ok(), "the log reader has panicked");
        }
        Ok(Ended {
            code: status.code(),
            log: self.log(),
            took,
        })
    }
}

impl Ended {
    /// The warnings of a run, without their time, and without the one that the tests are root's.
    pub(crate) fn warnings(&self) -> Vec<&str> {
        let warnings = self.log.iter();
        warnings
            .filter_map(|line| Some(line.split_once("warning: ")?.1))
            .filter(|warning| !warning.starts_with("acctd stays root: "))
            .collect()
    }

    /// The line of the log with this in it.
    pub(crate) fn line(&self, part: &str) -> Result<&str> {
        self.log
            .iter()
            .find(|line| line.contains(part))
            .map(String::as_str)
            .with_context(|| format!("no line with {part:?} in the log:\n{}", self.log.join("\n")))
    }
}

/// A file of acctd's.
#[derive(Clone, Debug)]
pub(crate) struct CsvFile {
    pub(crate) start: String,
    pub(crate) end: String,
    pub(crate) rows: Vec<Row>,
}

/// A row of one.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) time: String,
    pub(crate) ip: IpAddr,
    pub(crate) source: Count,
    pub(crate) dest: Count,
}

impl CsvFile {
    fn read(path: &Path) -> Result<Self> {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.context("a name")?;
        let (start, end) = stem.split_once('_').context("START_END")?;
        let file = testkit::rows::read(path)?;
        let header: Vec<&str> = file.header.iter().collect();
        ensure!(header.join(",") == "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets");
        let mut rows = Vec::new();
        for row in file.rows {
            let time = &row.record[0];
            ensure!(digits(time) == digits(start), "{stem}: a row of {time}");
            let [source, dest] = row.counted();
            rows.push(Row {
                time: time.to_owned(),
                ip: row.ip.parse()?,
                source,
                dest,
            });
        }
        ensure!(
            rows.windows(2).all(|pair| pair[0].ip < pair[1].ip),
            "{stem}: rows are not in order"
        );
        Ok(Self {
            start: start.to_owned(),
            end: end.to_owned(),
            rows,
        })
    }
}

/// A time without what separates its parts, of which file names and rows have different ones.
fn digits(time: &str) -> String {
    time.chars().filter(char::is_ascii_digit).collect()
}

/// The CSV files of a directory in order. There must be nothing else but intervals.jsonl.
pub(crate) fn read_files(directory: &Path) -> Result<Vec<CsvFile>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // The lock is there while acctd is.
        let is_lock = path.extension().is_some_and(|ending| ending == "lock");
        if path.ends_with("intervals.jsonl") || is_lock {
            continue;
        }
        ensure!(
            path.extension().is_some_and(|ending| ending == "csv"),
            "{} was left behind",
            path.display()
        );
        files.insert(path.clone(), CsvFile::read(&path)?);
    }
    Ok(files.into_values().collect())
}

/// The sums of all rows: source and destination, for one family.
pub(crate) fn totals(files: &[CsvFile], ip4: bool) -> (Count, Count) {
    let mut sums = (NONE, NONE);
    for row in files.iter().flat_map(|file| &file.rows) {
        if row.ip.is_ipv4() == ip4 {
            sums.0.packets += row.source.packets;
            sums.0.bytes += row.source.bytes;
            sums.1.packets += row.dest.packets;
            sums.1.bytes += row.dest.bytes;
        }
    }
    sums
}

pub(crate) const NONE: Count = Count {
    packets: 0,
    bytes: 0,
};

/// Fails unless each file begins where the one before it ended.
pub(crate) fn ensure_contiguous(files: &[CsvFile]) -> Result<()> {
    for pair in files.windows(2) {
        ensure!(
            pair[0].end == pair[1].start,
            "a gap or an overlap between {}_{} and {}_{}",
            pair[0].start,
            pair[0].end,
            pair[1].start,
            pair[1].end
        );
    }
    Ok(())
}
