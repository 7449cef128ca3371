//! Decoding and counting together, as a reader does it, where the prefixes are known.

use std::time::{Duration, Instant};

use acctd::count::accumulator::Accumulator;
use acctd::count::slots::Settings;
use acctd::model::group::NflogGroup;
use acctd::model::interval::Interval;
use acctd::model::prefix::{Family, PrefixLength, Side};
use criterion::Criterion;

use crate::datagram::{BYTES, Datagrams, RECEIVED, SIZES};

pub(crate) fn bench(criterion: &mut Criterion) {
    for (name, family, length) in [("ip4", Family::Ip4, 32), ("ip6/64", Family::Ip6, 64)] {
        for n_packets in SIZES {
            for n_prefixes in crate::POPULATIONS {
                let mut accumulator = accumulator(family, length);
                let mut datagrams = Datagrams::new(family, n_packets);
                // Each prefix at least once, and enough for a stable time where there are few.
                let n_datagrams = (n_prefixes.max(65_536) as usize).div_ceil(n_packets);
                // Making the datagrams is not in the time.
                let mut absorb = |mut prefixes: &mut dyn Iterator<Item = u32>| -> Duration {
                    let times = (0..n_datagrams).map(|_| {
                        let datagram = datagrams.next(&mut prefixes);
                        let start = Instant::now();
                        accumulator.absorb(datagram, RECEIVED);
                        start.elapsed()
                    });
                    times.sum()
                };
                absorb(&mut (0..n_prefixes).cycle());
                let mut prefixes = crate::shuffled(n_prefixes).into_iter().cycle();
                let name = format!("{name}, {n_packets} a datagram, {n_prefixes} known");
                let n = n_datagrams * n_packets;
                crate::measure(criterion, "absorb", name, n, |bencher| {
                    bencher.iter_custom(|times| (0..times).map(|_| absorb(&mut prefixes)).sum());
                });
                let counts = accumulator.totals();
                assert_eq!(counts.bytes, BYTES * counts.datagrams * n_packets as u64);
                assert_eq!((counts.lost, counts.late, counts.overflow), (0, 0, 0));
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "of constants")]
fn accumulator(family: Family, prefix_length: u8) -> Accumulator {
    let settings = Settings {
        group: NflogGroup(5),
        side: Side::Source,
        prefix_length: PrefixLength::new(family, prefix_length).expect("fits the family"),
        interval: Interval::new(Duration::from_secs(60)).expect("divides a day"),
        max_prefixes: usize::MAX,
        debug: false,
    };
    Accumulator::new(settings, RECEIVED)
}
