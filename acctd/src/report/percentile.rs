//! A percentile of samples, and its bounds where samples are incomplete.
//!
//! The definition: sort the samples in ascending order, drop the largest (100 - P) % of them, rounded down, and take the
//! largest that is left. Of 8,640 samples (30 days of 5 minutes) the 95th percentile drops 432 and is the 433rd largest.
//! A sample without a row is 0, and counts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The largest values that were added, up to a number. No other value matters for a percentile.
#[derive(Clone, Debug, Default)]
pub(super) struct Largest {
    heap: BinaryHeap<Reverse<u64>>,
    /// A value that is not above this changes nothing. Most are not, and need no look at the heap.
    least: u64,
}

impl Largest {
    /// Adds a value, of which the `n` largest are kept. Zeros are what is missing anyway.
    pub(super) fn add(&mut self, value: u64, n: usize) {
        if value <= self.least {
            return;
        }
        if self.heap.len() < n {
            self.heap.push(Reverse(value));
        } else if let Some(mut smallest) = self.heap.peek_mut() {
            smallest.0 = value;
        }
        if self.heap.len() == n
            && let Some(smallest) = self.heap.peek()
        {
            self.least = smallest.0;
        }
    }

    pub(super) fn append(&mut self, other: Self, n: usize) {
        for Reverse(value) in other.heap {
            self.add(value, n);
        }
    }
}

/// A line's samples of one quantity: at least, and at most so much. Equal unless a sample is incomplete.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples {
    low: Largest,
    /// `None` while all are equal.
    high: Option<Box<Largest>>,
}

impl Samples {
    /// Adds a sample, of which it is known that it has at least `low`, and at most `high`; `None` if nothing bounds it.
    pub(super) fn add(&mut self, low: u64, high: Option<u64>, n: usize) {
        if high != Some(low) && self.high.is_none() {
            self.high = Some(Box::new(self.low.clone()));
        }
        self.low.add(low, n);
        if let (Some(own), Some(high)) = (&mut self.high, high) {
            own.add(high, n);
        }
    }

    pub(super) fn append(&mut self, other: Self, n: usize) {
        if let Some(high) = other.high {
            let own = self.high.get_or_insert_with(|| Box::new(self.low.clone()));
            own.append(*high, n);
        } else if let Some(own) = &mut self.high {
            own.append(other.low.clone(), n);
        }
        self.low.append(other.low, n);
    }

    /// The value after the `n_dropped` largest: at least, and at most; `None` if nothing bounds it. `absent` are samples
    /// that were not added, as they have no row, but may have so much; `n_unbounded` others may have anything.
    pub(super) fn bounds(
        &self,
        n_dropped: u64,
        absent: impl Iterator<Item = u64>,
        n_unbounded: u64,
    ) -> (u64, Option<u64>) {
        let low = nth(self.low.heap.iter().map(|it| it.0), n_dropped);
        let Some(n_left) = n_dropped.checked_sub(n_unbounded) else {
            return (low, None);
        };
        let known = self.high.as_deref().unwrap_or(&self.low);
        let all = known.heap.iter().map(|it| it.0).chain(absent);
        (low, Some(nth(all, n_left).max(low)))
    }
}

/// The value after the `n` largest; 0 if there are no more.
fn nth(values: impl Iterator<Item = u64>, n: u64) -> u64 {
    let mut all: Vec<u64> = values.collect();
    all.sort_unstable_by_key(|value| Reverse(*value));
    usize::try_from(n)
        .ok()
        .and_then(|n| all.get(n).copied())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cli::report::Percentile;

    #[test]
    fn of_8640_samples_the_95th_is_the_433rd_largest() {
        let percentile: Percentile = "95".parse().unwrap();
        assert_eq!(percentile.n_dropped(8_640), 432);
        // Months of 28 to 31 days, and those in which the clock changes.
        for (hours, dropped) in [
            (672, 403),
            (696, 417),
            (720, 432),
            (744, 446),
            (743, 445),
            (721, 432),
        ] {
            assert_eq!(percentile.n_dropped(hours * 12), dropped);
        }
        let mut samples = Samples::default();
        for value in (1..=8_640).rev() {
            samples.add(value, Some(value), 433);
        }
        assert_eq!(
            samples.bounds(432, std::iter::empty(), 0),
            (8_208, Some(8_208))
        );
    }

    /// A sample: its known part, what is missing at most, and whether it has a row.
    fn sample() -> impl Strategy<Value = (u64, u64, bool)> {
        (
            0..100_u64,
            prop_oneof![3 => Just(0), 1 => 0..100_u64],
            any::<bool>(),
        )
    }

    proptest! {
        /// Also if two threads have added them.
        #[test]
        fn bounds_are_those_of_all_samples_sorted(
            all in prop::collection::vec(sample(), 1..60),
            n_unbounded in 0..4_usize,
            percent in 1..=100_u32,
        ) {
            let n_dropped = Percentile(percent * 100).n_dropped(all.len() as u64);
            let n = usize::try_from(n_dropped).unwrap() + 1;
            let n_unbounded = n_unbounded.min(all.len());
            let mut halves = [Samples::default(), Samples::default()];
            let mut absent = Vec::new();
            let (mut low, mut high) = (Vec::new(), Vec::new());
            for (at, &(known, missing, has_row)) in all.iter().enumerate() {
                let known = if has_row { known } else { 0 };
                let is_unbounded = at < n_unbounded;
                low.push(known);
                high.push(if is_unbounded { u64::MAX } else { known + missing });
                if has_row {
                    let most = (!is_unbounded).then_some(known + missing);
                    halves[at % 2].add(known, most, n);
                } else if !is_unbounded {
                    absent.push(missing);
                }
            }
            let [mut samples, other] = halves;
            samples.append(other, n);
            let sorted = |mut values: Vec<u64>| {
                values.sort_unstable_by_key(|value| Reverse(*value));
                values[usize::try_from(n_dropped).unwrap().min(values.len() - 1)]
            };
            let expected_low = if n_dropped == all.len() as u64 { 0 } else { sorted(low) };
            let highest = sorted(high);
            let bounds = samples.bounds(n_dropped, absent.into_iter(), n_unbounded as u64);
            prop_assert_eq!(bounds.0, expected_low);
            prop_assert_eq!(bounds.1, (highest != u64::MAX).then_some(highest));
        }
    }
}
