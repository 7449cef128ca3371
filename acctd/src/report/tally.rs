//! Adds up samples: for each line of the report its sums, and the samples that matter for its percentile.

use std::collections::HashMap;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use rayon::prelude::*;

use super::percentile::Samples;
use crate::cli::report::{Form, Percentile};
use crate::files::journal::{IN, Loss, OUT};
use crate::model::row::Row;
use crate::model::verdict::Verdict;

/// Whom a line of the report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Who {
    /// The sum of all lines.
    All,
    Prefix(IpAddr),
    /// Its number in the file of customers.
    Customer(usize),
    /// Addresses of no customer.
    Nobody,
    /// Its number on the command line.
    Host(usize),
}

pub(super) type ByWho<T> = HashMap<Who, T, FixedState>;

/// The lines of a part of the period.
#[derive(Debug, Default)]
pub(super) struct Lines {
    all: IndexMap<Who, Line, FixedState>,
    /// Samples have their rows in order, and most of them each time: the next row is of this line, or has to be looked for.
    next: usize,
}

/// What a line has.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) sum: Sum,
    /// The one or two quantities of the form.
    samples: [Samples; 2],
    /// The samples of `Loss` in which it has rows.
    present: Vec<u32>,
    /// For plots: the largest sample of each point, in and out. Empty if no plot is wanted.
    pub(super) points: Vec<(u32, [u64; 2])>,
}

/// How a line's samples are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) form: Form,
    percentile: Percentile,
    /// Of the part of the period.
    n_samples: u64,
    /// How many of the largest samples are needed.
    n_kept: usize,
}

impl Rule {
    pub(super) fn new(form: Form, percentile: Percentile, n_samples: u64) -> Self {
        let n_dropped = percentile.n_dropped(n_samples);
        Self {
            form,
            percentile,
            n_samples,
            n_kept: usize::try_from(n_dropped).unwrap_or(usize::MAX - 1) + 1,
        }
    }
}

/// Of rows: in, out.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) bytes: [u64; 2],
    pub(super) packets: [u64; 2],
    /// What the cross-check counted more, of rows that are uncovered.
    pub(super) uncovered: [u64; 2],
    /// Of rows whose verdict is `match`.
    pub(super) matched: [u64; 2],
}

impl Sum {
    /// Without a cross-check. In, out.
    pub(super) fn of(bytes: [u64; 2], packets: [u64; 2]) -> Self {
        Self {
            bytes,
            packets,
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, row: &Row) {
        let counted = [row.dest, row.source];
        for (direction, counted) in [IN, OUT].into_iter().zip(counted) {
            self.bytes[direction] += counted.bytes;
            self.packets[direction] += counted.packets;
        }
        let Some(kernel) = row.kernel else { return };
        let of_kernel = [kernel.dest, kernel.source];
        for direction in [IN, OUT] {
            let bytes = counted[direction].bytes;
            match kernel.verdict {
                Verdict::Match => self.matched[direction] += bytes,
                Verdict::Uncovered => {
                    self.uncovered[direction] += of_kernel[direction].bytes.saturating_sub(bytes);
                }
                Verdict::NotChecked | Verdict::Lost | Verdict::Extra => {}
            }
        }
    }

    pub(super) fn append(&mut self, other: &Self) {
        for direction in [IN, OUT] {
            self.bytes[direction] += other.bytes[direction];
            self.packets[direction] += other.packets[direction];
            self.uncovered[direction] += other.uncovered[direction];
            self.matched[direction] += other.matched[direction];
        }
    }
}

impl Lines {
    pub(super) fn of(&mut self, who: Who) -> &mut Line {
        let at = match self.all.get_index(self.next) {
            Some((next, _)) if *next == who => self.next,
            _ => {
                let entry = self.all.entry(who);
                let at = entry.index();
                entry.or_default();
                at
            }
        };
        self.next = at + 1;
        &mut self.all[at]
    }

    pub(super) fn get(&self, who: Who) -> Option<&Line> {
        self.all.get(&who)
    }

    /// In no order.
    pub(super) fn par_iter(&self) -> impl ParallelIterator<Item = (Who, &Line)> {
        self.all.par_iter().map(|(who, line)| (*who, line))
    }

