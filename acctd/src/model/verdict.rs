//! The verdicts of the cross-check on prefixes, and their summary for an interval.

use std::cmp::Reverse;
use std::net::IpAddr;

use acctd_common::Counters;

use crate::model::prefix::Side;

/// The verdict on a prefix in an interval. Ordered by severity: the maximum of two is the worse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// NFLOG counted what the kernel counted, except for differences that are explained.
    Match,
    /// One of the two could not count all packets, and this may explain the difference.
    NotChecked,
    /// NFLOG counted less, and is known to have lost at least as much.
    Lost,
    /// NFLOG counted more: packets were logged twice, or passed another interface.
    Extra,
    /// The kernel counted more than the rules logged.
    Uncovered,
}

impl Verdict {
    /// All verdicts, the mildest first.
    pub const ALL: [Self; 5] = [
        Self::Match,
        Self::NotChecked,
        Self::Lost,
        Self::Extra,
        Self::Uncovered,
    ];

    /// Its name as a field of JSON and a label of metrics.
    #[must_use]
    pub fn field_name(self) -> &'static str {
        match self {
            Self::NotChecked => "not_checked",
            verdict => verdict.text(),
        }
    }

    /// Its name in the column `Verdict` and in log lines.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::NotChecked => "not checked",
            Self::Lost => "lost",
            Self::Extra => "extra",
            Self::Uncovered => "uncovered",
        }
    }
}

impl Verdict {
    /// The verdict of a column's text.
    pub(crate) fn of_text(text: &[u8]) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|verdict| verdict.text().as_bytes() == text)
    }
}

/// The kernel's count minus NFLOG's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Packets.
    pub packets: i64,
    /// Bytes.
    pub bytes: i64,
}

/// A prefix that does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding<K> {
    /// The prefix.
    pub key: K,
    /// Never [`Verdict::Match`].
    pub verdict: Verdict,
    /// The part of the difference that is certain. The sum over all intervals is what is missing or too much.
    /// Exception: while a loss is open, each [`Verdict::Lost`] has all that waits.
    pub difference: Difference,
}

/// The verdicts on an interval: all but `match`, in order of prefixes.
#[derive(Debug, Default)]
pub struct Judgement {
    pub(crate) ip4: [Vec<Finding<u32>>; 2],
    pub(crate) ip6_half: [Vec<Finding<u64>>; 2],
    pub(crate) ip6: [Vec<Finding<u128>>; 2],
    /// Sums over the verdicts.
    pub summary: VerdictSummary,
}

impl Judgement {
    pub(crate) fn append(&mut self, next: Self) {
        append_findings(&mut self.ip4, next.ip4);
        append_findings(&mut self.ip6_half, next.ip6_half);
        append_findings(&mut self.ip6, next.ip6);
        self.summary.append(next.summary);
    }
}

/// A prefix may have a verdict in each interval; its row shows the worst.
fn append_findings<K: Ord + Copy>(own: &mut [Vec<Finding<K>>; 2], next: [Vec<Finding<K>>; 2]) {
    for (own, next) in own.iter_mut().zip(next) {
        own.extend(next);
        own.sort_unstable_by_key(|finding| finding.key);
    }
}

/// The summary of an interval's verdicts. Each side of a prefix counts separately.
#[derive(Clone, Debug, Default)]
pub struct VerdictSummary {
    /// By verdict: the prefixes and their differences. For `match`: what the kernel counted.
    pub tallies: [Tally; Verdict::ALL.len()],
    /// The same by side, without matches, and what the kernel counted.
    pub sides: [SideSummary; 2],
    /// Prefixes that match only if the uncertain window is allowed for.
    pub n_allowed: u64,
    /// Prefixes that match only if reassembled fragments are allowed for.
    pub n_explained_by_fragments: u64,
    /// The widest uncertain window. Zero if both counts use the same time stamp for all packets.
    pub window_nanos: u64,
    /// The findings with the largest differences, the worst verdicts first.
    pub worst: Vec<WorstFinding>,
}

impl VerdictSummary {
    /// The worst verdict on any prefix.
    #[must_use]
    pub fn worst_verdict(&self) -> Option<Verdict> {
        let mut all = Verdict::ALL.into_iter().rev();
        all.find(|verdict| self.tallies[*verdict as usize].prefixes > 0)
    }
}

/// Prefixes and amounts with the same verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Prefixes.
    pub prefixes: u64,
    /// The size of their differences, without signs.
    pub amount: Counters,
}

