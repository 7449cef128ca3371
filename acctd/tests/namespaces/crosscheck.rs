//! The kernel's own count beside NFLOG's: both are the nft counter's, and what they differ by has
//! its name.
//!
//! All names of tests begin with `crosscheck_`: by that word they are run on another object.
//!
//! - `attaching`: both ways, beside others, what is left behind, devices that go away.
//! - `counting`: complete rules, so all is `match`, whichever way the packets come.
//! - `devices`: macvlan devices above the interface, and a shaper behind it.
//! - `frames`: crafted byte by byte, with all that a parser can get wrong.
//! - `fuzz`: the same by chance.
//! - `interfaces`: those that come late, go elsewhere and come back, and programs put in front on them.
//! - `holes`: those that real networks have.
//! - `own_programs`: `--crosscheck-object`, and the other flags.
//! - `streams`: TCP, whose packets the kernel puts together and cuts up.
//! - `verdicts`: rules with a hole, packets logged twice, lost or not kept, each with its verdict.

mod attaching;
mod counting;
mod devices;
mod frames;
mod fuzz;
mod holes;
mod interfaces;
mod own_programs;
mod run;
mod streams;
mod verdicts;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use testkit::netns::Privilege;
use testkit::nft::{self, Count};
use testkit::traffic::TrafficArgs;
use testkit::veth::Veth;

pub(crate) use holes::flowtables;
pub(crate) use streams::main_from as stream_main_from;

use crate::Case;
use crate::rig::{Acctd, NONE, Rig};

pub(crate) fn cases() -> Vec<Case> {
    [
        counting::CASES,
        devices::CASES,
        frames::CASES,
        fuzz::CASES,
        streams::CASES,
        holes::CASES,
        verdicts::CASES,
        attaching::CASES,
        interfaces::CASES,
        own_programs::CASES,
    ]
    .concat()
}

/// The Ethernet header, which nft counts on the netdev hooks.
const LINK_HEADER: u64 = 14;

/// Every packet is logged: on ingress before routing for its source, on egress by the netdev hook for
/// its destination, on both links and in both directions.
const COMPLETE: &str = "
    table inet rig {
        counter in4 {}
        counter in6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter name in4 log group 5 snaplen 20 queue-threshold 500
            meta nfproto ipv6 counter name in6 log group 7 snaplen 40 queue-threshold 500
        }
    }
    table netdev rig {
        counter out4 {}
        counter out6 {}
        chain egress {
            type filter hook egress devices = { lan0, wan0 } priority 0
            meta protocol ip counter name out4 log group 4 snaplen 34 queue-threshold 500
            meta protocol ip6 counter name out6 log group 6 snaplen 54 queue-threshold 500
        }
    }";

/// The flags for [`COMPLETE`].
const BOTH_WAYS: [&str; 7] = [
    "-interval=1s",
    "-utc",
    "-ip4-src-group=5",
    "-ip6-src-group=7",
    "-ip4-dst-group=4",
    "-ip6-dst-group=6",
    "-crosscheck=lan0,wan0",
];

/// A router between two links, `lan0` and `wan0`: it forwards to 10.255.0.0/16 and `2001:db8:ff::/48`,
/// where all is dropped unseen.
struct Router {
    rig: Rig,
    _wan: Veth,
}

