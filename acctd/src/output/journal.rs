//! `intervals.jsonl`: one line of JSON an interval, with what the CSV has no column for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;

use acctd_common::Counters;
use log::warn;
use rustix::fs::OFlags;
use serde::Serialize;

use crate::config::crosscheck::Watched;
use crate::model::closed_interval::KernelInterval;
use crate::model::closed_interval::{ClosedInterval, GapCause};
use crate::model::counts::Counts;
use crate::model::counts::FileTotals;
use crate::model::prefix::Side;
use crate::model::verdict::Judgement;
use crate::model::verdict::Verdict;
use crate::model::zone::Zone;
use crate::output::log_directory::LogDirectory;

/// The file's name in the log directory.
pub const FILE_NAME: &str = "intervals.jsonl";

/// Read, too: for how it ends.
const APPENDING: OFlags = OFlags::RDWR.union(OFlags::APPEND);

/// One line. Counters as in [`Counts`]; bytes are IP bytes, header included.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    start: String,
    end: String,
    file: &'a str,
    rows: u64,
    source_bytes: u64,
    source_packets: u64,
    dest_bytes: u64,
    dest_packets: u64,
    #[serde(flatten)]
    losses: Losses,
    write_seconds: f64,
    /// How many intervals the file covers, where they had to be put together.
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_intervals: Option<u32>,
    /// Times of which it is not known what was logged; absent where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapSummary>,
    groups: Vec<GroupSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crosscheck: Option<CrossCheckSummary>,
}

#[derive(Debug, Serialize)]
struct GapSummary {
    start: String,
    end: String,
    groups: Vec<u16>,
    cause: GapCause,
}

/// The cross-check's part: `prefixes` count each side of a prefix by itself.
#[derive(Debug, Serialize)]
struct CrossCheckSummary {
    interfaces: Vec<String>,
    tc_source_bytes: u64,
    tc_source_packets: u64,
    tc_dest_bytes: u64,
    tc_dest_packets: u64,
    /// Bytes of frames, link-layer headers included, that the file's bytes lack: the headers have no length.
    missing_source_bytes: u64,
    missing_dest_bytes: u64,
    /// By verdict: prefixes, and the difference between both counts (of `match`: the count).
    verdicts: BTreeMap<&'static str, Amount>,
    /// Prefixes that match only because of the uncertain window at the interval's end.
    allowed: u64,
    /// Prefixes that match only because fragments were put together.
    explained_by_fragments: u64,
    /// The width of that window.
    window_ms: u64,
    /// False where both did not watch for the same time: what differs is not checked.
    comparable: bool,
    /// Packets that the kernel counted for no prefix, by the reason.
    uncounted: BTreeMap<&'static str, Counted>,
    /// Time to read the kernel's map.
    drain_seconds: f64,
    worst: Vec<Worst>,
}

