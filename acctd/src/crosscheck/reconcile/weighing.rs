//! Explains the differences of one interval, prefix by prefix, before loss is considered.

use std::collections::HashMap;
use std::hash::Hash;

use acctd_common::Counters;
use acctd_common::contract::EpochValue;
use foldhash::fast::RandomState;

use crate::crosscheck::outcome::{IntervalConditions, Observed, Outcome};
use crate::model::verdict::{Difference, Finding, Verdict};

/// Lost packets that may explain a difference, each once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    /// Known since this interval, or since a loss was open: for any prefix.
    pub(super) fresh: u64,
    /// Known earlier: only for what is carried since then.
    pub(super) held: u64,
}

impl Budget {
    pub(super) fn grant(&mut self, n_packets: u64) {
        self.fresh = self.fresh.saturating_add(n_packets);
    }

    /// For a prefix of whose pending packets at most `excusable` may be lost ones.
    pub(super) fn available(self, excusable: u64) -> u64 {
        self.fresh.saturating_add(self.held.min(excusable))
    }

    /// Takes from the held ones first, because the fresh ones may explain other prefixes as well.
    pub(super) fn take(&mut self, n_packets: u64, excusable: u64) {
        let from_held = n_packets.min(self.held).min(excusable);
        self.held -= from_held;
        self.fresh -= n_packets - from_held;
    }

    pub(super) fn hold(&mut self, pending: u64) {
        self.held = self.fresh.saturating_add(self.held).min(pending);
        self.fresh = 0;
    }
}

/// What NFLOG has still to count of a prefix, as a range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) least: Difference,
    pub(super) most: Difference,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    pub(super) pending: Pending,
    /// How many of the pending packets may be lost ones.
    pub(super) excusable: u64,
}

/// A prefix that exceeds its allowance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<K> {
    pub(super) key: K,
    /// What exceeds the allowance.
    pub(super) difference: Difference,
    pub(super) is_observed: bool,
    /// The most packets that may be missing, including the allowance.
    pub(super) most_packets: i64,
    pub(super) excusable: u64,
}

impl<K> Candidate<K> {
    pub(super) fn n_packets(&self) -> u64 {
        self.difference.packets.unsigned_abs()
    }

    pub(super) fn finding(self, verdict: Verdict) -> Finding<K> {
        Finding {
            key: self.key,
            verdict,
            difference: self.difference,
        }
    }
}

pub(super) fn smallest_first<K: Copy + Ord>(
    mut candidates: Vec<Candidate<K>>,
) -> impl Iterator<Item = Candidate<K>> {
    candidates.sort_unstable_by_key(|candidate| (candidate.n_packets(), candidate.key));
    candidates.into_iter()
}

/// Sorts the prefixes of one interval into matches, carried ones and candidates.
pub(super) struct Weighing<'a, K> {
    pub(super) zero: K,
    pub(super) conditions: &'a IntervalConditions,
    /// Late packets that explained nothing yet.
    pub(super) late: u64,
    pub(super) carried: HashMap<K, Carried, RandomState>,
    pub(super) kernel_has_more: Vec<Candidate<K>>,
    pub(super) nflog_has_more: Vec<Candidate<K>>,
    pub(super) outcome: Outcome<K>,
}

impl<K: Copy + Ord + Hash> Weighing<'_, K> {
    /// `observed` is `None` for a prefix without traffic that has pending packets.
    pub(super) fn weigh(
        &mut self,
        key: K,
        observed: Option<Observed>,
        outside: Counters,
        before: Carried,
    ) {
        let is_observed = observed.is_some();
        let observed = observed.unwrap_or_default();
        let allowance = self.allowance(&observed.kernel);
        let own = Difference::between(observed.kernel.total, observed.nflog);
        let unexplained = Pending {
            least: before.pending.least.plus(own),
            most: before.pending.most.plus(own),
        };
        let explained = self.explain(unexplained, observed.kernel.fragments, outside);

        if self.conditions.incomparable || self.is_overflow_row(key, explained) {
            self.set_aside(key, is_observed, explained, allowance);
            return;
        }

        let surplus = explained.least.minus(allowance).positive_part();
        let deficit = explained.most.plus(allowance).negative_part();
        let candidate = Candidate {
            key,
            difference: surplus.plus(deficit),
            is_observed,
            most_packets: explained.most.packets,
            excusable: before.excusable,
        };
        let mut pending = explained.clipped_to(allowance);
        if surplus != Difference::default() {
            if self.conditions.loss_is_open && explained.most.packets > 0 {
                // The number of lost packets is not known yet, so all of the difference is carried. Only
                // prefixes that differ while the loss is open take memory.
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

    /// Packets that the kernel counted before the interval's end and NFLOG may count after it, because the two
    /// have no common time stamp.
    pub(super) fn allowance(&self, kernel: &EpochValue) -> Difference {
        Difference::from(if self.conditions.unstamped {
            kernel.before_end
        } else {
            kernel.near_end
        })
    }

    /// Subtracts what has another reason. A possible reason widens the range.
    pub(super) fn explain(
        &mut self,
        unexplained: Pending,
        fragments: Counters,
        outside: Counters,
    ) -> Pending {
        let Pending { least, most } = unexplained;
        // If NFLOG saw the fragments before reassembly, they explain nothing: the most stays the same.
        let mut least = least.lowered(fragments).raised(outside);
        let mut most = most.plus(Difference::from(outside));

        let too_many = most.packets.saturating_neg().max(i64::from(most.bytes < 0));
        let late = self.late.min(u64::try_from(too_many).unwrap_or(0));
        if late > 0 {
            // Their bytes are not known, nor how many of them pending packets hide.
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

    /// A surplus of the zero row belongs to other prefixes.
    pub(super) fn is_overflow_row(&self, key: K, explained: Pending) -> bool {
        self.conditions.nflog_overflow > 0
            && key == self.zero
            && (explained.most.packets < 0 || explained.most.bytes < 0)
    }

    /// Records a difference that cannot be judged. In a later interval NFLOG may count none of it, or as much as
    /// `allowance`.
    pub(super) fn set_aside(
        &mut self,
        key: K,
        is_observed: bool,
        explained: Pending,
        allowance: Difference,
    ) {
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

    pub(super) fn carry(&mut self, key: K, pending: Pending, excusable: u64) {
        if pending != Pending::default() {
            let excusable = excusable.min(pending.most_packets());
            self.carried.insert(key, Carried { pending, excusable });
        }
    }
}

impl Pending {
    /// Both limits, clipped to the allowance.
    pub(super) fn clipped_to(self, allowance: Difference) -> Self {
        let clip = |difference: Difference| {
            difference.zip(allowance, |value, limit| value.clamp(-limit, limit))
        };
        Self {
            least: clip(self.least),
            most: clip(self.most),
        }
    }

    pub(super) fn most_packets(self) -> u64 {
        u64::try_from(self.most.packets).unwrap_or(0)
    }

    /// The part that is certain: the limit closer to zero, or zero if the range includes it.
    pub(super) fn certain(self) -> Difference {
        self.least.positive_part().plus(self.most.negative_part())
    }
}