/// The part of a [`VerdictSummary`] for one side.
#[derive(Clone, Debug, Default)]
pub struct SideSummary {
    /// By verdict.
    pub tallies: [Tally; Verdict::ALL.len()],
    /// All that the kernel counted.
    pub kernel: Counters,
    /// Packets in `kernel` whose IP header has no length, with the bytes of their frames. Both counts have these
    /// packets, but not their bytes.
    pub without_length: Counters,
    /// What packets in `kernel` are more on the wire, as several segments. `None` if the program does not count it.
    pub segments: Option<Counters>,
}

impl SideSummary {
    /// The packets and bytes of `kernel` as they are on the wire.
    #[must_use]
    pub fn wire(&self) -> Option<Counters> {
        let mut wire = self.segments?;
        wire.add(self.kernel);
        Some(wire)
    }
}

/// A [`Finding`] with its address and side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorstFinding {
    /// The prefix's address.
    pub address: IpAddr,
    /// The side that does not match.
    pub side: Side,
    /// Never [`Verdict::Match`].
    pub verdict: Verdict,
    /// The part that is certain.
    pub difference: Difference,
}

/// How many of the worst findings are kept.
pub(crate) const N_WORST: usize = 10;

fn add_tallies(own: &mut [Tally], next: [Tally; Verdict::ALL.len()]) {
    for (own, next) in own.iter_mut().zip(next) {
        own.add(next);
    }
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.prefixes += other.prefixes;
        self.amount.add(other.amount);
    }
}

/// A difference without its sign.
#[must_use]
pub fn magnitude(difference: Difference) -> Counters {
    Counters {
        bytes: difference.bytes.unsigned_abs(),
        packets: difference.packets.unsigned_abs(),
    }
}

impl VerdictSummary {
    /// Adds the next interval's. A prefix counts once per interval.
    pub fn append(&mut self, next: Self) {
        add_tallies(&mut self.tallies, next.tallies);
        for (own, next) in self.sides.iter_mut().zip(next.sides) {
            add_tallies(&mut own.tallies, next.tallies);
            own.kernel.add(next.kernel);
            own.without_length.add(next.without_length);
            if let Some(next) = next.segments {
                own.segments.get_or_insert_default().add(next);
            }
        }
        self.n_allowed += next.n_allowed;
        self.n_explained_by_fragments += next.n_explained_by_fragments;
        self.window_nanos = self.window_nanos.max(next.window_nanos);
        self.worst.extend(next.worst);
        self.keep_worst();
    }

    pub(crate) fn tally_mut(&mut self, verdict: Verdict) -> &mut Tally {
        &mut self.tallies[verdict as usize]
    }

    pub(crate) fn keep_worst(&mut self) {
        self.worst.sort_unstable_by_key(|finding| {
            let amount = magnitude(finding.difference);
            Reverse((finding.verdict, amount.bytes, amount.packets))
        });
        self.worst.truncate(N_WORST);
    }
}

/// All operations saturate, because a user's program may count anything.
impl Difference {
    pub(crate) fn between(kernel: Counters, nflog: Counters) -> Self {
        Self::from(kernel).minus(Self::from(nflog))
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_add)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_sub)
    }

    /// Positive values minus `by`, but not below zero. Other values do not change.
    pub(crate) fn lowered(self, by: Counters) -> Self {
        self.zip(by.into(), |value, by| value - value.clamp(0, by))
    }

    /// Negative values plus `by`, but not above zero. Other values do not change.
    pub(crate) fn raised(self, by: Counters) -> Self {
        self.zip(by.into(), |value, by| value - value.clamp(-by, 0))
    }

    pub(crate) fn positive_part(self) -> Self {
        self.zip(Self::default(), Ord::max)
    }

    pub(crate) fn negative_part(self) -> Self {
        self.zip(Self::default(), Ord::min)
    }

    pub(crate) fn zip(self, other: Self, combine: impl Fn(i64, i64) -> i64) -> Self {
        Self {
            packets: combine(self.packets, other.packets),
            bytes: combine(self.bytes, other.bytes),
        }
    }
}

impl From<Counters> for Difference {
    fn from(counters: Counters) -> Self {
        let signed = |counter| i64::try_from(counter).unwrap_or(i64::MAX);
        Self {
            packets: signed(counters.packets),
            bytes: signed(counters.bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_verdict_is_the_maximum() {
        assert!(Verdict::ALL.is_sorted());
        assert_eq!(
            Verdict::ALL.map(Verdict::text),
            ["match", "not checked", "lost", "extra", "uncovered"]
        );
    }
}
