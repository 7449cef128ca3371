//! What each stage of a packet's way takes, one at a time and without a kernel: so that a regression
//! is found, and its place with it, by anybody and without root. What acctd takes in all, with the
//! kernel's part, is in docs/design/packet-path.md.

use std::time::Duration;

use acctd::model::prefix::{Family, PrefixKey};
use criterion::{Bencher, Criterion, SamplingMode, Throughput};

mod absorb;
mod close;
mod csv;
mod datagram;
mod decode;
mod ledger;

/// One prefix; as many as fit the caches, about; as many as acctd is made for.
const POPULATIONS: [u32; 3] = [1, 65_536, MANY];
const MANY: u32 = 1_000_000;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    decode::bench(&mut criterion);
    absorb::bench(&mut criterion);
    ledger::bench(&mut criterion);
    close::bench(&mut criterion);
    csv::bench(&mut criterion);
    criterion.final_summary();
}

/// Measures what handles `n` packets or rows an iteration.
fn measure<N: TryInto<u64>>(
    criterion: &mut Criterion,
    group: &str,
    name: String,
    n: N,
    run: impl FnMut(&mut Bencher<'_>),
) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(n.try_into().unwrap_or(u64::MAX)));
    // The same number of iterations in each sample: criterion's other mode begins with one, two,
    // three … of them, and some take a quarter of a second.
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(name, run);
}

/// The first address of prefix `number`, a /32 or a /64; IPv4 in the first four bytes.
fn address(family: Family, number: u32) -> [u8; 16] {
    let mut address = [0; 16];
    match family {
        Family::Ip4 => address[..4].copy_from_slice(&(0x0a00_0000 + number).to_be_bytes()),
        Family::Ip6 => {
            address[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
            address[4..8].copy_from_slice(&number.to_be_bytes());
        }
    }
    address
}

/// The key of prefix `number`, in the order of numbers.
fn key<K: PrefixKey>(number: u32) -> K {
    K::from_address(&address(K::FAMILY, number))
}

/// The numbers below `n`, each once, in an order that no prefetcher follows, the same in each run.
fn shuffled(n: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..n).collect();
    let mut state: u64 = 1;
    for bound in (1..numbers.len()).rev() {
        // Knuth's MMIX generator; its upper half is random enough.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        numbers.swap(bound, (state >> 32) as usize % (bound + 1));
    }
    numbers
}
