//! The prefixes with the most traffic, of two copies of the readers' open intervals. Pure.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;

use acctd_common::Counters;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cli::top::Order;
use crate::count::slots::ClosedSlot;
use crate::model::entries::{Entries, Entry};
use crate::model::group::GroupConfig;
use crate::model::prefix::{PrefixKey, Side};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) n: usize,
    pub(crate) order: Order,
    /// Only prefixes in this one.
    pub(crate) filter: Option<IpNet>,
}

fn weight(order: Order, [inward, outward]: [Counters; 2]) -> u64 {
    match order {
        Order::Bytes => inward.bytes.saturating_add(outward.bytes),
        Order::In => inward.bytes,
        Order::Out => outward.bytes,
        Order::Packets => inward.packets.saturating_add(outward.packets),
    }
}

/// Rates, and the prefixes with the highest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Heaviest {
    /// Over how long the rates are.
    pub(crate) seconds: f64,
    /// Of all prefixes that the filter lets pass.
    pub(crate) all: Rates,
    pub(crate) prefixes: Vec<Prefix>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Prefix {
    /// As in the column `IP`.
    pub(crate) ip: IpAddr,
    #[serde(flatten)]
    pub(crate) rates: Rates,
    /// In the open intervals.
    pub(crate) in_bytes: u64,
    pub(crate) out_bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the names in the JSON")]
pub(crate) struct Rates {
    pub(crate) in_bytes_per_second: f64,
    pub(crate) out_bytes_per_second: f64,
    pub(crate) in_packets_per_second: f64,
    pub(crate) out_packets_per_second: f64,
}

impl Rates {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate is not exact, and fewer than 2^53 bytes pass in a moment"
    )]
    fn of([inward, outward]: [Counters; 2], seconds: f64) -> Self {
        let per_second = |number: u64| (number as f64 / seconds * 10.0).round() / 10.0;
        Self {
            in_bytes_per_second: per_second(inward.bytes),
            out_bytes_per_second: per_second(outward.bytes),
            in_packets_per_second: per_second(inward.packets),
            out_packets_per_second: per_second(outward.packets),
        }
    }
}

/// The open intervals of a group.
pub(crate) type Copied = (GroupConfig, Vec<ClosedSlot>);

const IN: usize = 0;
const OUT: usize = 1;

fn direction(group: &GroupConfig) -> usize {
    match group.side {
        Side::Dest => IN,
        Side::Source => OUT,
    }
}

/// How many prefixes of each group are looked at, for each that is asked for: one that is not among those of any group is
/// not among the heaviest, unless it is just behind them in several.
const CANDIDATES: usize = 4;

/// What was counted between both copies, of the same groups in the same order.
pub(crate) fn heaviest(before: &[Copied], now: &[Copied], seconds: f64, query: &Query) -> Heaviest {
    let mut all = [Counters::default(); 2];
    let mut candidates: HashMap<IpAddr, [[Counters; 2]; 2]> = HashMap::new();
    for (group, counted) in counted(before, now) {
        // The group's heaviest, the lightest of these on top.
        let mut largest: BinaryHeap<Reverse<(u64, IpAddr)>> = BinaryHeap::new();
        let direction = direction(group);
        counted.each(query.filter, |address, since, _| {
            all[direction].add(since);
            let mut both = [Counters::default(); 2];
            both[direction] = since;
            let weight = weight(query.order, both);
            if weight == 0 {
                return;
            }
            if largest.len() < query.n * CANDIDATES {
                largest.push(Reverse((weight, address)));
            } else if let Some(mut least) = largest.peek_mut()
                && least.0.0 < weight
            {
                *least = Reverse((weight, address));
            }
        });
        for Reverse((_, address)) in largest {
            candidates.entry(address).or_default();
        }
    }
    for (group, counted) in counted(before, now) {
        let direction = direction(group);
        counted.each(query.filter, |address, since, total| {
            if let Some([sums, totals]) = candidates.get_mut(&address) {
                sums[direction].add(since);
                totals[direction].add(total);
            }
        });
    }
    let mut sorted: Vec<_> = candidates.into_iter().collect();
    sorted.sort_unstable_by_key(|(address, [sums, _])| {
        (Reverse(weight(query.order, *sums)), *address)
    });
    sorted.truncate(query.n);
    let prefixes = sorted.into_iter().map(|(ip, [sums, totals])| Prefix {
        ip,
        rates: Rates::of(sums, seconds),
        in_bytes: totals[IN].bytes,
        out_bytes: totals[OUT].bytes,
    });
    Heaviest {
        seconds,
        all: Rates::of(all, seconds),
        prefixes: prefixes.collect(),
    }
}

/// An open interval of a group in both copies.
struct Counted<'c> {
    before: Option<&'c Entries>,
    now: &'c Entries,
}

fn counted<'c>(
    before: &'c [Copied],
    now: &'c [Copied],
) -> impl Iterator<Item = (&'c GroupConfig, Counted<'c>)> {
    now.iter()
        .zip(before)
        .flat_map(|((group, slots), (_, old))| {
            slots.iter().map(move |slot| {
                let same = old.iter().find(|it| it.index == slot.index);
                let counted = Counted {
                    before: same.map(|it| &it.entries),
                    now: &slot.entries,
                };
                (group, counted)
            })
        })
}

