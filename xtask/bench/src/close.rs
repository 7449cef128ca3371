//! `bench close`: closing an interval of a million rows while packets come at full speed.
//!
//! A file is there once it has been renamed, which inotify tells at once and without looking. acctd
//! waits for stragglers before it closes a period, so both are told: how long after the period's end
//! the file was there, and how much of it was work.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{
    measure::{as_figure, begin, in_a_place, mib, settle, stop},
    output::{Output, Table},
    receiver::{Place, Receiver},
    receivers::{self, Name},
    setup::{Family, Prefixes, Setup},
    stage::Stage,
};
use testkit::{interrupt::Interrupt, print};

const RECEIVERS: [Name; 2] = [Name::Acctd, Name::GoNflogAcctd];

/// How long after the last period's end its file may come.
const FILE_LIMIT: Duration = Duration::from_secs(50);

const EXPLANATION: &str = "\
After the end: from the end of the period to the renamed file. Work: that without the 1.25 s that acctd waits \
for packets which the kernel still holds. write_seconds: of intervals.jsonl. Lost: packets that the rule logged \
and that are in no row of any file of the run.";

/// Measure how long it takes to close an interval of a million rows under full load
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// IP version
    #[arg(long, value_name = "4|6", default_value = "4")]
    family: Family,

    /// Number of prefixes; if fewer packets come in an interval, it has fewer rows
    #[arg(long, value_name = "N", default_value = "1000000new")]
    prefixes: Prefixes,

    /// The rule's queue-threshold
    #[arg(long, value_name = "N", default_value_t = 50)]
    threshold: u32,

    /// Seconds of an interval; a minute must be a multiple
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=60))]
    interval: u32,

    /// Whole intervals to measure
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,

    /// A go-nflog-acctd to measure too
    #[arg(long, value_name = "PROGRAM")]
    go_nflog_acctd: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

/// What a receiver's run has shown.
#[derive(Debug, Serialize)]
struct Run {
    receiver: String,
    packets: u64,
    packets_a_second: f64,
    lost: i64,
    peak_mib: f64,
    intervals: Vec<Closed>,
}

/// One interval's file.
#[derive(Debug, Serialize)]
struct Closed {
    file: String,
    rows: usize,
    /// From the end of the period to the renamed file.
    after_end_seconds: f64,
    /// The same without what is waited on purpose.
    work_seconds: f64,
    /// What the receiver says that writing took.
    write_seconds: Option<f64>,
}

impl Args {
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<()> {
        ensure!(
            60 % self.interval == 0,
            "--interval {}: a minute is no multiple of it",
            self.interval
        );
        let receivers = receivers::make(&RECEIVERS, self.go_nflog_acctd.as_deref(), interrupt)?;
        let stage = Stage::set()?;
        let setup = Setup {
            packets: u64::MAX, // It is stopped when the last file is there.
            ..Setup::new(self.family, self.prefixes, self.threshold, 0)
        };
        let mut runs = Vec::new();
        for receiver in receivers {
            let receiver = receiver.as_ref();
            runs.push(in_a_place(&stage, &setup, receiver, |place| {
                let interval = self.interval;
                self.measure(&Place { interval, ..*place }, receiver, interrupt)
            })?);
        }
        let tables: Vec<Table> = runs.iter().map(|run| table(&setup, run)).collect();
        self.output.publish(&runs, &tables, EXPLANATION)
    }

    fn measure(
        &self,
        place: &Place<'_>,
        receiver: &dyn Receiver,
        interrupt: &Interrupt,
    ) -> Result<Run> {
        let name = receiver.name();
        let process = begin(place, receiver, interrupt)?.context("it has no process")?;
        let inotify =
            inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&inotify, place.directory, inotify::WatchFlags::MOVED_TO)?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&inotify, &mut buffer);
        let begun = Instant::now();
        let sending = place
            .stage
            .start_sending(&place.setup.traffic(&place.stage.link)?)?;
        let mut intervals = Vec::new();
        let limit =
            (u32::from(self.runs) + 2) * Duration::from_secs(self.interval.into()) + FILE_LIMIT;
        // The first period begins somewhere within its interval.
        for number in 0..=self.runs {
            let (file, after_end) = next_file(&inotify, &mut events, begun + limit, interrupt)?;
            print::line(format!("bench: {name}: {file} after {after_end:.3?}"))?;
            if number > 0 {
                intervals.push(Closed {
                    file,
                    rows: 0,
                    after_end_seconds: after_end.as_secs_f64(),
                    work_seconds: after_end
                        .saturating_sub(receiver.settle_time())
                        .as_secs_f64(),
                    write_seconds: None,
                });
            }
        }
        sending.stop()?;
        let sent_for = begun.elapsed();
        // go-nflog-acctd must not be asked to end while it is about to write: it would write one file twice,
        // at the same time. Right after the file of the period in which sending ended is far from that.
        next_file(&inotify, &mut events, begun + limit, interrupt)?;
        settle(Some(&process), interrupt)?;
        let peak = stop(process, receiver, interrupt)?;
        let written = write_seconds(place.directory)?;
        for closed in &mut intervals {
            let file = BufReader::new(File::open(place.directory.join(&closed.file))?);
            closed.rows = file.lines().count().saturating_sub(1);
            closed.write_seconds = written.get(&closed.file).copied();
        }
        let packets = place.stage.seen()?;
        let counted = receiver.counted(place)?.packets;
        Ok(Run {
            receiver: name.to_owned(),
            packets,
            packets_a_second: as_figure(packets) / sent_for.as_secs_f64(),
            lost: packets.cast_signed() - counted.cast_signed(),
            peak_mib: mib(peak),
            intervals,
        })
    }
}

