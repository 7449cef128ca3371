//! The closed ledgers of all groups → the rows of one file, sorted: IPv4 before IPv6, each by
//! address. The ledgers are sorted where they lie and merged while they are written, so a file
//! takes no memory beyond them.

use std::net::IpAddr;

use acctd_common::Counters;
use itertools::Itertools;

use crate::accumulator::Entries;
use crate::config::GroupConfig;
use crate::counts::Counts;
use crate::interval::Period;
use crate::ledger::Entry;
use crate::prefix::{PrefixKey, Side};

/// A period that is over, with all that was counted in it. Only [`crate::engine`] makes one,
/// from ledgers that their readers have let go of, so an open period cannot be written.
#[derive(Debug)]
pub struct ClosedInterval {
    /// The span it covers; the first and the last of a run are partial.
    pub period: Period,
    /// Each group's part.
    pub groups: Vec<GroupInterval>,
}

/// What one group counted in a period.
#[derive(Debug)]
pub struct GroupInterval {
    /// The group.
    pub config: GroupConfig,
    /// What happened to its packets.
    pub counts: Counts,
    /// Its prefixes, in ledgers each of which has a prefix once; none where no datagram came.
    pub entries: Vec<Entries>,
}

impl From<GroupConfig> for GroupInterval {
    /// Nothing counted yet.
    fn from(config: GroupConfig) -> Self {
        Self {
            config,
            counts: Counts::default(),
            entries: Vec::new(),
        }
    }
}

/// One row of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The prefix's address, its host bits zero.
    pub address: IpAddr,
    /// What groups that account the source counted for it.
    pub source: Counters,
    /// What groups that account the destination counted for it.
    pub dest: Counters,
}

impl ClosedInterval {
    /// The counters of all groups together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for group in &self.groups {
            sum.add(&group.counts);
        }
        sum
    }

    /// The rows in order, each prefix once.
    pub fn rows(&mut self) -> impl Iterator<Item = Row> {
        let (mut ip4, mut ip6_half, mut ip6) = (Vec::new(), Vec::new(), Vec::new());
        for group in &mut self.groups {
            let side = group.config.side;
            for ledger in &mut group.entries {
                match ledger {
                    Entries::Ip4(entries) => ip4.push((side, sorted(entries))),
                    Entries::Ip6Half(entries) => ip6_half.push((side, sorted(entries))),
                    Entries::Ip6(entries) => ip6.push((side, sorted(entries))),
                }
            }
        }
        // One prefix length serves all IPv6 groups, so at most one of the last two has entries.
        merge(ip4).chain(merge(ip6_half)).chain(merge(ip6))
    }
}

/// Linear where the entries are sorted already, as they are on a second try to write.
fn sorted<K: PrefixKey>(entries: &mut [Entry<K>]) -> &[Entry<K>] {
    entries.sort_unstable_by_key(Entry::key);
    entries
}

fn merge<K: PrefixKey>(parts: Vec<(Side, &[Entry<K>])>) -> impl Iterator<Item = Row> {
    parts
        .into_iter()
        .map(|(side, entries)| {
            entries
                .iter()
                .map(move |entry| (entry.key(), side, entry.counters()))
        })
        .kmerge_by(|one, other| one.0 < other.0)
        .map(|(key, side, counters)| {
            let (source, dest) = match side {
                Side::Source => (counters, Counters::default()),
                Side::Dest => (Counters::default(), counters),
            };
            (key, source, dest)
        })
        .coalesce(|mut one, other| {
            if one.0 != other.0 {
                return Err((one, other));
            }
            one.1.add(other.1);
            one.2.add(other.2);
            Ok(one)
        })
        .map(|(key, source, dest)| Row {
            address: key.address(),
            source,
            dest,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interval::UnixNanos;
    use crate::nflog_socket::NflogGroup;
    use crate::prefix::{Family, PrefixLength};

    fn group(side: Side, family: Family, entries: Entries) -> GroupInterval {
        GroupInterval {
            config: GroupConfig {
                group: NflogGroup(1),
                side,
                prefix_length: PrefixLength::new(family, 32).unwrap(),
            },
            counts: Counts::default(),
            entries: vec![entries],
        }
    }

    fn entry<K: PrefixKey>(key: K, bytes: u64) -> Entry<K> {
        Entry::new(key, Counters { bytes, packets: 1 })
    }

    #[test]
    fn rows_are_sorted_and_each_prefix_stands_once() {
        let mut closed = ClosedInterval {
            period: Period {
                start: UnixNanos(0),
                end: UnixNanos(1),
            },
            groups: vec![
                group(
                    Side::Dest,
                    Family::Ip6,
                    Entries::Ip6Half(vec![entry(5 << 32, 1), entry(2 << 32, 2)]),
                ),
                group(
                    Side::Source,
                    Family::Ip4,
                    Entries::Ip4(vec![entry(9, 10), entry(7, 20), entry(0, 1), entry(0, 2)]),
                ),
                // A second group of the same direction, and one of the other.
                group(Side::Source, Family::Ip4, Entries::Ip4(vec![entry(9, 5)])),
                group(
                    Side::Dest,
                    Family::Ip4,
                    Entries::Ip4(vec![entry(9, 3), entry(8, 4)]),
                ),
            ],
        };
        let text: Vec<String> = closed
            .rows()
            .map(|row| {
                format!(
                    "{} {}/{} {}/{}",
                    row.address,
                    row.source.bytes,
                    row.source.packets,
                    row.dest.bytes,
                    row.dest.packets
                )
            })
            .collect();
        assert_eq!(
            text,
            [
                "0.0.0.0 3/2 0/0",
                "0.0.0.7 20/1 0/0",
                "0.0.0.8 0/0 4/1",
                "0.0.0.9 15/2 3/1",
                "0:2:: 0/0 2/1",
                "0:5:: 0/0 1/1",
            ]
        );
        assert_eq!(closed.rows().count(), 6, "rows can be had again");
    }
}
