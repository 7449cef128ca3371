//! What NFLOG counted beside what a TC program counted → a verdict for each prefix.
//!
//! Pure: no clock and nothing read or written, so that the tests can run years of traffic through
//! it. One [`Reconciler`] serves one IP family and one side, interval after interval in order.
//!
//! The kernel's time of a packet is never later than NFLOG's. So at each boundary there may be
//! packets that the kernel has counted and NFLOG counts in the next interval: no more than the
//! kernel counted in the uncertain time before the boundary (the allowance), and what they are
//! must be missing from the next interval's difference. They are carried there, as the least and
//! the most that they can be. The two differ only after something that cannot be known, such as
//! whether NFLOG saw fragments before or after their reassembly.
//!
//! Invariants, which the property tests hold:
//!
//! - With neither hole nor loss the least is never more than what is truly pending, and with either
//!   the most is never less: no verdict cries wolf.
//! - What goes beyond the allowance is given as a finding and what stays within it is carried, so
//!   that the findings of a prefix add up to all that was missing, once nothing is pending.
//! - Loss excuses no more packets than were lost, in all intervals together.

use crate::model::verdict::{Difference, Finding, Verdict};
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use acctd_common::Counters;
use acctd_common::contract::EpochValue;
use foldhash::fast::RandomState;

/// What both sides counted for one prefix in one interval; zero where one saw nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// NFLOG's count.
    pub nflog: Counters,
    /// The TC program's count, over all CPUs and interfaces.
    pub kernel: EpochValue,
}

/// What is known of an interval for this family and side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Some packets carried no kernel time stamp at NFLOG: the allowance is
    /// [`EpochValue::before_end`], else [`EpochValue::near_end`].
    pub unstamped: bool,
    /// Packets that NFLOG is known to have lost, found out in this interval.
    pub lost: u64,
    /// The socket has overflowed, and how many packets are lost is not known yet: what the kernel
    /// has more waits.
    pub loss_is_open: bool,
    /// Packets that NFLOG counted in the zero row because its ledger was full.
    pub nflog_overflow: u64,
    /// Packets that NFLOG counted in this interval though they are stamped in an earlier one.
    pub late: u64,
    /// Packets that the kernel's map had no room for.
    pub kernel_overflow: u64,
    /// The two sides did not watch for the same time: an interface came or went, the clock was
    /// set back, or epochs ran together.
    pub incomparable: bool,
}

/// What an interval has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<K> {
    /// The prefixes that do not match, ascending, each once.
    pub findings: Vec<Finding<K>>,
    /// Prefixes with traffic in this interval that match.
    pub n_match: u64,
    /// Those of them that match only thanks to an allowance.
    pub n_allowed: u64,
    /// Those of them where the kernel counted more and fragments explain it.
    pub n_explained_by_fragments: u64,
    /// NFLOG's count over all prefixes.
    pub nflog: Counters,
    /// The kernel's count over all prefixes.
    pub kernel: Counters,
}

/// The findings of one verdict together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many prefixes.
    pub n_prefixes: u64,
    /// Their differences together.
    pub difference: Difference,
}

impl<K> Outcome<K> {
    /// Adds up the findings of a verdict.
    #[must_use]
    pub fn tally(&self, verdict: Verdict) -> Tally {
        let mut tally = Tally::default();
        for finding in &self.findings {
            if finding.verdict == verdict {
                tally.n_prefixes += 1;
                tally.difference = tally.difference.plus(finding.difference);
            }
        }
        tally
    }
}

impl<K> Default for Outcome<K> {
    /// No prefix seen.
    fn default() -> Self {
        Self {
            findings: Vec::new(),
            n_match: 0,
            n_allowed: 0,
            n_explained_by_fragments: 0,
            nflog: Counters::default(),
            kernel: Counters::default(),
        }
    }
}

/// The comparison of one family and side, with what it carries from one interval to the next.
#[derive(Debug)]
pub struct Reconciler<K> {
    /// The key of `0.0.0.0` or `::`, where NFLOG counts what its ledger has no room for.
    zero: K,
    /// Only prefixes for which something may be pending: those with traffic in the uncertain time
    /// before the last boundary, and while a loss is open those with a difference.
    carried: HashMap<K, Carried, RandomState>,
    lost: Budget,
    nflog_overflow: Budget,
    /// What the last interval's late packets and the kernel's overflow have not explained: a
    /// difference that skew has hidden there shows one interval later.
    late_before: u64,
    kernel_overflow_before: u64,
}

