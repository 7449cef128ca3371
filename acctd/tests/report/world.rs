//! Intervals of random rows as acctd's files, what may be missing in them, and their sums and percentiles the long way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use chrono::{DateTime, TimeZone as _};
use chrono_tz::Tz;
use serde_json::json;

/// 2026-01-01 00:00 UTC.
pub(crate) const START: i64 = 1_767_225_600;
pub(crate) const MAX_PACKET: u64 = 65_535;

/// Numbers that repeat.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64, public domain.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// In, out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) bytes: [u64; 2],
    pub(crate) packets: [u64; 2],
}

impl Row {
    pub(crate) fn random(random: &mut Random) -> Self {
        // Of packets as they are: 40 to 1,500 bytes.
        let packets = [0, 0].map(|_| random.below(1_000));
        Self {
            bytes: packets.map(|packets| packets * (40 + random.below(1_460))),
            packets,
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        for direction in 0..2 {
            self.bytes[direction] += other.bytes[direction];
            self.packets[direction] += other.packets[direction];
        }
    }
}

/// An interval: its rows, and what its line in the journal says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interval {
    pub(crate) rows: BTreeMap<IpAddr, Row>,
    /// IPv4 in, out: packets.
    pub(crate) lost: [u64; 2],
    pub(crate) is_killed: bool,
    pub(crate) overflow: [u64; 2],
    pub(crate) is_removed: bool,
}

/// Intervals from `START` on.
pub(crate) struct World {
    pub(crate) start: i64,
    pub(crate) seconds: i64,
    pub(crate) intervals: Vec<Interval>,
}

impl World {
    pub(crate) fn random(
        random: &mut Random,
        start: i64,
        seconds: i64,
        n_intervals: usize,
        addresses: &[IpAddr],
    ) -> Self {
        let intervals = (0..n_intervals).map(|_| {
            let present: Vec<IpAddr> = addresses
                .iter()
                .copied()
                .filter(|_| random.below(4) > 0)
                .collect();
            Interval {
                rows: present
                    .into_iter()
                    .map(|address| (address, Row::random(random)))
                    .collect(),
                ..Interval::default()
            }
        });
        Self {
            start,
            seconds,
            intervals: intervals.collect(),
        }
    }

    pub(crate) fn write(&self, directory: &Path, zone: Tz) {
        let mut journal = String::new();
        for (at, interval) in self.intervals.iter().enumerate() {
            if interval.is_removed {
                continue;
            }
            let start = self.start + self.seconds * i64::try_from(at).unwrap();
            let moment = |unix: i64| -> DateTime<Tz> { zone.timestamp_opt(unix, 0).unwrap() };
            let (start, end) = (moment(start), moment(start + self.seconds));
            let mut stem = format!(
                "{}_{}",
                start.format("%Y-%m-%d-%H%M%S"),
                end.format("%Y-%m-%d-%H%M%S")
            );
            if directory.join(format!("{stem}.csv")).exists() {
                stem.push_str("-1");
            }
            let mut text = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n".to_owned();
            let mut sum = Row::default();
            for (address, row) in &interval.rows {
                let time = start.format("%Y-%m-%d %H:%M:%S");
                let ([inward, outward], [in_packets, out_packets]) = (row.bytes, row.packets);
                writeln!(
                    text,
                    "{time},{address},{outward},{out_packets},{inward},{in_packets}"
                )
                .unwrap();
                sum.add(*row);
            }
            fs::write(directory.join(format!("{stem}.csv")), text).unwrap();
            let group = |group: u16, version: u8, side: &str, direction: usize| {
                let (lost, overflow) = if version == 4 {
                    (interval.lost[direction], interval.overflow[direction])
                } else {
                    (0, 0)
                };
                json!({
                    "group": group, "ip_version": version, "side": side, "prefix_length": if version == 4 { 32 } else { 64 },
                    "lost": lost, "overflow": overflow, "without_length": 0, "truncated": 0, "malformed": 0,
                    "lost_is_complete": true,
                })
            };
            let mut line = json!({
                "start": start.to_rfc3339(), "end": end.to_rfc3339(), "file": format!("{stem}.csv"),
                "rows": interval.rows.len(), "source_bytes": sum.bytes[1], "dest_bytes": sum.bytes[0],
                "groups": [
                    group(4, 4, "Dest", 0), group(5, 4, "Source", 1), group(6, 6, "Dest", 0), group(7, 6, "Source", 1),
                ],
            });
            if interval.is_killed {
                let gap = json!({"start": start.to_rfc3339(), "end": moment(start.timestamp() + 1).to_rfc3339(), "groups": [4, 5], "cause": "killed"});
                line["gaps"] = json!([gap]);
            }
            writeln!(journal, "{line}").unwrap();
        }
        fs::write(directory.join("intervals.jsonl"), journal).unwrap();
    }

