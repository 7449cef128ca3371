//! The closed ledgers of all groups → the rows of one file, sorted: IPv4 before IPv6, each by address. The ledgers
//! are sorted in place and merged during the write, so a file needs no further memory.

use acctd_common::Counters;
use itertools::Itertools;

use crate::model::closed_interval::ClosedInterval;
use crate::model::prefix::{PrefixKey, Side};
use crate::model::row::{KernelRow, Row};
use crate::model::stored_key::StoredKey;
use crate::model::verdict::Verdict;

impl ClosedInterval {
    /// The rows in order, each prefix once.
    pub fn rows(&mut self) -> impl Iterator<Item = Row> {
        self.sort();
        // All IPv6 groups have the same prefix length, so at most one of the last two has entries.
        self.rows_of::<u32>()
            .chain(self.rows_of::<u64>())
            .chain(self.rows_of::<u128>())
    }

    fn rows_of<K: StoredKey>(&self) -> impl Iterator<Item = Row> {
        self.parts::<K>()
            .kmerge_by(|one, other| one.0 < other.0)
            .map(|(key, sums)| Sums { key, sums })
            .coalesce(Sums::join)
            .map(|Sums { key, sums }| Row {
                address: key.address(),
                source: sums.source,
                dest: sums.dest,
                kernel: self.kernel.is_some().then_some(sums.kernel),
            })
    }

    /// Sorted streams of parts of rows.
    fn parts<K: StoredKey>(&self) -> impl Iterator<Item = Part<'_, K>> {
        let nflog = self.groups.iter().flat_map(|group| {
            let side = group.config.side;
            let ledgers = group.entries.iter().filter_map(K::entries);
            ledgers.map(move |entries| -> Part<'_, K> {
                Box::new(
                    entries
                        .iter()
                        .map(move |entry| (entry.key(), RowSums::nflog(side, entry.counters()))),
                )
            })
        });
        let kernel = self.kernel.iter().flat_map(|kernel| {
            let sides = [Side::Source, Side::Dest].into_iter();
            sides.flat_map(move |side| -> [Part<'_, K>; 3] {
                let counted = K::family(&kernel.counts).side(side);
                let findings = kernel.judgement.iter();
                let findings = findings.flat_map(move |judgement| K::findings(judgement, side));
                [
                    Box::new(
                        counted.totals.iter().map(move |entry| {
                            (entry.key(), RowSums::kernel(side, entry.counters()))
                        }),
                    ),
                    Box::new(counted.segments.iter().map(move |entry| {
                        (entry.key(), RowSums::segments(side, entry.counters()))
                    })),
                    Box::new(
                        findings.map(|finding| (finding.key, RowSums::verdict(finding.verdict))),
                    ),
                ]
            })
        });
        nflog.chain(kernel)
    }
}

/// A sorted stream of parts of rows.
type Part<'a, K> = Box<dyn Iterator<Item = (K, RowSums)> + 'a>;

struct Sums<K> {
    key: K,
    sums: RowSums,
}

impl<K: PrefixKey> Sums<K> {
    #[expect(
        clippy::result_large_err,
        reason = "required by itertools' coalesce: two rows that are not joined are not an error"
    )]
    fn join(mut self, other: Self) -> Result<Self, (Self, Self)> {
        if self.key != other.key {
            return Err((self, other));
        }
        self.sums.add(&other.sums);
        Ok(self)
    }
}

#[derive(Clone, Copy)]
struct RowSums {
    source: Counters,
    dest: Counters,
    kernel: KernelRow,
}

impl RowSums {
    const NONE: Self = Self {
        source: NOTHING,
        dest: NOTHING,
        kernel: KernelRow {
            source: NOTHING,
            dest: NOTHING,
            verdict: Verdict::Match,
            segments: [NOTHING; 2],
        },
    };

    fn nflog(side: Side, counters: Counters) -> Self {
        let mut sums = Self::NONE;
        match side {
            Side::Source => sums.source = counters,
            Side::Dest => sums.dest = counters,
        }
        sums
    }

    fn kernel(side: Side, counters: Counters) -> Self {
        let mut sums = Self::NONE;
        match side {
            Side::Source => sums.kernel.source = counters,
            Side::Dest => sums.kernel.dest = counters,
        }
        sums
    }

    fn segments(side: Side, counters: Counters) -> Self {
        let mut sums = Self::NONE;
        sums.kernel.segments[side as usize] = counters;
        sums
    }

    fn verdict(verdict: Verdict) -> Self {
        let mut sums = Self::NONE;
        sums.kernel.verdict = verdict;
        sums
    }

    fn add(&mut self, other: &Self) {
        self.source.add(other.source);
        self.dest.add(other.dest);
        self.kernel.source.add(other.kernel.source);
        self.kernel.dest.add(other.kernel.dest);
        self.kernel.verdict = self.kernel.verdict.max(other.kernel.verdict);
        for (own, other) in self.kernel.segments.iter_mut().zip(other.kernel.segments) {
            own.add(other);
        }
    }
}

const NOTHING: Counters = Counters {
    bytes: 0,
    packets: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::closed_interval::GroupInterval;
    use crate::model::counts::Counts;
    use crate::model::entries::{Entries, Entry};
    use crate::model::group::{GroupConfig, NflogGroup};
    use crate::model::interval::{Period, UnixNanos};
    use crate::model::prefix::{Family, PrefixLength};

    fn group(side: Side, family: Family, entries: Entries) -> GroupInterval {
        GroupInterval {
            config: GroupConfig {
                group: NflogGroup(1),
                side,
                prefix_length: PrefixLength::new(family, 32).unwrap(),
            },
            counts: Counts::default(),
            entries: vec![entries],
            loss_is_open: false,
        }
    }

    fn entry<K: PrefixKey>(key: K, bytes: u64) -> Entry<K> {
        Entry::new(key, Counters { bytes, packets: 1 })
    }

    #[test]
    fn rows_are_sorted_and_each_prefix_has_one() {
        let mut closed = ClosedInterval::new(
            Period {
                start: UnixNanos(0),
                end: UnixNanos(1),
            },
            vec![
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
        );
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
        assert_eq!(closed.rows().count(), 6, "rows can be read again");
    }
}
