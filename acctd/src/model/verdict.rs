//! What the cross-check says of prefixes: verdicts, and what those of an interval come to.

use std::cmp::Reverse;
use std::net::IpAddr;

use acctd_common::Counters;

use crate::model::prefix::Side;

/// What is to be said of a prefix in an interval. Ordered by severity, so that the worse of two
/// is their maximum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// NFLOG counted what the kernel counted, but for what is explained.
    Match,
    /// One of the two could not count all, and that may be the difference.
    NotChecked,
    /// NFLOG counted less, and is known to have lost as much.
    Lost,
    /// NFLOG counted more: logged twice, or seen on another interface.
    Extra,
    /// The kernel counted more than the rules logged.
    Uncovered,
}

impl Verdict {
    /// All of them, in their order.
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

    /// The word for it in the column and in log lines.
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

/// The kernel's count less NFLOG's.
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
    /// What is certain of the difference. Over the intervals it adds up to all that is missing or
    /// too much; only while a loss is open, [`Verdict::Lost`] gives all that waits each time.
    pub difference: Difference,
}

/// The verdicts on an interval: all but `match`, in order of prefixes.
#[derive(Debug, Default)]
pub struct Judgement {
    pub(crate) ip4: [Vec<Finding<u32>>; 2],
    pub(crate) ip6_half: [Vec<Finding<u64>>; 2],
    pub(crate) ip6: [Vec<Finding<u128>>; 2],
    /// What they come to.
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

/// A prefix may have one in each interval; its row shows the worse.
fn append_findings<K: Ord + Copy>(own: &mut [Vec<Finding<K>>; 2], next: [Vec<Finding<K>>; 2]) {
    for (own, next) in own.iter_mut().zip(next) {
        own.extend(next);
        own.sort_unstable_by_key(|finding| finding.key);
    }
}

/// What the verdicts on an interval come to; a prefix is counted for each of its sides.
#[derive(Clone, Debug, Default)]
pub struct VerdictSummary {
    /// For each verdict, the prefixes and what is different. For `match`, what the kernel counted
    /// of those prefixes.
    pub tallies: [Tally; Verdict::ALL.len()],
    /// For each side the same, without its matches, and what the kernel counted.
    pub sides: [SideSummary; 2],
    /// Prefixes that match only thanks to the uncertain window.
    pub n_allowed: u64,
    /// Prefixes that match because of fragments that were put together.
    pub n_explained_by_fragments: u64,
    /// The widest window that was allowed for, in nanoseconds: none where all packets carry a
    /// common time stamp.
    pub window_nanos: u64,
    /// The findings with the largest differences, the worst verdicts first.
    pub worst: Vec<WorstFinding>,
}

/// Prefixes and amounts with the same verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Prefixes.
    pub prefixes: u64,
    /// Packets and bytes, whichever side had more of them.
    pub amount: Counters,
}

/// One side's part.
#[derive(Clone, Debug, Default)]
pub struct SideSummary {
    /// By verdict.
    pub tallies: [Tally; Verdict::ALL.len()],
    /// What the kernel counted in all.
    pub kernel: Counters,
    /// Packets among them whose header has no length, with the bytes of their frames: both counts have
    /// these packets, and none of their bytes.
    pub without_length: Counters,
}

/// A prefix that does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorstFinding {
    /// The prefix's address.
    pub address: IpAddr,
    /// The side.
    pub side: Side,
    /// What is wrong with it.
    pub verdict: Verdict,
    /// Kernel less NFLOG.
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
    /// A prefix counts for each interval that it was in.
    pub fn append(&mut self, next: Self) {
        add_tallies(&mut self.tallies, next.tallies);
        for (own, next) in self.sides.iter_mut().zip(next.sides) {
            add_tallies(&mut own.tallies, next.tallies);
            own.kernel.add(next.kernel);
            own.without_length.add(next.without_length);
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

/// Saturating: a program of one's own may count whatever it likes.
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

    /// Where it is positive, less by up to `by`, and never below zero.
    pub(crate) fn lowered(self, by: Counters) -> Self {
        self.zip(by.into(), |value, by| value - value.clamp(0, by))
    }

    /// Where it is negative, more by up to `by`, and never above zero.
    pub(crate) fn raised(self, by: Counters) -> Self {
        self.zip(by.into(), |value, by| value - value.clamp(-by, 0))
    }

    pub(crate) fn or_zero_below(self) -> Self {
        self.zip(Self::default(), Ord::max)
    }

    pub(crate) fn or_zero_above(self) -> Self {
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