fn table(setup: &Setup, run: &Run) -> Table {
    let columns = [
        "interval",
        "rows",
        "s after the end",
        "s of work",
        "write_seconds",
    ];
    let row = |closed: &Closed| {
        let written = closed.write_seconds;
        vec![
            closed.file.trim_end_matches(".csv").to_owned(),
            closed.rows.to_string(),
            format!("{:.3}", closed.after_end_seconds),
            format!("{:.3}", closed.work_seconds),
            written.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}")),
        ]
    };
    Table {
        title: format!(
            "{}, {setup}: {:.0} packets/s, {} lost of {}, peak {:.1} MiB",
            run.receiver, run.packets_a_second, run.lost, run.packets, run.peak_mib
        ),
        columns: columns.map(str::to_owned).to_vec(),
        rows: run.intervals.iter().map(row).collect(),
    }
}

/// Waits for the next file of a period; returns its name and how long ago the period ended.
fn next_file(
    inotify: &OwnedFd,
    events: &mut inotify::Reader<'_, &OwnedFd>,
    end: Instant,
    interrupt: &Interrupt,
) -> Result<(String, Duration)> {
    const LOOK: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    loop {
        interrupt.check()?;
        match events.next() {
            Ok(event) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
                let name = event.file_name().and_then(|name| name.to_str().ok());
                if let Some((name, after_end)) =
                    name.and_then(|name| Some((name, time_since_end(name, now)?)))
                {
                    return Ok((name.to_owned(), after_end));
                }
            }
            Err(Errno::WOULDBLOCK) => {
                if Instant::now() > end {
                    bail!("the file of an interval does not appear");
                }
                let mut ready = [PollFd::new(inotify, PollFlags::IN)];
                // A signal ends the wait early, and is seen above.
                poll(&mut ready, Some(&LOOK)).or_else(|error| match error {
                    Errno::INTR => Ok(0),
                    error => Err(error),
                })?;
            }
            Err(error) => return Err(error).context("cannot watch for files"),
        }
    }
}

/// How long ago a period ended, from its file's name, which ends in a time of the local zone. All
/// zones agree on the second of the minute, and no file takes a minute.
fn time_since_end(file: &str, now: Duration) -> Option<Duration> {
    let stem = file.strip_suffix(".csv")?;
    let second: u64 = stem.get(stem.len().checked_sub(2)?..)?.parse().ok()?;
    let passed = (now.as_secs() + 60).checked_sub(second)? % 60;
    Some(Duration::new(passed, now.subsec_nanos()))
}

/// By file; nothing where there is no intervals.jsonl.
fn write_seconds(directory: &Path) -> Result<HashMap<String, f64>> {
    #[derive(Deserialize)]
    struct Line {
        file: String,
        write_seconds: f64,
    }
    let text = fs::read_to_string(directory.join("intervals.jsonl")).unwrap_or_default();
    let lines = text.lines().map(|line| {
        let line: Line = serde_json::from_str(line)?;
        Ok((line.file, line.write_seconds))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_the_period_ended() {
        let since = |file, now| time_since_end(file, Duration::from_millis(now));
        let file = "2026-01-02-030450_2026-01-02-030455.csv";
        let minute = 29_000_000 * 60_000;
        assert_eq!(
            since(file, minute + 56_250),
            Some(Duration::from_millis(1_250))
        );
        assert_eq!(
            since(file, minute + 61_250),
            Some(Duration::from_millis(6_250))
        );
        assert_eq!(since("x.csv", minute), None);
        assert_eq!(since("2026-01-02-030455.tmp", minute), None);
    }
}
