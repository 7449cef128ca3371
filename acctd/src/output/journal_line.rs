//! The lines of `intervals.jsonl`: JSON, one line per interval, with the data that have no column in the CSV file.

use std::collections::BTreeMap;

use acctd_common::Counters;
use serde::Serialize;

use crate::config::crosscheck::Watched;
use crate::model::closed_interval::{ClosedInterval, GapCause, KernelInterval};
use crate::model::counts::{Counts, FileTotals};
use crate::model::explanation::Explained;
use crate::model::prefix::Side;
use crate::model::verdict::{Judgement, Verdict};
use crate::model::zone::Zone;

/// One line. For the counters see [`Counts`]. Bytes are IP bytes, header included.
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
    /// How many intervals the file covers, if several were merged.
    #[serde(skip_serializing_if = "Option::is_none")]
    merged_intervals: Option<u32>,
    /// Times for which it is not known what was logged.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<GapSummary>,
    groups: Vec<GroupSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crosscheck: Option<CrossCheckSummary<'a>>,
}

#[derive(Debug, Serialize)]
struct GapSummary {
    start: String,
    end: String,
    groups: Vec<u16>,
    cause: GapCause,
}

/// The cross-check's part. `prefixes` counts each side of a prefix separately.
#[derive(Debug, Serialize)]
struct CrossCheckSummary<'a> {
    interfaces: Vec<String>,
    tc_source_bytes: u64,
    tc_source_packets: u64,
    tc_dest_bytes: u64,
    tc_dest_packets: u64,
    /// The same on the wire, where packets of several segments are cut up. Left out if the program does not count that.
    #[serde(skip_serializing_if = "Option::is_none")]
    wire_source_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire_source_packets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire_dest_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wire_dest_packets: Option<u64>,
    /// Bytes of frames (link-layer headers included) whose IP headers have no length. They are missing in the file.
    missing_source_bytes: u64,
    missing_dest_bytes: u64,
    /// By verdict: prefixes, and the difference between both counts (for `match`: the count).
    verdicts: BTreeMap<&'static str, Amount>,
    /// Prefixes that match only because of the uncertain window at the interval's end.
    allowed: u64,
    /// Prefixes that match only because the kernel reassembled fragments.
    explained_by_fragments: u64,
    /// The width of that window.
    window_ms: u64,
    /// False if NFLOG and the programs did not count for the same time. Then differences have no verdict.
    comparable: bool,
    /// Packets that the kernel counted for no prefix, by reason.
    uncounted: BTreeMap<&'static str, Counted>,
    /// Time to read the kernel's map.
    drain_seconds: f64,
    worst: Vec<Worst>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    explained: &'a [Explained],
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

impl<'a> CrossCheckSummary<'a> {
    fn new(
        kernel: &'a KernelInterval,
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
        let [source, dest] = [Side::Source, Side::Dest].map(|side| &summary.sides[side as usize]);
        let (wire_source, wire_dest) = (source.wire(), dest.wire());
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
            wire_source_bytes: wire_source.map(|it| it.bytes),
            wire_source_packets: wire_source.map(|it| it.packets),
            wire_dest_bytes: wire_dest.map(|it| it.bytes),
            wire_dest_packets: wire_dest.map(|it| it.packets),
            missing_source_bytes: source.without_length.bytes,
            missing_dest_bytes: dest.without_length.bytes,
            verdicts: verdicts.collect(),
            allowed: summary.n_allowed,
            explained_by_fragments: summary.n_explained_by_fragments,
            window_ms: summary.window_nanos / 1_000_000,
            comparable: kernel.is_comparable,
            uncounted: uncounted.collect(),
            drain_seconds: kernel.drained_in.as_secs_f64(),
            worst: worst.collect(),
            explained: &kernel.explained,
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
    /// True if packets had no length in their header: they add 0 bytes, so the bytes are a lower bound.
    bytes_are_lower_bound: bool,
    overflow: u64,
    undecodable: u64,
    truncated: u64,
    not_ip: u64,
    other_family: u64,
    malformed: u64,
    /// False if the socket overflowed and no packet arrived afterwards to show how many were lost.
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
            lost_is_complete: counts.overruns_without_gap == 0,
        }
    }
}

/// The line for `closed`, whose CSV file is `file`. The line end is included.
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
    // Cannot fail: the keys are strings.
    let mut line = serde_json::to_vec(&summary).unwrap_or_default();
    line.push(b'\n');
    line
}