impl<K: Copy + Ord + Hash> Reconciler<K> {
    /// Nothing carried. `zero` is the key of the row in which NFLOG counts what its ledger has no
    /// room for.
    #[must_use]
    pub fn new(zero: K) -> Self {
        Self {
            zero,
            carried: HashMap::default(),
            lost: Budget::default(),
            nflog_overflow: Budget::default(),
            late_before: 0,
            kernel_overflow_before: 0,
        }
    }

    /// Compares one interval.
    ///
    /// `observed` ascends by key and has each key once that either side saw in the interval.
    /// `outside` is what the kernel counted just outside of it, before the first interval began or
    /// after the last one ended: NFLOG may have counted up to that much more.
    pub fn reconcile(
        &mut self,
        observed: impl Iterator<Item = (K, Observed)>,
        outside: Option<&HashMap<K, Counters>>,
        circumstances: &Circumstances,
    ) -> Outcome<K> {
        let mut carried = mem::take(&mut self.carried);
        let mut weighing = Weighing {
            zero: self.zero,
            circumstances,
            late: self.late_before.saturating_add(circumstances.late),
            carried: HashMap::default(),
            kernel_has_more: Vec::new(),
            nflog_has_more: Vec::new(),
            outcome: Outcome::default(),
        };
        for (key, observed) in observed {
            weighing.outcome.nflog.add(observed.nflog);
            weighing.outcome.kernel.add(observed.kernel.total);
            let outside = outside.and_then(|outside| outside.get(&key));
            let outside = outside.copied().unwrap_or_default();
            let before = carried.remove(&key).unwrap_or_default();
            weighing.weigh(key, Some(observed), outside, before);
        }
        // The late packets go to the first that need them: sorted, the same ones on each run.
        let mut silent: Vec<_> = carried.into_iter().collect();
        silent.sort_unstable_by_key(|(key, _)| *key);
        for (key, before) in silent {
            weighing.weigh(key, None, Counters::default(), before);
        }
        self.late_before = weighing.late.min(circumstances.late);
        self.carried = weighing.carried;
        self.judge(
            weighing.kernel_has_more,
            weighing.nflog_has_more,
            circumstances,
            weighing.outcome,
        )
    }

    /// Gives the prefixes that are beyond their allowance their verdicts.
    fn judge(
        &mut self,
        kernel_has_more: Vec<Candidate<K>>,
        nflog_has_more: Vec<Candidate<K>>,
        circumstances: &Circumstances,
        mut outcome: Outcome<K>,
    ) -> Outcome<K> {
        self.lost.grant(circumstances.lost);
        self.nflog_overflow.grant(circumstances.nflog_overflow);
        for candidate in smallest_first(kernel_has_more) {
            let verdict = self.excuse(&candidate);
            // That a loss is known now is no news of a prefix that was silent.
            if candidate.is_observed || verdict != Verdict::Lost {
                outcome.findings.push(candidate.found(verdict));
            }
        }

        let mut kernel_overflow = self
            .kernel_overflow_before
            .saturating_add(circumstances.kernel_overflow);
        for candidate in smallest_first(nflog_has_more) {
            let n_packets = candidate.n_packets();
            let verdict = if n_packets.max(1) <= kernel_overflow {
                kernel_overflow -= n_packets;
                Verdict::NotChecked
            } else {
                Verdict::Extra
            };
            outcome.findings.push(candidate.found(verdict));
        }
        self.kernel_overflow_before = kernel_overflow.min(circumstances.kernel_overflow);

        outcome.findings.sort_unstable_by_key(|finding| finding.key);
        if !circumstances.loss_is_open {
            self.hold_what_may_be_pending();
        }
        outcome
    }

    /// The verdict of a prefix of which the kernel has more, at the expense of the budgets.
    ///
    /// A prefix is excused wholly or not at all, and the smallest come first. So if there is more
    /// difference than loss, at least the largest is uncovered.
    fn excuse(&mut self, candidate: &Candidate<K>) -> Verdict {
        // Bytes without a packet are no packet that was lost.
        if candidate.most_packets < 1 {
            return Verdict::Uncovered;
        }
        let excusable = candidate.excusable;
        let lost = self.lost.available(excusable);
        let overflow = self.nflog_overflow.available(excusable);
        let n_packets = candidate.n_packets();
        // Where only the bytes are beyond the allowance, the packets that they belong to are within
        // it. One must be there to be excused, but is paid when it shows itself.
        let needed = n_packets.max(1);
        if needed <= lost {
            self.lost.take(n_packets, excusable);
            Verdict::Lost
        } else if needed <= lost.saturating_add(overflow) {
            let from_overflow = n_packets.min(overflow);
            self.nflog_overflow.take(from_overflow, excusable);
            self.lost.take(n_packets - from_overflow, excusable);
            Verdict::NotChecked
        } else {
            Verdict::Uncovered
        }
    }

