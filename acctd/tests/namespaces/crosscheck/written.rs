//! What acctd has written: intervals.jsonl and files with the cross-check's columns, and their sums.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use testkit::nft::Count;

use super::run::count;
use crate::rig::{NONE, Rig};

/// A line of intervals.jsonl, and the file that it is about.
#[derive(Debug, Deserialize)]
pub(super) struct Checked {
    pub(super) file: String,
    pub(super) lost: u64,
    pub(super) late: u64,
    pub(super) overruns: u64,
    pub(super) bytes_are_lower_bound: bool,
    pub(super) groups: Vec<Group>,
    pub(super) crosscheck: CrossCheck,
    #[serde(skip)]
    pub(super) rows: Vec<CheckedRow>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Group {
    pub(super) group: u16,
    pub(super) lost: u64,
}

/// The cross-check's part of the line.
#[derive(Debug, Deserialize)]
pub(super) struct CrossCheck {
    pub(super) interfaces: Vec<String>,
    pub(super) tc_source_bytes: u64,
    pub(super) tc_source_packets: u64,
    pub(super) tc_dest_bytes: u64,
    pub(super) tc_dest_packets: u64,
    #[serde(flatten)]
    pub(super) wire: Option<OnTheWire>,
    pub(super) missing_source_bytes: u64,
    pub(super) missing_dest_bytes: u64,
    pub(super) verdicts: BTreeMap<String, Tally>,
    pub(super) allowed: u64,
    pub(super) explained_by_fragments: u64,
    pub(super) window_ms: u64,
    pub(super) comparable: bool,
    pub(super) uncounted: BTreeMap<String, Count>,
    pub(super) worst: Vec<Worst>,
}

/// What the packets are on the wire.
#[expect(clippy::struct_field_names, reason = "as they are in the line")]
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct OnTheWire {
    wire_source_bytes: u64,
    wire_source_packets: u64,
    wire_dest_bytes: u64,
    wire_dest_packets: u64,
}

impl OnTheWire {
    /// Both sides.
    pub(super) fn sides(self) -> [Count; 2] {
        [
            count(self.wire_source_packets, self.wire_source_bytes),
            count(self.wire_dest_packets, self.wire_dest_bytes),
        ]
    }
}

/// What has one verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Tally {
    pub(super) prefixes: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// One of the largest differences.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Worst {
    pub(super) ip: IpAddr,
    pub(super) side: String,
    pub(super) verdict: String,
    pub(super) packets: i64,
    pub(super) bytes: i64,
}

/// A row with the cross-check's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CheckedRow {
    pub(super) ip: IpAddr,
    pub(super) source: Count,
    pub(super) dest: Count,
    pub(super) tc_source: Count,
    pub(super) tc_dest: Count,
    pub(super) verdict: String,
    /// With `--crosscheck-wire`: both sides.
    pub(super) wire: Option<[Count; 2]>,
}

impl CheckedRow {
    /// Both counts are the same, on both sides.
    pub(super) fn is_equal(&self) -> bool {
        (self.source, self.dest) == (self.tc_source, self.tc_dest)
    }
}

