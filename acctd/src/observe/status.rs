//! The status of a running acctd: `/status` as JSON, `acctd status` and SIGUSR1 as text.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::cli::commands::StatusArgs;
use crate::config::listen_address::ListenAddress;
use crate::model::counts::Counts;
use crate::model::human::{bytes, rounded, thousands};
use crate::model::interval::{Period, UnixNanos};
use crate::model::verdict::{Verdict, VerdictSummary};
use crate::model::zone::Zone;
use crate::observe::client;
use crate::observe::state::{RuntimeState, Snapshot};

/// The limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `acctd status`.
pub fn run(args: &StatusArgs) -> Result<ExitCode> {
    let address = args.asked.address()?;
    let answer = answer_of(address)?;
    let text = if args.json {
        answer
    } else {
        parse(&answer, address)?.to_string()
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The process id of the acctd that listens on `address`, and the counters of its groups.
pub(crate) fn counts(address: &ListenAddress) -> Result<(u32, Vec<(u16, Counts)>)> {
    let status = parse(&answer_of(address)?, address)?;
    let groups = status.groups.iter().map(|it| (it.group, it.counts));
    Ok((status.pid, groups.collect()))
}

fn parse(answer: &str, address: &ListenAddress) -> Result<Status> {
    serde_json::from_str(answer)
        .with_context(|| format!("{address} is not an acctd, or has another version"))
}

fn answer_of(address: &ListenAddress) -> Result<String> {
    client::ask(address, "/status", None, TIMEOUT)
}

/// `/status`. Times are RFC 3339 in the zone of the files, counters are since the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    version: String,
    pid: u32,
    started: String,
    uptime_seconds: u64,
    /// As in `/healthz`.
    problems: Vec<String>,
    interval_seconds: u64,
    open_interval: Span,
    groups: Vec<GroupStatus>,
    files: FilesStatus,
    checkpoint: CheckpointStatus,
    /// With `--crosscheck`.
    #[serde(skip_serializing_if = "Option::is_none")]
    crosscheck: Option<CrossCheckStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Span {
    start: String,
    end: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct GroupStatus {
    group: u16,
    ip_version: u8,
    side: String,
    prefix_length: u8,
    bound: bool,
    /// Over the last ten seconds.
    packets_per_second: f64,
    bytes_per_second: f64,
    undecodable: u64,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FilesStatus {
    written: u64,
    last: Option<LastFileStatus>,
    waiting_intervals: usize,
    waiting_rows: usize,
    /// Lines not yet in `intervals.jsonl`.
    waiting_lines: usize,
    /// The error of the last write.
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct LastFileStatus {
    file: String,
    #[serde(flatten)]
    interval: Span,
    written: String,
    age_seconds: u64,
    rows: u64,
    packets: u64,
    bytes: u64,
    lost: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CheckpointStatus {
    /// 0 without checkpoints.
    every_seconds: f64,
    last: Option<String>,
    age_seconds: Option<u64>,
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct CrossCheckStatus {
    interfaces: Vec<String>,
    /// Those with acctd's programs; acctd waits for the others.
    #[serde(default)]
    attached: Vec<String>,
    /// What keeps interfaces from being checked.
    #[serde(default)]
    notes: Vec<String>,
    /// False if it has failed.
    active: bool,
    /// Prefixes and sides by verdict, in the last file.
    last: Option<BTreeMap<String, u64>>,
    /// The same since the start.
    total: BTreeMap<String, u64>,
}

impl Status {
    pub(crate) fn of(state: &RuntimeState) -> Self {
        let snapshot = state.snapshot();
        let zone = state.zone;
        let now = UnixNanos::now();
        let groups = state.groups.iter().enumerate();
        let groups = groups.map(|(at, (config, counts))| {
            let rate = snapshot.rate(at);
            let counts = counts.load();
            GroupStatus {
                group: config.group.0,
                ip_version: config.prefix_length.family().version(),
                side: config.side.name().to_owned(),
                prefix_length: config.prefix_length.bits(),
                bound: snapshot.bound.get(at).copied().unwrap_or(false),
                packets_per_second: rate.packets,
                bytes_per_second: rate.bytes,
                undecodable: counts.undecodable(),
                counts,
            }
        });
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: zone.rfc3339(state.started),
            uptime_seconds: state.uptime().as_secs(),
            problems: snapshot.problems(&state.groups),
            interval_seconds: state.interval.as_secs(),
            open_interval: Span::of(snapshot.open, zone),
            groups: groups.collect(),
            files: FilesStatus::of(&snapshot, zone, now),
            checkpoint: CheckpointStatus {
                every_seconds: state.checkpoint.unwrap_or_default().as_secs_f64(),
                last: snapshot.saved.map(|at| zone.rfc3339(at)),
                age_seconds: snapshot.saved.map(|at| at.until(now).as_secs()),
                error: snapshot.save_error.clone(),
            },
            crosscheck: (!state.watched.is_empty()).then(|| CrossCheckStatus {
                interfaces: state.watched.iter().map(ToString::to_string).collect(),
                attached: attached(&snapshot),
                notes: snapshot.crosscheck_problems(),
                active: snapshot.crosscheck.is_active,
                last: snapshot.crosscheck.last.as_ref().map(by_verdict),
                total: by_verdict(&snapshot.crosscheck.total),
            }),
        }
    }
}

/// For `acctd top`.
impl Status {
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Packets, since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.groups.iter().map(|it| it.counts.lost).sum()
    }

    pub(crate) fn undecodable(&self) -> u64 {
        self.groups.iter().map(|it| it.undecodable).sum()
    }

    pub(crate) fn has_crosscheck(&self) -> bool {
        self.crosscheck.is_some()
    }

    /// Prefixes and sides by verdict, in the last file.
    pub(crate) fn verdicts(&self) -> Option<&BTreeMap<String, u64>> {
        self.crosscheck.as_ref()?.last.as_ref()
    }
}

impl Status {
    /// For the log, in one line.
    pub(crate) fn line(&self) -> String {
        let rate: f64 = self.groups.iter().map(|it| it.packets_per_second).sum();
        let mut line = format!(
            "{} packets/s, {} lost; {} files written",
            thousands(rounded(rate)),
            thousands(self.lost()),
            thousands(self.files.written)
        );
        if let Some(last) = &self.files.last {
            line.push_str(", the last is ");
            line.push_str(&last.file);
        }
        for problem in &self.problems {
            line.push_str("; ");
            line.push_str(problem);
        }
        line
    }
}

impl Span {
    fn of(period: Period, zone: Zone) -> Self {
        Self {
            start: zone.rfc3339(period.start),
            end: zone.rfc3339(period.end),
        }
    }
}

impl FilesStatus {
    fn of(snapshot: &Snapshot, zone: Zone, now: UnixNanos) -> Self {
        let files = &snapshot.files;
        let last = files.last.as_ref().map(|last| LastFileStatus {
            file: last.name.clone(),
            interval: Span::of(last.period, zone),
            written: zone.rfc3339(last.written),
            age_seconds: last.written.until(now).as_secs(),
            rows: last.rows,
            packets: last.counts.packets,
            bytes: last.counts.bytes,
            lost: last.counts.lost,
        });
        Self {
            written: files.n_written,
            last,
            waiting_intervals: files.waiting_intervals,
            waiting_rows: files.waiting_rows,
            waiting_lines: files.waiting_lines,
            error: files.error.as_ref().map(|(error, _)| error.clone()),
        }
    }
}

fn attached(snapshot: &Snapshot) -> Vec<String> {
    let interfaces = snapshot.crosscheck.interfaces.iter();
    let attached = interfaces.filter(|one| one.is_attached);
    attached.map(|one| one.interface.clone()).collect()
}

fn by_verdict(summary: &VerdictSummary) -> BTreeMap<String, u64> {
    let verdicts = Verdict::ALL.into_iter();
    let prefixes = |verdict: Verdict| summary.tallies[verdict as usize].prefixes;
    verdicts
        .map(|verdict| (Verdict::field_name(verdict).to_owned(), prefixes(verdict)))
        .collect()
}

/// Several lines, each with a line end.
impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let up = duration(self.uptime_seconds);
        writeln!(f, "acctd {}, pid {}, up {up}", self.version, self.pid)?;
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        let Span { start, end } = &self.open_interval;
        writeln!(f, "open interval: {start} to {end}")?;
        for group in &self.groups {
            writeln!(f, "{group}")?;
        }
        self.files.fmt(f)?;
        self.checkpoint.fmt(f)?;
        if let Some(crosscheck) = &self.crosscheck {
            crosscheck.fmt(f)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for GroupStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { packets, lost, .. } = self.counts;
        write!(
            f,
            "group {}: IPv{} {} /{}, {}{} packets/s, {}/s; {} packets, {}, {} lost",
            self.group,
            self.ip_version,
            self.side,
            self.prefix_length,
            if self.bound { "" } else { "not bound, " },
            thousands(rounded(self.packets_per_second)),
            bytes(rounded(self.bytes_per_second)),
            thousands(packets),
            bytes(self.counts.bytes),
            thousands(lost),
        )?;
        let others = [
            ("late", self.counts.late),
            ("without length", self.counts.without_length),
            ("overflow", self.counts.overflow),
            ("undecodable", self.undecodable),
        ];
        for (name, number) in others.into_iter().filter(|(_, number)| *number > 0) {
            write!(f, ", {} {name}", thousands(number))?;
        }
        Ok(())
    }
}

impl FilesStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "files: {} written", thousands(self.written))?;
        if let Some(last) = &self.last {
            write!(
                f,
                ", the last {} ago: {} ({} rows, {} packets, {}, {} lost)",
                duration(last.age_seconds),
                last.file,
                thousands(last.rows),
                thousands(last.packets),
                bytes(last.bytes),
                thousands(last.lost)
            )?;
        }
        if self.waiting_intervals > 0 {
            write!(
                f,
                "; {} intervals with {} rows wait for the disk",
                self.waiting_intervals,
                thousands(self.waiting_rows as u64)
            )?;
        }
        if let Some(error) = &self.error {
            write!(f, "; {error}")?;
        }
        writeln!(f)
    }
}

impl CheckpointStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.age_seconds, &self.error) {
            (_, Some(error)) => writeln!(f, "checkpoint failed: {error}"),
            (Some(age), _) => writeln!(f, "checkpoint: {} ago", duration(age)),
            (None, _) if self.every_seconds > 0.0 => writeln!(f, "checkpoint: none yet"),
            (None, _) => Ok(()),
        }
    }
}

impl CrossCheckStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cross-check of {}", self.interfaces.join(", "))?;
        if !self.active {
            write!(f, " (it has failed, and nothing is checked)")?;
        }
        let shown = |verdicts: &BTreeMap<String, u64>| {
            let verdicts = verdicts.iter().filter(|(_, prefixes)| **prefixes > 0);
            let shown: Vec<String> = verdicts
                .map(|(verdict, prefixes)| {
                    format!("{} {}", thousands(*prefixes), verdict.replace('_', " "))
                })
                .collect();
            if shown.is_empty() {
                "nothing".to_owned()
            } else {
                shown.join(", ")
            }
        };
        if let Some(last) = &self.last {
            write!(f, ": {} in the last file", shown(last))?;
            write!(f, "; {} since the start", shown(&self.total))?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "cross-check: {note}")?;
        }
        Ok(())
    }
}

/// In the two largest units: `3 d 4 h`, `12 min 5 s`.
fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_two_units() {
        let shown = [0, 59, 60, 3_661, 90_061].map(duration);
        assert_eq!(shown, ["0 s", "59 s", "1 min 0 s", "1 h 1 min", "1 d 1 h"]);
    }
}