    /// What of the loss has explained nothing yet may be among what is carried, and no more than
    /// that may be excused later. A prefix that has nothing pending once has no loss pending either,
    /// so what is held melts away.
    fn hold_what_may_be_pending(&mut self) {
        let anew = self.lost.fresh > 0 || self.nflog_overflow.fresh > 0;
        let mut pending = 0_u64;
        for carried in self.carried.values_mut() {
            if anew {
                carried.excusable = carried.pending.most_packets();
            }
            pending = pending.saturating_add(carried.excusable);
        }
        self.lost.hold(pending);
        self.nflog_overflow.hold(pending);
    }
}

/// Packets that may be excused in all, each once.
#[derive(Clone, Copy, Debug, Default)]
struct Budget {
    /// Known since this interval, or since the loss was open: any prefix may have a share.
    fresh: u64,
    /// Known earlier: only what was carried since then may have a share.
    held: u64,
}

impl Budget {
    fn grant(&mut self, n_packets: u64) {
        self.fresh = self.fresh.saturating_add(n_packets);
    }

    /// What there is for a prefix that may have `excusable` packets pending from earlier.
    fn available(self, excusable: u64) -> u64 {
        self.fresh.saturating_add(self.held.min(excusable))
    }

    /// Takes of what is available, the held first: others have a claim to the fresh.
    fn take(&mut self, n_packets: u64, excusable: u64) {
        let from_held = n_packets.min(self.held).min(excusable);
        self.held -= from_held;
        self.fresh -= n_packets - from_held;
    }

    fn hold(&mut self, pending: u64) {
        self.held = self.fresh.saturating_add(self.held).min(pending);
        self.fresh = 0;
    }
}

/// What the kernel has counted of a prefix and NFLOG has still to count, as far as it can be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Pending {
    least: Difference,
    most: Difference,
}

#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    pending: Pending,
    /// How many of the pending packets may be lost ones, for which there was a budget.
    excusable: u64,
}

/// A prefix that is beyond its allowance.
#[derive(Clone, Copy, Debug)]
struct Candidate<K> {
    key: K,
    /// What is beyond the allowance.
    difference: Difference,
    is_observed: bool,
    /// How many packets may be missing at most, the allowance included.
    most_packets: i64,
    excusable: u64,
}

impl<K> Candidate<K> {
    fn n_packets(&self) -> u64 {
        self.difference.packets.unsigned_abs()
    }

    fn found(self, verdict: Verdict) -> Finding<K> {
        Finding {
            key: self.key,
            verdict,
            difference: self.difference,
        }
    }
}

fn smallest_first<K: Copy + Ord>(
    mut candidates: Vec<Candidate<K>>,
) -> impl Iterator<Item = Candidate<K>> {
    candidates.sort_unstable_by_key(|candidate| (candidate.n_packets(), candidate.key));
    candidates.into_iter()
}

/// One interval's work: prefix by prefix, into what matches, what is carried, and candidates.
struct Weighing<'a, K> {
    zero: K,
    circumstances: &'a Circumstances,
    /// Late packets that have explained nothing yet.
    late: u64,
    carried: HashMap<K, Carried, RandomState>,
    kernel_has_more: Vec<Candidate<K>>,
    nflog_has_more: Vec<Candidate<K>>,
    outcome: Outcome<K>,
}