impl Checked {
    pub(super) fn tally(&self, verdict: &str) -> Tally {
        self.crosscheck
            .verdicts
            .get(verdict)
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn uncounted(&self, reason: &str) -> Count {
        self.crosscheck
            .uncounted
            .get(reason)
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn row(&self, ip: IpAddr) -> Option<&CheckedRow> {
        self.rows.iter().find(|row| row.ip == ip)
    }

    /// The rows with this verdict.
    pub(super) fn with_verdict(&self, verdict: &str) -> Vec<&CheckedRow> {
        self.rows
            .iter()
            .filter(|row| row.verdict == verdict)
            .collect()
    }

    /// The summary says what the rows say.
    pub(super) fn ensure_consistent(&self) -> Result<()> {
        let CrossCheck {
            tc_source_bytes,
            tc_source_packets,
            tc_dest_bytes,
            tc_dest_packets,
            ..
        } = self.crosscheck;
        let source = sum(&self.rows, |row| row.tc_source);
        let dest = sum(&self.rows, |row| row.tc_dest);
        ensure!((source.bytes, source.packets) == (tc_source_bytes, tc_source_packets));
        ensure!((dest.bytes, dest.packets) == (tc_dest_bytes, tc_dest_packets));
        for (name, verdict) in [
            ("uncovered", "uncovered"),
            ("extra", "extra"),
            ("lost", "lost"),
            ("not_checked", "not checked"),
        ] {
            let n_rows = self.with_verdict(verdict).len();
            let n_prefixes = self.tally(name).prefixes;
            // A row may stand for two sides, and shows the worse of their verdicts.
            ensure!(
                n_rows as u64 <= n_prefixes,
                "{}: {n_rows} rows are {verdict}, and the summary has {n_prefixes}",
                self.file
            );
            ensure!(
                name != "uncovered" || (n_rows > 0) == (n_prefixes > 0),
                "{}: {n_prefixes} uncovered prefixes in no row",
                self.file
            );
        }
        Ok(())
    }
}

/// By source, what NFLOG and what the kernel counted of a family, over all files.
pub(crate) fn sources(rig: &Rig, ip4: bool) -> Result<(Count, Count)> {
    let intervals = checked(rig)?;
    let rows = || {
        let rows = intervals.iter().flat_map(|interval| &interval.rows);
        rows.filter(|row| row.ip.is_ipv4() == ip4)
    };
    Ok((
        sum(rows(), |row| row.source),
        sum(rows(), |row| row.tc_source),
    ))
}

/// All intervals of a run in order, each with its file.
pub(super) fn checked(rig: &Rig) -> Result<Vec<Checked>> {
    let mut intervals = Vec::new();
    for line in rig.summaries()? {
        let text = line.to_string();
        let mut interval: Checked =
            serde_json::from_value(line).with_context(|| format!("not as expected: {text}"))?;
        interval.rows = read_rows(rig, &interval.file)?;
        interval.ensure_consistent()?;
        intervals.push(interval);
    }
    Ok(intervals)
}

pub(super) fn read_rows(rig: &Rig, file: &str) -> Result<Vec<CheckedRow>> {
    const HEADER: &str = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets,\
        TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict";
    const WIRE: &str = "WireSourceBytes,WireSourcePackets,WireDestBytes,WireDestPackets";
    let read = testkit::rows::read(&rig.log_directory().join(file))?;
    let header: Vec<&str> = read.header.iter().collect();
    let header = header.join(",");
    ensure!(
        header == HEADER || header == format!("{HEADER},{WIRE}"),
        "{file}: {header:?}"
    );
    let mut rows: Vec<CheckedRow> = Vec::new();
    for row in read.rows {
        let [source, dest] = row.counted();
        let [tc_source, tc_dest] = row.passed().context("no count of the kernel's")?;
        rows.push(CheckedRow {
            ip: row.ip.parse()?,
            source,
            dest,
            tc_source,
            tc_dest,
            wire: row.on_the_wire(),
            verdict: row.verdict.context("no verdict")?,
        });
    }
    ensure!(
        rows.windows(2).all(|pair| pair[0].ip < pair[1].ip),
        "{file}: rows are not in order"
    );
    Ok(rows)
}

pub(super) fn sum<'a>(
    rows: impl IntoIterator<Item = &'a CheckedRow>,
    column: impl Fn(&CheckedRow) -> Count,
) -> Count {
    let mut sum = NONE;
    for row in rows {
        let Count { packets, bytes } = column(row);
        sum.packets += packets;
        sum.bytes += bytes;
    }
    sum
}

/// What one of the three counted, by family and side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) source4: Count,
    pub(super) source6: Count,
    pub(super) dest4: Count,
    pub(super) dest6: Count,
}

pub(super) const NOTHING: Sums = Sums {
    source4: NONE,
    source6: NONE,
    dest4: NONE,
    dest6: NONE,
};

/// Over all files.
pub(super) fn tc_sums(intervals: &[Checked]) -> Sums {
    sums(intervals, |row| row.tc_source, |row| row.tc_dest)
}

/// Over all files.
pub(super) fn nflog_sums(intervals: &[Checked]) -> Sums {
    sums(intervals, |row| row.source, |row| row.dest)
}

pub(super) fn sums(
    intervals: &[Checked],
    source: fn(&CheckedRow) -> Count,
    dest: fn(&CheckedRow) -> Count,
) -> Sums {
    let rows = |is_ip4: bool| {
        let rows = intervals.iter().flat_map(|interval| &interval.rows);
        rows.filter(move |row| row.ip.is_ipv4() == is_ip4)
    };
    Sums {
        source4: sum(rows(true), source),
        source6: sum(rows(false), source),
        dest4: sum(rows(true), dest),
        dest6: sum(rows(false), dest),
    }
}

/// Packets that the group is known to have lost.
pub(super) fn lost(intervals: &[Checked], group: u16) -> u64 {
    let groups = intervals.iter().flat_map(|interval| &interval.groups);
    groups
        .filter(|one| one.group == group)
        .map(|group| group.lost)
        .sum()
}
