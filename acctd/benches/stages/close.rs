//! Closed ledgers → rows: the sort, the verdicts of a cross-check, the merge.

use std::hint::black_box;

use acctd::crosscheck::verdicts::Judge;
use acctd::model::closed_interval::{ClosedInterval, GroupInterval, KernelInterval};
use acctd::model::entries::{Entries, Entry};
use acctd::model::group::{GroupConfig, NflogGroup};
use acctd::model::interval::Period;
use acctd::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use acctd_common::Counters;
use criterion::{BatchSize, Criterion};

use crate::MANY;
use crate::datagram::RECEIVED;

const SIDES: [Side; 2] = [Side::Source, Side::Dest];

pub(crate) fn bench(criterion: &mut Criterion) {
    bench_sort(criterion, "ip4", Entries::Ip4);
    bench_sort(criterion, "ip6/64", Entries::Ip6Half);
    bench_sort(criterion, "ip6/128", Entries::Ip6);

    // Two groups with the same prefixes, as where every host answers.
    let both = || SIDES.map(|side| (side, Entries::Ip4(entries())));
    bench_merge(criterion, "ip4", interval(both()));
    let mut kernel = KernelInterval {
        is_comparable: true,
        ..KernelInterval::default()
    };
    for side in SIDES {
        kernel.counts.ip4.side_mut(side).totals = entries();
    }
    let mut checked = interval(both());
    checked.kernel = Some(kernel);
    checked.sort();
    crate::measure(criterion, "close", "judge ip4".into(), MANY, |bencher| {
        bencher.iter(|| Judge::default().judge(&mut checked));
    });
    bench_merge(criterion, "ip4 cross-checked", checked);
}

fn bench_sort<K: PrefixKey>(
    criterion: &mut Criterion,
    name: &str,
    variant: fn(Vec<Entry<K>>) -> Entries,
) {
    crate::measure(
        criterion,
        "close",
        format!("sort {name}"),
        MANY,
        |bencher| {
            bencher.iter_batched_ref(
                || interval([(Side::Source, variant(entries()))]),
                ClosedInterval::sort,
                BatchSize::PerIteration,
            );
        },
    );
}

fn bench_merge(criterion: &mut Criterion, name: &str, mut interval: ClosedInterval) {
    // Sorts it, too.
    assert_eq!(interval.rows().count(), MANY as usize);
    crate::measure(
        criterion,
        "close",
        format!("merge {name}"),
        MANY,
        |bencher| {
            bencher.iter(|| interval.rows().map(black_box).for_each(drop));
        },
    );
}

/// In random order.
fn entries<K: PrefixKey>() -> Vec<Entry<K>> {
    let counters = Counters {
        bytes: 100,
        packets: 1,
    };
    let numbers = crate::shuffled(MANY).into_iter();
    numbers
        .map(|number| Entry::new(crate::key(number), counters))
        .collect()
}

#[expect(clippy::expect_used, reason = "of constants")]
fn interval(ledgers: impl IntoIterator<Item = (Side, Entries)>) -> ClosedInterval {
    let groups = ledgers.into_iter().map(|(side, entries)| GroupInterval {
        entries: vec![entries],
        ..GroupInterval::from(GroupConfig {
            group: NflogGroup(5),
            side,
            // Entries are masked already; a judge looks at the family.
            prefix_length: PrefixLength::new(Family::Ip4, 0).expect("fits the family"),
        })
    });
    let period = Period {
        start: RECEIVED,
        end: RECEIVED,
    };
    ClosedInterval::new(period, groups.collect())
}