    pub(crate) fn total(&self, address: IpAddr) -> Row {
        let mut sum = Row::default();
        for row in self.intervals.iter().filter_map(|it| it.rows.get(&address)) {
            sum.add(*row);
        }
        sum
    }

    /// In bits per second, of samples of `n` intervals each.
    pub(crate) fn percentile(&self, address: Option<IpAddr>, form: &str, n: usize) -> u64 {
        let samples: Vec<[u64; 2]> = self
            .intervals
            .chunks(n)
            .map(|intervals| {
                let mut sum = Row::default();
                for interval in intervals {
                    let rows = interval
                        .rows
                        .iter()
                        .filter(|(it, _)| address.is_none_or(|address| address == **it));
                    rows.for_each(|(_, row)| sum.add(*row));
                }
                sum.bytes
            })
            .collect();
        let of = |value: fn(&[u64; 2]) -> u64| {
            let mut sorted: Vec<u64> = samples.iter().map(value).collect();
            sorted.sort_unstable();
            sorted[sorted.len() - 1 - sorted.len() * 5 / 100]
        };
        let bytes = match form {
            "in" => of(|it| it[0]),
            "out" => of(|it| it[1]),
            "max" => of(|it| it[0]).max(of(|it| it[1])),
            "sum" => of(|it| it[0] + it[1]),
            _ => of(|it| it[0].max(it[1])),
        };
        bytes * 8 / (u64::try_from(self.seconds).unwrap() * n as u64)
    }
}

pub(crate) fn addresses(n: u8) -> Vec<IpAddr> {
    let of = |at: u8| -> IpAddr {
        if at.is_multiple_of(4) {
            format!("2001:db8:{at}::").parse().unwrap()
        } else {
            format!("10.0.0.{at}").parse().unwrap()
        }
    };
    (0..n).map(of).collect()
}

/// Takes packets out of rows, and counts them as lost.
pub(crate) fn lose(interval: &mut Interval, addresses: &[IpAddr], random: &mut Random) {
    for address in addresses {
        let Some(row) = interval.rows.get_mut(address) else {
            continue;
        };
        for direction in 0..2 {
            let n = random.below(4).min(row.packets[direction]);
            let bytes = row.bytes[direction].min(n * random.below(MAX_PACKET + 1));
            row.packets[direction] -= n;
            row.bytes[direction] -= bytes;
            interval.lost[direction] += n;
        }
    }
}

/// Moves rows to 0.0.0.0.
pub(crate) fn overflow(interval: &mut Interval, addresses: &[IpAddr], random: &mut Random) {
    let mut sum = Row::default();
    for address in addresses {
        if random.below(2) == 0
            && let Some(row) = interval.rows.remove(address)
        {
            sum.add(row);
        }
    }
    interval
        .rows
        .entry("0.0.0.0".parse().unwrap())
        .or_default()
        .add(sum);
    for direction in 0..2 {
        interval.overflow[direction] += sum.packets[direction];
    }
}