impl Router {
    fn new(rules: &str) -> Result<Self> {
        let rig = Rig::with_privilege(Privilege::Root)?;
        let wan = Veth::new(&rig.router, "wan0", &rig.wire, "wire1")?;
        let gateway = wan.far_mac.to_string();
        // A router reports the multicast groups that it listens to, at times of its own.
        rig.rules(
            "table inet quiet {
                chain output { type filter hook output priority 0; ip6 daddr ff00::/8 drop; }
            }",
        )?;
        for words in [
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            &format!("ip neigh add 10.254.0.2 lladdr {gateway} dev wan0"),
            &format!("ip neigh add fe80::2 lladdr {gateway} dev wan0"),
            "ip route add 10.255.0.0/16 via 10.254.0.2 dev wan0 onlink",
            "ip route add 2001:db8:ff::/48 via fe80::2 dev wan0 onlink",
        ] {
            rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
        }
        // What has been counted costs nothing more.
        nft::load(
            &rig.wire,
            "table netdev sink {
                chain ingress { type filter hook ingress device wire1 priority 0; drop; }
            }",
        )?;
        rig.rules(rules)?;
        Ok(Self { rig, _wan: wan })
    }

    /// Packets of mixed lengths from 10.1.0.0 on to 10.255.0.0 on.
    fn ip4(&self) -> Result<TrafficArgs> {
        Ok(mixed(self.rig.traffic("10.1.0.0/16", "10.255.0.0/16")?))
    }

    /// Packets of mixed lengths from `2001:db8:1::` on to `2001:db8:ff::` on, each in a /64 of its own.
    fn ip6(&self) -> Result<TrafficArgs> {
        Ok(mixed(
            self.rig.traffic("2001:db8:1::1/48", "2001:db8:ff::1/48")?,
        ))
    }

    /// What the four rules of [`COMPLETE`] have counted.
    fn truth(&self) -> Result<Sums> {
        Ok(Sums {
            source4: self.rig.counter("in4")?,
            source6: self.rig.counter("in6")?,
            dest4: self.egress_counter("out4")?,
            dest6: self.egress_counter("out6")?,
        })
    }

    /// A counter of the netdev table, without the link's headers.
    fn egress_counter(&self, name: &str) -> Result<Count> {
        let Count { packets, bytes } = self.rig.counter(name)?;
        Ok(Count {
            packets,
            bytes: bytes - packets * LINK_HEADER,
        })
    }

    fn acctd(&self, args: &[&str]) -> Result<Acctd> {
        self.rig.acctd(args)
    }
}

/// A thousand sources and half as many destinations, in packets of any length.
fn mixed(traffic: TrafficArgs) -> TrafficArgs {
    use testkit::traffic::Sizes;
    TrafficArgs {
        sources: 1_000,
        dests: 500,
        size: Sizes {
            min: 60,
            max: 1_400,
        },
        ..traffic
    }
}

/// The prefix that acctd accounts an address to by default.
fn prefix_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// A line of intervals.jsonl, and the file that it is about.
#[derive(Debug, Deserialize)]
struct Checked {
    file: String,
    lost: u64,
    late: u64,
    overruns: u64,
    bytes_are_lower_bound: bool,
    groups: Vec<Group>,
    crosscheck: CrossCheck,
    #[serde(skip)]
    rows: Vec<CheckedRow>,
}

#[derive(Debug, Deserialize)]
struct Group {
    group: u16,
    lost: u64,
}

/// The cross-check's part of the line.
#[derive(Debug, Deserialize)]
struct CrossCheck {
    interfaces: Vec<String>,
    tc_source_bytes: u64,
    tc_source_packets: u64,
    tc_dest_bytes: u64,
    tc_dest_packets: u64,
    missing_source_bytes: u64,
    missing_dest_bytes: u64,
    verdicts: BTreeMap<String, Tally>,
    allowed: u64,
    explained_by_fragments: u64,
    window_ms: u64,
    comparable: bool,
    uncounted: BTreeMap<String, Count>,
    worst: Vec<Worst>,
}

/// What has one verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
struct Tally {
    prefixes: u64,
    packets: u64,
    bytes: u64,
}

/// One of the largest differences.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Worst {
    ip: IpAddr,
    side: String,
    verdict: String,
    packets: i64,
    bytes: i64,
}

/// A row with all eleven columns.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CheckedRow {
    ip: IpAddr,
    source: Count,
    dest: Count,
    tc_source: Count,
    tc_dest: Count,
    verdict: String,
}

impl CheckedRow {
    /// Both counts are the same, on both sides.
    fn is_equal(&self) -> bool {
        (self.source, self.dest) == (self.tc_source, self.tc_dest)
    }
}

impl Checked {
    fn tally(&self, verdict: &str) -> Tally {
        self.crosscheck
            .verdicts
            .get(verdict)
            .copied()
            .unwrap_or_default()
    }

    fn uncounted(&self, reason: &str) -> Count {
        self.crosscheck
            .uncounted
            .get(reason)
            .copied()
            .unwrap_or_default()
    }

    fn row(&self, ip: IpAddr) -> Option<&CheckedRow> {
        self.rows.iter().find(|row| row.ip == ip)
    }

    /// The rows with this verdict.
    fn with_verdict(&self, verdict: &str) -> Vec<&CheckedRow> {
        self.rows
            .iter()
            .filter(|row| row.verdict == verdict)
            .collect()
    }

