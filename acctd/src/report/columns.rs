//! Sums of samples, a column each: adding them up needs a look at no row.

use std::ops::Range;

use super::tally::Sum;

/// Of each sample: bytes and packets of the source, and of the destination.
pub(super) struct Columns {
    pub(super) counters: [Vec<u64>; 4],
    pub(super) n_rows: Vec<u64>,
    /// All others are zero.
    pub(super) used: Range<usize>,
}

impl Columns {
    pub(super) fn new(n: usize) -> Self {
        Self {
            counters: [0; 4].map(|_| vec![0; n]),
            n_rows: vec![0; n],
            used: 0..0,
        }
    }

    /// Rows of files that follow each other; `first` is the file of the first sample.
    pub(super) fn set(&mut self, file: usize, first: usize, columns: [&[i64]; 4]) {
        let skipped = first.saturating_sub(file);
        let start = file.saturating_sub(first);
        let end = (file + columns[0].len())
            .saturating_sub(first)
            .min(self.n_rows.len());
        if start >= end {
            return;
        }
        for (own, new) in self.counters.iter_mut().zip(columns) {
            for (own, new) in own[start..end].iter_mut().zip(&new[skipped..]) {
                *own = new.cast_unsigned();
            }
        }
        self.n_rows[start..end].fill(1);
        if self.used.is_empty() {
            self.used = start..end;
        }
        self.used = self.used.start.min(start)..self.used.end.max(end);
    }

    pub(super) fn append(&mut self, other: &Self) {
        let used = other.used.clone();
        let columns = self.counters.iter_mut().zip(&other.counters);
        let n_rows = (&mut self.n_rows, &other.n_rows);
        for (own, other) in columns.chain([n_rows]) {
            for (own, other) in own[used.clone()].iter_mut().zip(&other[used.clone()]) {
                *own += other;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        let used = std::mem::take(&mut self.used);
        for column in self.counters.iter_mut().chain([&mut self.n_rows]) {
            column[used.clone()].fill(0);
        }
    }

    pub(super) fn sum(&self, at: usize) -> Sum {
        let [source_bytes, source_packets, dest_bytes, dest_packets] = &self.counters;
        Sum::of(
            [dest_bytes[at], source_bytes[at]],
            [dest_packets[at], source_packets[at]],
        )
    }

    pub(super) fn total(&self, samples: Range<usize>) -> Sum {
        let [source_bytes, source_packets, dest_bytes, dest_packets] = &self.counters;
        let sum = |column: &[u64]| column[samples.clone()].iter().sum();
        Sum::of(
            [sum(dest_bytes), sum(source_bytes)],
            [sum(dest_packets), sum(source_packets)],
        )
    }
}