#[derive(Debug, Serialize)]
struct Amount {
    prefixes: u64,
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Counted {
    packets: u64,
    bytes: u64,
}

/// A prefix and by how much the kernel's count is larger than NFLOG's.
#[derive(Debug, Serialize)]
struct Worst {
    ip: String,
    side: &'static str,
    verdict: &'static str,
    packets: i64,
    bytes: i64,
}

impl CrossCheckSummary {
    fn new(
        kernel: &KernelInterval,
        judgement: &Judgement,
        watched: &[Watched],
        totals: &FileTotals,
    ) -> Self {
        let summary = &judgement.summary;
        let verdicts = Verdict::ALL.into_iter().map(|verdict| {
            let tally = summary.tallies[verdict as usize];
            let amount = Amount {
                prefixes: tally.prefixes,
                packets: tally.amount.packets,
                bytes: tally.amount.bytes,
            };
            (verdict.field_name(), amount)
        });
        let uncounted = kernel.uncounted();
        let uncounted = uncounted.filter(|(_, counters)| counters.packets > 0);
        let uncounted = uncounted
            .map(|(reason, Counters { packets, bytes })| (reason, Counted { packets, bytes }));
        let worst = summary.worst.iter().map(|worst| Worst {
            ip: worst.address.to_string(),
            side: worst.side.name(),
            verdict: worst.verdict.field_name(),
            packets: worst.difference.packets,
            bytes: worst.difference.bytes,
        });
        Self {
            interfaces: watched.iter().map(ToString::to_string).collect(),
            tc_source_bytes: totals.tc_source.bytes,
            tc_source_packets: totals.tc_source.packets,
            tc_dest_bytes: totals.tc_dest.bytes,
            tc_dest_packets: totals.tc_dest.packets,
            missing_source_bytes: summary.sides[Side::Source as usize].without_length.bytes,
            missing_dest_bytes: summary.sides[Side::Dest as usize].without_length.bytes,
            verdicts: verdicts.collect(),
            allowed: summary.n_allowed,
            explained_by_fragments: summary.n_explained_by_fragments,
            window_ms: summary.window_nanos / 1_000_000,
            comparable: kernel.is_comparable,
            uncounted: uncounted.collect(),
            drain_seconds: kernel.drained_in.as_secs_f64(),
            worst: worst.collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct GroupSummary {
    group: u16,
    ip_version: u8,
    side: &'static str,
    prefix_length: u8,
    packets: u64,
    bytes: u64,
    datagrams: u64,
    #[serde(flatten)]
    losses: Losses,
}

#[derive(Debug, Serialize)]
struct Losses {
    lost: u64,
    overruns: u64,
    late: u64,
    without_length: u64,
    /// True where packets had no length in their header: they add 0 bytes, so the bytes are no more than a
    /// lower bound.
    bytes_are_lower_bound: bool,
    overflow: u64,
    undecodable: u64,
    truncated: u64,
    not_ip: u64,
    other_family: u64,
    malformed: u64,
    /// False where the socket overflowed and no packet came after to show how many were lost.
    lost_is_complete: bool,
}

impl From<&Counts> for Losses {
    fn from(counts: &Counts) -> Self {
        Self {
            lost: counts.lost,
            overruns: counts.overruns,
            late: counts.late,
            without_length: counts.without_length,
            bytes_are_lower_bound: counts.without_length > 0,
            overflow: counts.overflow,
            undecodable: counts.undecodable(),
            truncated: counts.truncated,
            not_ip: counts.not_ip,
            other_family: counts.other_family,
            malformed: counts.malformed,
            lost_is_complete: counts.unresolved == 0,
        }
    }
}

/// The line for `closed`, which is in `file`, its line end included.
#[must_use]
pub fn line(
    closed: &ClosedInterval,
    watched: &[Watched],
    zone: Zone,
    file: &str,
    totals: &FileTotals,
    write_seconds: f64,
) -> Vec<u8> {
    let groups = closed.groups.iter().map(|group| GroupSummary {
        group: group.config.group.0,
        ip_version: group.config.prefix_length.family().version(),
        side: group.config.side.name(),
        prefix_length: group.config.prefix_length.bits(),
        packets: group.counts.packets,
        bytes: group.counts.bytes,
        datagrams: group.counts.datagrams,
        losses: (&group.counts).into(),
    });
    let gaps = closed.gaps.iter().map(|gap| GapSummary {
        start: zone.rfc3339(gap.period.start),
        end: zone.rfc3339(gap.period.end),
        groups: gap.groups.iter().map(|group| group.0).collect(),
        cause: gap.cause,
    });
    let summary = Summary {
        start: zone.rfc3339(closed.period.start),
        end: zone.rfc3339(closed.period.end),
        file,
        rows: totals.rows,
        source_bytes: totals.source.bytes,
        source_packets: totals.source.packets,
        dest_bytes: totals.dest.bytes,
        dest_packets: totals.dest.packets,
        losses: (&closed.counts()).into(),
        write_seconds,
        merged_intervals: (closed.n_merged > 1).then_some(closed.n_merged),
        gaps: gaps.collect(),
        groups: groups.collect(),
        crosscheck: closed.kernel.as_ref().and_then(|kernel| {
            let judgement = kernel.judgement.as_ref()?;
            Some(CrossCheckSummary::new(kernel, judgement, watched, totals))
        }),
    };
    // Strings and numbers with fixed names always serialise.
    let mut line = serde_json::to_vec(&summary).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Makes sure that an existing file can be appended to; one that is not there yet is made later.
pub fn check(directory: &LogDirectory) -> io::Result<()> {
    match directory.open_file(FILE_NAME, APPENDING) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Appends `line` whole or not at all, so that a full disk leaves no half line. One that a crash
/// has left is ended first, so that it spoils no other.
pub fn append(directory: &LogDirectory, line: &[u8]) -> io::Result<()> {
    let mut file = directory.open_file(FILE_NAME, APPENDING | OFlags::CREATE)?;
    let length_before = file.metadata()?.len();
    let written = end_half_line(&mut file, length_before)
        .and_then(|()| file.write_all(line))
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // The error to report is the first; a half line, should this fail too, shows itself.
        let _already_failing = file.set_len(length_before);
    }
    written
}

/// Whether `line` is among the last ones.
pub fn has_line(directory: &LogDirectory, line: &[u8]) -> io::Result<bool> {
    /// Lines have some kilobytes, and few others were appended since.
    const LAST: u64 = 1 << 20;
    let file = match directory.open_file(FILE_NAME, OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let mut last = vec![0; usize::try_from(length.min(LAST)).unwrap_or(0)];
    file.read_exact_at(&mut last, length.saturating_sub(LAST))?;
    let mut lines = last.split_inclusive(|byte| *byte == b'\n');
    Ok(lines.any(|found| found == line))
}

fn end_half_line(file: &mut File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if let Some(position) = length.checked_sub(1) {
        file.read_exact_at(&mut last, position)?;
    }
    if last == [b'\n'] {
        return Ok(());
    }
    file.write_all(b"\n")?;
    warn!("{FILE_NAME} ended with half a line, most likely from a crash; the next ones are whole");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_spoils_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        let path = directory.path_of(FILE_NAME);
        for line in ["1\n", "2\n"] {
            append(directory, line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
        std::fs::write(&path, "1\n{\"start").unwrap();
        for line in ["3\n", "4\n"] {
            append(directory, line.as_bytes()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "1\n{\"start\n3\n4\n"
        );
    }
}
