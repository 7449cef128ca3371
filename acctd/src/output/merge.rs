//! Merges intervals that wait for the disk, to limit their memory. No packet is lost. Lost are the boundary between
//! two intervals, and in the last resort which of the smallest prefixes a packet belongs to.

use std::collections::VecDeque;

use crate::model::closed_interval::{ClosedInterval, GroupInterval};
use crate::model::entries::{Entries, fold, merge};

impl ClosedInterval {
    /// How many entries it has in memory.
    pub(crate) fn n_entries(&self) -> usize {
        let ledgers = self.groups.iter().flat_map(|group| &group.entries);
        let kernel = self.kernel.as_ref().map(|kernel| kernel.counts.n_entries());
        ledgers.map(Entries::len).sum::<usize>() + kernel.unwrap_or(0)
    }

    /// Merges the next interval into this one. With a cross-check, both must have their verdicts.
    pub(crate) fn append(&mut self, next: Self) {
        self.period.end = next.period.end;
        for group in next.groups {
            match self
                .groups
                .iter_mut()
                .find(|own| own.config == group.config)
            {
                Some(own) => own.append(group),
                None => self.groups.push(group),
            }
        }
        match (&mut self.kernel, next.kernel) {
            (Some(kernel), Some(next)) => kernel.append(next),
            (kernel @ None, next) => *kernel = next,
            (Some(_), None) => {}
        }
        self.gaps.extend(next.gaps);
        self.checkpoints.extend(next.checkpoints);
        self.n_merged += next.n_merged;
    }

    /// Keeps at most `limit` prefixes of each group, those with the most packets, and counts the others in the row of
    /// the zero address.
    pub(crate) fn fold(&mut self, limit: usize) {
        for group in &mut self.groups {
            for entries in &mut group.entries {
                group.counts.overflow += match entries {
                    Entries::Ip4(entries) => fold(entries, limit),
                    Entries::Ip6Half(entries) => fold(entries, limit),
                    Entries::Ip6(entries) => fold(entries, limit),
                };
            }
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.counts.fold(limit);
        }
    }
}

impl GroupInterval {
    fn append(&mut self, next: Self) {
        self.counts.add(&next.counts);
        self.loss_is_open |= next.loss_is_open;
        self.entries.extend(next.entries);
        let mut ledgers = std::mem::take(&mut self.entries).into_iter();
        let Some(mut all) = ledgers.next() else {
            return;
        };
        for ledger in ledgers {
            match (&mut all, ledger) {
                (Entries::Ip4(all), Entries::Ip4(more)) => merge(all, more),
                (Entries::Ip6Half(all), Entries::Ip6Half(more)) => merge(all, more),
                (Entries::Ip6(all), Entries::Ip6(more)) => merge(all, more),
                // One group has one prefix length.
                (_, other) => self.entries.push(other),
            }
        }
        self.entries.push(all);
    }
}

/// Which interval to merge with its next one: the neighbours with the fewest rows, so that no entry is moved often.
/// `None` if there are fewer than two.
pub(crate) fn smallest_neighbours(sizes: &VecDeque<usize>) -> Option<usize> {
    let pairs = sizes.iter().zip(sizes.iter().skip(1)).enumerate();
    pairs
        .min_by_key(|(_, (one, next))| **one + **next)
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use acctd_common::Counters;

    use super::*;
    use crate::model::counts::Counts;
    use crate::model::entries::Entry;
    use crate::model::group::{GroupConfig, NflogGroup};
    use crate::model::interval::{Period, UnixNanos};
    use crate::model::prefix::{Family, PrefixLength, Side};

    fn interval(start: i64, entries: &[(u32, u64)]) -> ClosedInterval {
        let entries: Vec<Entry<u32>> = entries
            .iter()
            .map(|&(key, packets)| {
                let bytes = 100 * packets;
                Entry::new(key, Counters { bytes, packets })
            })
            .collect();
        let packets = entries.iter().map(|entry| entry.counters().packets).sum();
        let period = Period {
            start: UnixNanos(start),
            end: UnixNanos(start + 1),
        };
        let group = GroupInterval {
            config: GroupConfig {
                group: NflogGroup(1),
                side: Side::Source,
                prefix_length: PrefixLength::new(Family::Ip4, 32).unwrap(),
            },
            counts: Counts {
                packets,
                bytes: 100 * packets,
                ..Counts::default()
            },
            entries: vec![Entries::Ip4(entries)],
            loss_is_open: false,
        };
        ClosedInterval::new(period, vec![group])
    }

    fn rows(interval: &mut ClosedInterval) -> Vec<(String, u64)> {
        interval
            .rows()
            .map(|row| (row.address.to_string(), row.source.packets))
            .collect()
    }

    #[test]
    fn neighbours_become_one_interval_with_each_prefix_once() {
        let mut one = interval(0, &[(9, 1), (7, 2)]);
        one.checkpoints = vec!["a".into()];
        let mut two = interval(1, &[(7, 3), (8, 4)]);
        two.checkpoints = vec!["b".into()];
        one.append(two);
        assert_eq!(one.period.end, UnixNanos(2));
        assert_eq!((one.n_merged, one.n_entries()), (2, 3));
        assert_eq!(one.checkpoints, ["a", "b"]);
        assert_eq!(one.counts().packets, 10);
        let expected = [("0.0.0.7", 5), ("0.0.0.8", 4), ("0.0.0.9", 1)];
        assert_eq!(rows(&mut one), expected.map(|(ip, n)| (ip.to_owned(), n)));
    }

    #[test]
    fn folding_keeps_the_largest_and_all_packets() {
        let mut one = interval(0, &[(0, 1), (1, 9), (2, 5), (3, 2), (4, 8)]);
        one.fold(3);
        let expected = [
            ("0.0.0.0", 3),
            ("0.0.0.1", 9),
            ("0.0.0.2", 5),
            ("0.0.0.4", 8),
        ];
        assert_eq!(rows(&mut one), expected.map(|(ip, n)| (ip.to_owned(), n)));
        assert_eq!(one.counts().overflow, 3);
        assert_eq!(one.counts().packets, 25);
    }

    #[test]
    fn the_smallest_neighbours_are_merged() {
        let at = |sizes: &[usize]| smallest_neighbours(&sizes.iter().copied().collect());
        assert_eq!(at(&[]), None);
        assert_eq!(at(&[1]), None);
        assert_eq!(at(&[8, 4, 2, 1]), Some(2));
        assert_eq!(at(&[1, 1, 1]), Some(0));
    }
}