    /// The summary says what the rows say.
    fn ensure_consistent(&self) -> Result<()> {
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

/// All intervals of a run in order, each with its file.
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

fn checked(rig: &Rig) -> Result<Vec<Checked>> {
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

fn read_rows(rig: &Rig, file: &str) -> Result<Vec<CheckedRow>> {
    const HEADER: &str = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets,\
        TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict";
    let mut csv = csv::Reader::from_path(rig.log_directory().join(file))?;
    let header: Vec<&str> = csv.headers()?.iter().collect();
    ensure!(header.join(",") == HEADER, "{file}: {header:?}");
    let mut rows: Vec<CheckedRow> = Vec::new();
    for record in csv.into_records() {
        let record = record?;
        let count = |bytes: usize| -> Result<Count> {
            Ok(Count {
                packets: record[bytes + 1].parse()?,
                bytes: record[bytes].parse()?,
            })
        };
        rows.push(CheckedRow {
            ip: record[1].parse()?,
            source: count(2)?,
            dest: count(4)?,
            tc_source: count(6)?,
            tc_dest: count(8)?,
            verdict: record[10].to_owned(),
        });
    }
    ensure!(
        rows.windows(2).all(|pair| pair[0].ip < pair[1].ip),
        "{file}: rows are not in order"
    );
    Ok(rows)
}

fn sum<'a>(
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
struct Sums {
    source4: Count,
    source6: Count,
    dest4: Count,
    dest6: Count,
}

const NOTHING: Sums = Sums {
    source4: NONE,
    source6: NONE,
    dest4: NONE,
    dest6: NONE,
};

/// Over all files.
fn tc_sums(intervals: &[Checked]) -> Sums {
    sums(intervals, |row| row.tc_source, |row| row.tc_dest)
}

/// Over all files.
fn nflog_sums(intervals: &[Checked]) -> Sums {
    sums(intervals, |row| row.source, |row| row.dest)
}

fn sums(
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
fn lost(intervals: &[Checked], group: u16) -> u64 {
    let groups = intervals.iter().flat_map(|interval| &interval.groups);
    groups
        .filter(|one| one.group == group)
        .map(|group| group.lost)
        .sum()
}

/// TC = nft = NFLOG + lost, for the rules of [`COMPLETE`]: to the byte where nothing was lost.
fn ensure_totals(intervals: &[Checked], truth: Sums) -> Result<()> {
    let (tc, nflog) = (tc_sums(intervals), nflog_sums(intervals));
    ensure!(tc == truth, "TC {tc:?}\nis not nft {truth:?}");
    for (group, nflog, truth) in [
        (5, nflog.source4, truth.source4),
        (7, nflog.source6, truth.source6),
        (4, nflog.dest4, truth.dest4),
        (6, nflog.dest6, truth.dest6),
    ] {
        let lost = lost(intervals, group);
        ensure!(
            nflog.packets + lost == truth.packets && (lost > 0 || nflog == truth),
            "group {group}: NFLOG {nflog:?} and {lost} lost are not nft {truth:?}"
        );
    }
    Ok(())
}

/// Rules without a hole: all is `match`, or `lost` in a run in which something was.
fn ensure_no_false_verdict(intervals: &[Checked]) -> Result<()> {
    for interval in intervals {
        ensure!(
            interval.crosscheck.comparable,
            "{} of {:?} is not comparable",
            interval.file,
            intervals.iter().map(|one| &one.file).collect::<Vec<_>>()
        );
    }
    ensure_no_alarm(intervals, &[])
}

/// No verdict but `match`, these, and `lost` in a run in which something was.
fn ensure_no_alarm(intervals: &[Checked], others: &[&str]) -> Result<()> {
    let was_lost = intervals
        .iter()
        .any(|interval| interval.lost > 0 || interval.overruns > 0);
    for (at, interval) in intervals.iter().enumerate() {
        for row in &interval.rows {
            let verdict = row.verdict.as_str();
            ensure!(
                verdict == "match" || (was_lost && verdict == "lost") || others.contains(&verdict),
                "{} ({at} of {}): {row:?}, lost {}, late {}, {:?}",
                interval.file,
                intervals.len(),
                interval.lost,
                interval.late,
                interval.crosscheck
            );
        }
    }
    Ok(())
}

/// What is on ingress carries a common stamp: the same rows on both sides in every interval.
fn ensure_sources_equal(intervals: &[Checked]) -> Result<()> {
    for interval in intervals {
        for row in &interval.rows {
            ensure!(
                row.source == row.tc_source,
                "{}: {row:?}, lost {}, late {}",
                interval.file,
                interval.lost,
                interval.late
            );
        }
    }
    Ok(())
}
