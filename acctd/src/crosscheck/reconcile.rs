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

mod weighing;

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use acctd_common::Counters;
use foldhash::fast::RandomState;
use weighing::{Budget, Candidate, Carried, Weighing, smallest_first};

use super::outcome::Outcome;
use crate::crosscheck::outcome::{IntervalConditions, Observed};
use crate::model::verdict::Verdict;

/// The comparison of one family and side, with what it carries from one interval to the next.
#[derive(Debug)]
pub(crate) struct Reconciler<K> {
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
    pub(crate) fn new(zero: K) -> Self {
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
    pub(crate) fn reconcile(
        &mut self,
        observed: impl Iterator<Item = (K, Observed)>,
        outside: Option<&HashMap<K, Counters>>,
        conditions: &IntervalConditions,
    ) -> Outcome<K> {
        let mut carried = mem::take(&mut self.carried);
        let mut weighing = Weighing {
            zero: self.zero,
            conditions,
            late: self.late_before.saturating_add(conditions.late),
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
        self.late_before = weighing.late.min(conditions.late);
        self.carried = weighing.carried;
        self.judge(
            weighing.kernel_has_more,
            weighing.nflog_has_more,
            conditions,
            weighing.outcome,
        )
    }

    /// Gives the prefixes that are beyond their allowance their verdicts.
    fn judge(
        &mut self,
        kernel_has_more: Vec<Candidate<K>>,
        nflog_has_more: Vec<Candidate<K>>,
        conditions: &IntervalConditions,
        mut outcome: Outcome<K>,
    ) -> Outcome<K> {
        self.lost.grant(conditions.lost);
        self.nflog_overflow.grant(conditions.nflog_overflow);
        for candidate in smallest_first(kernel_has_more) {
            let verdict = self.excuse(&candidate);
            // That a loss is known now is no news of a prefix that was silent.
            if candidate.is_observed || verdict != Verdict::Lost {
                outcome.findings.push(candidate.found(verdict));
            }
        }

        let mut kernel_overflow = self
            .kernel_overflow_before
            .saturating_add(conditions.kernel_overflow);
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
        self.kernel_overflow_before = kernel_overflow.min(conditions.kernel_overflow);

        outcome.findings.sort_unstable_by_key(|finding| finding.key);
        if !conditions.loss_is_open {
            self.hold_pending();
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
    fn hold_pending(&mut self) {
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

#[cfg(test)]
mod tests;
