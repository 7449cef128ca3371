//! Rows → CSV, without a disk.

use std::io;

use acctd::model::columns::Columns;
use acctd::model::prefix::PrefixKey;
use acctd::model::row::{KernelRow, Row};
use acctd::model::verdict::Verdict;
use acctd::output::csv::write_rows;
use acctd_common::Counters;
use criterion::Criterion;

use crate::MANY;

pub(crate) fn bench(criterion: &mut Criterion) {
    bench_rows::<u32>(criterion, "ip4", Columns::Nflog);
    bench_rows::<u64>(criterion, "ip6/64", Columns::Nflog);
    bench_rows::<u32>(criterion, "ip4 cross-checked", Columns::CrossCheck);
}

fn bench_rows<K: PrefixKey>(criterion: &mut Criterion, name: &str, columns: Columns) {
    crate::measure(criterion, "csv", name.into(), MANY, |bencher| {
        bencher.iter(|| {
            let rows = (0..MANY).map(|number| row::<K>(number, columns));
            write_rows(io::sink(), "2027-01-15 08:00:00", rows, columns)
        });
    });
}

/// Numbers of one to nine digits.
fn row<K: PrefixKey>(number: u32, columns: Columns) -> Row {
    let counters = Counters {
        bytes: u64::from(number) * 100,
        packets: number.into(),
    };
    Row {
        address: crate::key::<K>(number).address(),
        source: counters,
        dest: counters,
        kernel: (columns >= Columns::CrossCheck).then_some(KernelRow {
            source: counters,
            dest: counters,
            verdict: Verdict::Match,
            segments: [Counters::default(); 2],
        }),
    }
}
