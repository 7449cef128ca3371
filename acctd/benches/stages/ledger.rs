//! Counting on its own: keys → counters. With no work between the packets, a processor overlaps their
//! cache misses by itself; what the ledger's batches bring shows in `absorb`, a factor of four.

use acctd::count::ledger::{Index, Ledger};
use acctd::model::prefix::PrefixKey;
use criterion::{BatchSize, Criterion};

use crate::{MANY, shuffled};

pub(crate) fn bench(criterion: &mut Criterion) {
    bench_key::<u32>(criterion, "u32");
    bench_key::<u64>(criterion, "u64");
    bench_key::<u128>(criterion, "u128");
}

fn bench_key<K: PrefixKey>(criterion: &mut Criterion, name: &str) {
    for n_prefixes in crate::POPULATIONS {
        let mut ledger = Ledger::new(usize::MAX, Index::default());
        ledger.add(&packets::<K>(0..n_prefixes));
        let n = n_prefixes.max(65_536);
        let order = shuffled(n_prefixes).into_iter().cycle();
        let packets = packets::<K>(order.take(n as usize));
        let name = format!("{name}, {n_prefixes} known");
        crate::measure(criterion, "ledger", name, n, |bencher| {
            bencher.iter(|| ledger.add(&packets));
        });
        assert_eq!(ledger.close().0.len(), n_prefixes as usize);
    }
    let packets = packets::<K>(shuffled(MANY));
    let name = format!("{name}, {MANY} new");
    crate::measure(criterion, "ledger", name, MANY, |bencher| {
        bencher.iter_batched_ref(
            || Ledger::new(usize::MAX, Index::default()),
            |ledger| ledger.add(&packets),
            BatchSize::PerIteration,
        );
    });
}

fn packets<K: PrefixKey>(prefixes: impl IntoIterator<Item = u32>) -> Vec<(K, u64)> {
    let prefixes = prefixes.into_iter();
    prefixes.map(|number| (crate::key(number), 100)).collect()
}