    /// `other` has later samples, or others of the same ones.
    pub(super) fn append(&mut self, other: Self, rule: impl Fn(Who) -> Rule) {
        if self.all.is_empty() {
            *self = other;
            return;
        }
        self.all.reserve(other.all.len());
        for (who, line) in other.all {
            self.of(who).append(line, &rule(who));
        }
    }
}

impl Line {
    /// Adds to what the percentile is taken of. `loss` is what may be missing in the sample.
    pub(super) fn add_sample(
        &mut self,
        sum: &Sum,
        loss: &Loss,
        families: [bool; 2],
        number: u32,
        rule: &Rule,
    ) {
        let low = of_form(rule.form, sum.bytes);
        if loss.is_none() && sum.uncovered == [0, 0] {
            // Nothing is missing in most.
            for (samples, low) in self.samples.iter_mut().zip(low) {
                samples.add(low, Some(low), rule.n_kept);
            }
            return;
        }
        let missing = loss.of(families);
        let most = |direction: usize| {
            Some(
                sum.bytes[direction]
                    .saturating_add(sum.uncovered[direction])
                    .saturating_add(missing[direction]?),
            )
        };
        let high = most_of_form(rule.form, [most(IN), most(OUT)]);
        for ((samples, low), high) in self.samples.iter_mut().zip(low).zip(high) {
            samples.add(low, high, rule.n_kept);
        }
        if !loss.is_none() {
            self.present.push(number);
        }
    }

    /// Notes a sample for a plot. Points come in order.
    pub(super) fn add_point(&mut self, point: u32, bytes: [u64; 2]) {
        match self.points.last_mut() {
            Some((last, largest)) if *last == point => {
                for direction in [IN, OUT] {
                    largest[direction] = largest[direction].max(bytes[direction]);
                }
            }
            _ => self.points.push((point, bytes)),
        }
    }

    /// `other` has later samples.
    pub(super) fn append(&mut self, other: Self, rule: &Rule) {
        self.sum.append(&other.sum);
        for (own, other) in self.samples.iter_mut().zip(other.samples) {
            own.append(other, rule.n_kept);
        }
        self.present.extend(other.present);
        for (point, bytes) in other.points {
            self.add_point(point, bytes);
        }
    }

    /// Bytes in and out that it may have at most; `None` if nothing bounds them. `losses` are those of all samples.
    pub(super) fn most(&self, losses: &[(u32, Loss)], families: [bool; 2]) -> [Option<u64>; 2] {
        [IN, OUT].map(|direction| {
            let counted = self.sum.bytes[direction].saturating_add(self.sum.uncovered[direction]);
            let mut missing = losses.iter().map(|(_, loss)| loss.of(families)[direction]);
            missing.try_fold(counted, |sum, missing| Some(sum.saturating_add(missing?)))
        })
    }

    /// The percentile of bytes in a sample: at least, and at most. `losses` are sorted by their samples.
    pub(super) fn percentile(
        &self,
        losses: &[(u32, Loss)],
        families: [bool; 2],
        rule: &Rule,
    ) -> (u64, Option<u64>) {
        let mut present = self.present.clone();
        present.sort_unstable();
        let mut absent: [Vec<u64>; 2] = [Vec::new(), Vec::new()];
        let mut n_unbounded = [0; 2];
        for (number, loss) in losses {
            let is_present = present.binary_search(number).is_ok();
            for (at, most) in most_of_form(rule.form, loss.of(families))
                .into_iter()
                .enumerate()
            {
                match most {
                    None => n_unbounded[at] += 1,
                    Some(_) if is_present => {}
                    Some(most) => absent[at].push(most),
                }
            }
        }
        let n_dropped = rule.percentile.n_dropped(rule.n_samples);
        let n_quantities = if rule.form == Form::Max { 2 } else { 1 };
        let of_each = self
            .samples
            .iter()
            .zip(absent)
            .zip(n_unbounded)
            .take(n_quantities);
        let bounds = of_each.map(|((samples, absent), n_unbounded)| {
            samples.bounds(n_dropped, absent.into_iter(), n_unbounded)
        });
        bounds.fold((0, Some(0)), |(low, high), (more_low, more_high)| {
            let high = high.zip(more_high).map(|(a, b)| a.max(b));
            (low.max(more_low), high)
        })
    }
}

/// The one or two quantities of a sample, of which percentiles are taken; the larger percentile counts.
fn of_form(form: Form, [inward, outward]: [u64; 2]) -> [u64; 2] {
    match form {
        Form::In => [inward, 0],
        Form::Out => [outward, 0],
        Form::Max => [inward, outward],
        Form::Sum => [inward.saturating_add(outward), 0],
        Form::SampleMax => [inward.max(outward), 0],
    }
}

/// The same, of what a sample has at most; `None` is without bounds.
fn most_of_form(form: Form, most: [Option<u64>; 2]) -> [Option<u64>; 2] {
    let bounded = of_form(form, most.map(Option::unwrap_or_default));
    let [has_in, has_out] = most.map(|it| it.is_some());
    let is_bounded = match form {
        Form::In => [has_in, true],
        Form::Out => [has_out, true],
        Form::Max => [has_in, has_out],
        Form::Sum | Form::SampleMax => [has_in && has_out, true],
    };
    [0, 1].map(|at| is_bounded[at].then_some(bounded[at]))
}

/// A map of lines.
pub(super) fn by_who<T>() -> ByWho<T> {
    HashMap::with_hasher(FixedState::default())
}