impl<K: Copy + Ord + Hash> Weighing<'_, K> {
    /// Weighs one prefix; `observed` is none where it was silent and only has something pending.
    fn weigh(&mut self, key: K, observed: Option<Observed>, outside: Counters, before: Carried) {
        let is_observed = observed.is_some();
        let observed = observed.unwrap_or_default();
        let allowance = self.allowance(&observed.kernel);
        let own = Difference::between(observed.kernel.total, observed.nflog);
        let unexplained = Pending {
            least: before.pending.least.plus(own),
            most: before.pending.most.plus(own),
        };
        let explained = self.explain(unexplained, observed.kernel.fragments, outside);

        if self.circumstances.incomparable || self.is_overflow_row(key, explained) {
            self.set_aside(key, is_observed, explained, allowance);
            return;
        }

        let surplus = explained.least.minus(allowance).or_zero_below();
        let deficit = explained.most.plus(allowance).or_zero_above();
        let candidate = Candidate {
            key,
            difference: surplus.plus(deficit),
            is_observed,
            most_packets: explained.most.packets,
            excusable: before.excusable,
        };
        let mut pending = explained.within(allowance);
        if surplus != Difference::default() {
            if self.circumstances.loss_is_open && explained.most.packets > 0 {
                // What is lost is not known, so all of it waits. It is bounded by the prefixes
                // that differ while the loss is open.
                pending = explained;
                if is_observed {
                    self.outcome.findings.push(Finding {
                        key,
                        verdict: Verdict::Lost,
                        difference: explained.certain(),
                    });
                }
            } else {
                self.kernel_has_more.push(candidate);
            }
        } else if deficit != Difference::default() {
            self.nflog_has_more.push(candidate);
        } else if is_observed {
            self.outcome.n_match += 1;
            let is_allowed = explained.certain() != Difference::default();
            self.outcome.n_allowed += u64::from(is_allowed);
            let by_fragments = unexplained.least.lowered(observed.kernel.fragments);
            let is_explained = by_fragments != unexplained.least;
            self.outcome.n_explained_by_fragments += u64::from(is_explained);
        }
        self.carry(key, pending, before.excusable);
    }

    /// What a time that the two sides do not share makes uncertain: packets that the kernel
    /// counted before the interval's end, and NFLOG may count after it.
    fn allowance(&self, kernel: &EpochValue) -> Difference {
        Difference::from(if self.circumstances.unstamped {
            kernel.before_end
        } else {
            kernel.near_end
        })
    }

    /// Takes away what has another reason. What may have been, but need not, widens the range.
    fn explain(&mut self, unexplained: Pending, fragments: Counters, outside: Counters) -> Pending {
        let Pending { least, most } = unexplained;
        // If NFLOG saw the fragments one by one, the kernel's surplus is none of theirs: the most
        // stays what it is.
        let mut least = least.lowered(fragments).raised(outside);
        let mut most = most.plus(Difference::from(outside));

        let too_many = most.packets.saturating_neg().max(i64::from(most.bytes < 0));
        let late = self.late.min(u64::try_from(too_many).unwrap_or(0));
        if late > 0 {
            // How long they are is not known, and how many are hidden behind pending ones.
            self.late -= late;
            let late = Counters {
                packets: late,
                bytes: u64::MAX,
            };
            least = least.raised(late);
            most = most.plus(Difference::from(late));
        }
        Pending { least, most }
    }

    /// What the zero row has too much is that of other prefixes.
    fn is_overflow_row(&self, key: K, explained: Pending) -> bool {
        self.circumstances.nflog_overflow > 0
            && key == self.zero
            && (explained.most.packets < 0 || explained.most.bytes < 0)
    }

    /// A difference that says nothing. What NFLOG may count of it later is not known either.
    fn set_aside(&mut self, key: K, is_observed: bool, explained: Pending, allowance: Difference) {
        let difference = explained.certain();
        if difference != Difference::default() {
            self.outcome.findings.push(Finding {
                key,
                verdict: Verdict::NotChecked,
                difference,
            });
        } else if is_observed {
            self.outcome.n_match += 1;
        }
        let pending = Pending {
            least: Difference::default(),
            most: allowance,
        };
        self.carry(key, pending, 0);
    }

    fn carry(&mut self, key: K, pending: Pending, excusable: u64) {
        if pending != Pending::default() {
            let excusable = excusable.min(pending.most_packets());
            self.carried.insert(key, Carried { pending, excusable });
        }
    }
}

impl Pending {
    /// The part of it that an allowance justifies.
    fn within(self, allowance: Difference) -> Self {
        let clip = |difference: Difference| {
            difference.zip(allowance, |value, limit| value.clamp(-limit, limit))
        };
        Self {
            least: clip(self.least),
            most: clip(self.most),
        }
    }

    fn most_packets(self) -> u64 {
        u64::try_from(self.most.packets).unwrap_or(0)
    }

    /// What it is at least, to either side of zero.
    fn certain(self) -> Difference {
        self.least.or_zero_below().plus(self.most.or_zero_above())
    }
}

/// Saturating: a program of one's own may count whatever it likes.
impl Difference {
    fn between(kernel: Counters, nflog: Counters) -> Self {
        Self::from(kernel).minus(Self::from(nflog))
    }

    fn plus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_add)
    }

    fn minus(self, other: Self) -> Self {
        self.zip(other, i64::saturating_sub)
    }

    /// Where it is positive, less by up to `by`, and never below zero.
    fn lowered(self, by: Counters) -> Self {
        self.zip(by.into(), |value, by| value - value.clamp(0, by))
    }

    /// Where it is negative, more by up to `by`, and never above zero.
    fn raised(self, by: Counters) -> Self {
        self.zip(by.into(), |value, by| value - value.clamp(-by, 0))
    }

    fn or_zero_below(self) -> Self {
        self.zip(Self::default(), Ord::max)
    }

    fn or_zero_above(self) -> Self {
        self.zip(Self::default(), Ord::min)
    }

    fn zip(self, other: Self, combine: impl Fn(i64, i64) -> i64) -> Self {
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
mod tests;
