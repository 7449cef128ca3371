//! Compares NFLOG's counts with those of the TC programs, and gives each prefix a verdict.
//!
//! Pure: no clock and no I/O, so the tests can simulate years of traffic. One [`Reconciler`] compares one IP
//! family and one side, interval after interval in order.
//!
//! The programs' time of a packet is never later than NFLOG's. So NFLOG may count packets shortly before a
//! boundary in the next interval: at most as many as the programs counted in the uncertain time before the
//! boundary (the allowance). The next interval's difference must be smaller by these pending packets. They are
//! carried there as a range, the least and the most that they can be. The two differ only if something cannot
//! be known, such as whether NFLOG saw fragments before or after reassembly.
//!
//! Invariants, checked by the property tests:
//!
//! - Without loss and without a hole in the rules, the least is never more than what is pending; with either,
//!   the most is never less. So no verdict is a false alarm.
//! - What exceeds the allowance is a finding, and what is within it is carried. So the findings of a prefix add
//!   up to all that was missing, once nothing is pending.
//! - Loss explains no more packets than were lost, over all intervals together.

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
    /// The key of `0.0.0.0` or `::`, in whose row NFLOG counts packets when its ledger is full.
    zero: K,
    /// Prefixes for which packets may be pending: those with traffic in the uncertain time before the last
    /// boundary, and while a loss is open those with a difference.
    carried: HashMap<K, Carried, RandomState>,
    lost: Budget,
    nflog_overflow: Budget,
    /// Late packets and overflow of the last interval that explained nothing there: pending packets can hide a
    /// difference until the next interval.
    late_before: u64,
    kernel_overflow_before: u64,
}

impl<K: Copy + Ord + Hash> Reconciler<K> {
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
    /// `observed` has each key that either side saw, once and in ascending order. `outside` is what the kernel
    /// counted before the first interval or after the last one: NFLOG may have counted up to that much more.
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
        // Late packets explain the first prefixes that need them. Sorted, so that the result is reproducible.
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

    /// Gives verdicts to the prefixes that exceed their allowance.
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
            let verdict = self.explain_by_loss(&candidate);
            // A prefix without traffic needs no row that says that a loss is known now.
            if candidate.is_observed || verdict != Verdict::Lost {
                outcome.findings.push(candidate.finding(verdict));
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
            outcome.findings.push(candidate.finding(verdict));
        }
        self.kernel_overflow_before = kernel_overflow.min(conditions.kernel_overflow);

        outcome.findings.sort_unstable_by_key(|finding| finding.key);
        if !conditions.loss_is_open {
            self.reserve_for_pending();
        }
        outcome
    }

    /// The verdict of a prefix that the kernel counted more of. Takes from the budgets what explains it.
    ///
    /// A prefix is explained fully or not at all, the smallest first. So if the differences exceed the loss, at
    /// least the largest is uncovered.
    fn explain_by_loss(&mut self, candidate: &Candidate<K>) -> Verdict {
        // Only bytes are missing, so no packet was lost.
        if candidate.most_packets < 1 {
            return Verdict::Uncovered;
        }
        let excusable = candidate.excusable;
        let lost = self.lost.available(excusable);
        let overflow = self.nflog_overflow.available(excusable);
        let n_packets = candidate.n_packets();
        // If only the bytes exceed the allowance, the packets are within it. The budget must have one packet,
        // which is taken when the packet itself exceeds the allowance.
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

    /// Lost packets that explained nothing yet may be among the pending ones, so later they may explain at most
    /// as many as are pending now. A prefix without pending packets gives up its share, so the reserve shrinks.
    fn reserve_for_pending(&mut self) {
        let is_loss_new = self.lost.fresh > 0 || self.nflog_overflow.fresh > 0;
        let mut pending = 0_u64;
        for carried in self.carried.values_mut() {
            if is_loss_new {
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