impl Counted<'_> {
    /// Calls `each` with each prefix that the filter lets pass: its address, what it had since the first copy, and all that
    /// it had.
    fn each(&self, filter: Option<IpNet>, mut each: impl FnMut(IpAddr, Counters, Counters)) {
        match (self.now, self.before) {
            (Entries::Ip4(now), Some(Entries::Ip4(before))) => {
                pairs(now, before, filter, &mut each);
            }
            (Entries::Ip6Half(now), Some(Entries::Ip6Half(before))) => {
                pairs(now, before, filter, &mut each);
            }
            (Entries::Ip6(now), Some(Entries::Ip6(before))) => {
                pairs(now, before, filter, &mut each);
            }
            (Entries::Ip4(now), _) => pairs(now, &[], filter, &mut each),
            (Entries::Ip6Half(now), _) => pairs(now, &[], filter, &mut each),
            (Entries::Ip6(now), _) => pairs(now, &[], filter, &mut each),
        }
    }
}

/// An open ledger only gets more entries, so an entry is at the same place in both copies; but for that of overflow, which
/// is the last.
fn pairs<K: PrefixKey>(
    now: &[Entry<K>],
    before: &[Entry<K>],
    filter: Option<IpNet>,
    each: &mut impl FnMut(IpAddr, Counters, Counters),
) {
    for (at, entry) in now.iter().enumerate() {
        let key = entry.key();
        let address = key.address();
        if filter.is_some_and(|filter| !filter.contains(&address)) {
            continue;
        }
        let is_same = |other: &&Entry<K>| other.key() == key;
        let overflow = before.last().filter(|_| key == K::ZERO);
        let old = before.get(at).filter(is_same).or(overflow).filter(is_same);
        let old = old.map(Entry::counters).unwrap_or_default();
        let total = entry.counters();
        let since = Counters {
            bytes: total.bytes.saturating_sub(old.bytes),
            packets: total.packets.saturating_sub(old.packets),
        };
        each(address, since, total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::counts::Counts;
    use crate::model::group::NflogGroup;
    use crate::model::interval::PeriodIndex;
    use crate::model::prefix::{Family, PrefixLength};

    const QUERY: Query = Query {
        n: 2,
        order: Order::Bytes,
        filter: None,
    };

    fn group(side: Side, slots: &[(i64, &[(u32, u64)])]) -> Copied {
        let entry = |&(key, packets): &(u32, u64)| {
            let bytes = packets * 100;
            Entry::new(key, Counters { bytes, packets })
        };
        let slot = |&(index, entries): &(i64, &[(u32, u64)])| ClosedSlot {
            index: PeriodIndex(index),
            entries: Entries::Ip4(entries.iter().map(entry).collect()),
            counts: Counts::default(),
        };
        let config = GroupConfig {
            group: NflogGroup(4),
            side,
            prefix_length: PrefixLength::new(Family::Ip4, 32).unwrap(),
        };
        (config, slots.iter().map(slot).collect())
    }

    fn shown(found: &Heaviest) -> Vec<(String, f64, f64, u64, u64)> {
        let prefixes = found.prefixes.iter().map(|it| {
            (
                it.ip.to_string(),
                it.rates.in_packets_per_second,
                it.rates.out_packets_per_second,
                it.in_bytes,
                it.out_bytes,
            )
        });
        prefixes.collect()
    }

    #[test]
    fn rates_are_what_was_counted_between_both_copies() {
        let before = [
            group(Side::Dest, &[(7, &[(1, 10), (2, 20), (3, 30)])]),
            group(Side::Source, &[(7, &[(2, 5)])]),
        ];
        // A new interval has begun, and the old one is still open.
        let now = [
            group(
                Side::Dest,
                &[(7, &[(1, 10), (2, 26), (3, 31)]), (8, &[(3, 1), (4, 1)])],
            ),
            group(Side::Source, &[(8, &[(4, 9), (2, 1)])]),
        ];
        let found = heaviest(&before, &now, 2.0, &QUERY);
        let all = Rates {
            in_bytes_per_second: 450.0,
            out_bytes_per_second: 500.0,
            in_packets_per_second: 4.5,
            out_packets_per_second: 5.0,
        };
        assert_eq!((found.seconds, found.all), (2.0, all));
        let expected = [
            ("0.0.0.4".to_owned(), 0.5, 4.5, 100, 900),
            ("0.0.0.2".to_owned(), 3.0, 0.5, 2_600, 100),
        ];
        assert_eq!(shown(&found), expected);
        let by_in = Query {
            order: Order::In,
            n: 3,
            ..QUERY
        };
        let order: Vec<String> = shown(&heaviest(&before, &now, 2.0, &by_in))
            .into_iter()
            .map(|it| it.0)
            .collect();
        assert_eq!(order, ["0.0.0.2", "0.0.0.3", "0.0.0.4"]);
        let filtered = Query {
            filter: Some("0.0.0.2/31".parse().unwrap()),
            ..QUERY
        };
        let found = heaviest(&before, &now, 2.0, &filtered);
        assert_eq!(found.all.in_bytes_per_second.to_string(), "400");
        assert_eq!(shown(&found)[1].0, "0.0.0.3");
    }

    /// The entry of overflow is the last one, and another prefix may come before it.
    #[test]
    fn overflow_is_a_prefix() {
        let before = [group(Side::Dest, &[(7, &[(1, 10), (0, 20)])])];
        let now = [group(Side::Dest, &[(7, &[(1, 10), (2, 1), (0, 25)])])];
        let found = heaviest(&before, &now, 1.0, &QUERY);
        assert_eq!(
            shown(&found),
            [
                ("0.0.0.0".to_owned(), 5.0, 0.0, 2_500, 0),
                ("0.0.0.2".to_owned(), 1.0, 0.0, 100, 0)
            ]
        );
    }
}
