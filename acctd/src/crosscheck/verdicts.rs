//! Judges a closed interval: compares the ledgers with the kernel's counts, for each family and side, and sums
//! up the verdicts.

use std::collections::HashMap;

use acctd_common::Counters;
use acctd_common::contract::{BEFORE_END_NANOS, EpochValue, NEAR_END_NANOS, reason};
use itertools::{EitherOrBoth, Itertools};

use super::reconcile::Reconciler;
use crate::crosscheck::outcome::{IntervalConditions, Observed, Outcome};
use crate::model::closed_interval::{ClosedInterval, Gap, GapCause, GroupInterval, KernelInterval};
use crate::model::counts::Counts;
use crate::model::entries::Entry;
use crate::model::kernel_counts::KernelSide;
use crate::model::prefix::Side;
use crate::model::stored_key::StoredKey;
use crate::model::verdict::{
    Finding, Judgement, N_WORST, Tally, Verdict, VerdictSummary, WorstFinding, magnitude,
};

const SIDES: [Side; 2] = [Side::Source, Side::Dest];

/// Judges one interval after another, because what is uncertain at the end of one is settled in the next.
#[derive(Debug, Default)]
pub struct Judge {
    ip4: [SideJudge<u32>; 2],
    ip6_half: [SideJudge<u64>; 2],
    ip6: [SideJudge<u128>; 2],
}

#[derive(Debug)]
struct SideJudge<K> {
    reconciler: Reconciler<K>,
    /// The last interval had packets without a kernel time stamp, or delayed ones. NFLOG may have counted some
    /// of them in this interval.
    was_unstamped: bool,
    /// Whether packets without a kernel time stamp were in the last interval in which NFLOG had any; `None` until then.
    last_seen_unstamped: Option<bool>,
}

impl Judge {
    /// Judges `interval`, if it has a cross-check. Intervals must come in order.
    pub fn judge(&mut self, interval: &mut ClosedInterval) {
        interval.sort();
        let Some(kernel) = &interval.kernel else {
            return;
        };
        let mut judgement = Judgement::default();
        for side in SIDES {
            let at = side as usize;
            let (groups, gaps) = (&interval.groups, &interval.gaps);
            let mut summary = std::mem::take(&mut judgement.summary);
            judgement.ip4[at] = self.ip4[at].judge(groups, gaps, kernel, side, &mut summary);
            judgement.ip6_half[at] =
                self.ip6_half[at].judge(groups, gaps, kernel, side, &mut summary);
            judgement.ip6[at] = self.ip6[at].judge(groups, gaps, kernel, side, &mut summary);
            let (reasons, sums) = (&kernel.counts.reasons, &mut summary.sides[at]);
            for version in [4, 6] {
                let without_length = reasons.of(version, side, reason::WITHOUT_LENGTH);
                sums.without_length.add(without_length);
                if kernel.counts.has_segments {
                    let segments = reasons.of(version, side, reason::SEGMENTS);
                    sums.segments.get_or_insert_default().add(segments);
                }
            }
            judgement.summary = summary;
        }
        judgement.summary.keep_worst();
        if let Some(kernel) = &mut interval.kernel {
            kernel.judgement = Some(judgement);
        }
    }
}

impl<K: StoredKey> Default for SideJudge<K> {
    fn default() -> Self {
        Self {
            reconciler: Reconciler::new(K::ZERO),
            was_unstamped: false,
            last_seen_unstamped: None,
        }
    }
}

impl<K: StoredKey> SideJudge<K> {
    fn judge(
        &mut self,
        groups: &[GroupInterval],
        gaps: &[Gap],
        kernel: &KernelInterval,
        side: Side,
        summary: &mut VerdictSummary,
    ) -> Vec<Finding<K>> {
        let groups: Vec<&GroupInterval> = groups
            .iter()
            .filter(|group| {
                group.config.side == side
                    && group.config.prefix_length.family() == K::FAMILY
                    && group
                        .entries
                        .iter()
                        .all(|entries| K::entries(entries).is_some())
            })
            .collect();
        let counted = K::family(&kernel.counts).side(side);
        if groups.is_empty() {
            return Vec::new();
        }
        let mut conditions = self.conditions(&groups, kernel, side, counted);
        // NFLOG could not count what passed during a gap. If the rules were gone, the verdicts must show it.
        let gaps = gaps.iter().filter(|gap| gap.cause != GapCause::RulesGone);
        let groups_with_gaps: Vec<_> = gaps.flat_map(|gap| &gap.groups).collect();
        conditions.incomparable |= groups
            .iter()
            .any(|group| groups_with_gaps.contains(&&group.config.group));
        let mut outside: HashMap<K, Counters> = HashMap::new();
        for counts in &kernel.outside {
            for entry in &K::family(counts).side(side).totals {
                outside
                    .entry(entry.key())
                    .or_default()
                    .add(entry.counters());
            }
        }
        let outcome =
            self.reconciler
                .reconcile(observed(&groups, counted), Some(&outside), &conditions);
        summary.add(side, counted, &outcome, &conditions);
        outcome.findings
    }

    fn conditions(
        &mut self,
        groups: &[&GroupInterval],
        kernel: &KernelInterval,
        side: Side,
        counted: &KernelSide<K>,
    ) -> IntervalConditions {
        let mut counts = Counts::default();
        for group in groups {
            counts.add(&group.counts);
        }
        if counts.packets > 0 {
            self.last_seen_unstamped = Some(counts.unstamped > 0);
        }
        // If NFLOG has none, all that the kernel counted may be in its next interval, for having no stamp.
        let may_be_unstamped =
            !counted.totals.is_empty() && self.last_seen_unstamped != Some(false);
        let is_unstamped = counts.unstamped > 0
            || (counts.packets == 0 && may_be_unstamped)
            || kernel.is_delayed[side as usize];
        let unstamped = is_unstamped || self.was_unstamped;
        self.was_unstamped = is_unstamped;
        let overflow = kernel
            .counts
            .reasons
            .of(K::FAMILY.version(), side, reason::OVERFLOW);
        IntervalConditions {
            unstamped,
            lost: counts.lost,
            loss_is_open: groups.iter().any(|group| group.loss_is_open),
            nflog_overflow: counts.overflow,
            late: counts.late,
            kernel_overflow: overflow.packets,
            incomparable: !kernel.is_comparable,
        }
    }
}

/// Both counts, prefix by prefix, in ascending order.
fn observed<'a, K: StoredKey>(
    groups: &[&'a GroupInterval],
    kernel: &'a KernelSide<K>,
) -> impl Iterator<Item = (K, Observed)> {
    let nflog = groups
        .iter()
        .flat_map(|group| group.entries.iter().filter_map(K::entries))
        .map(|entries| entries.iter().map(|entry| (entry.key(), entry.counters())))
        .kmerge_by(|one, other| one.0 < other.0)
        .coalesce(|mut one, other| {
            if one.0 != other.0 {
                return Err((one, other));
            }
            one.1.add(other.1);
            Ok(one)
        });
    nflog
        .merge_join_by(values(kernel), |nflog, kernel| nflog.0.cmp(&kernel.0))
        .map(|both| match both {
            EitherOrBoth::Both((key, nflog), (_, kernel)) => (key, Observed { nflog, kernel }),
            EitherOrBoth::Left((key, nflog)) => (
                key,
                Observed {
                    nflog,
                    kernel: EpochValue::default(),
                },
            ),
            EitherOrBoth::Right((key, kernel)) => (
                key,
                Observed {
                    nflog: Counters::default(),
                    kernel,
                },
            ),
        })
}

/// Totals and allowances in one value again.
fn values<K: StoredKey>(kernel: &KernelSide<K>) -> impl Iterator<Item = (K, EpochValue)> {
    let mut allowances = kernel.allowances.iter().peekable();
    kernel.totals.iter().map(move |entry| {
        let mut value = EpochValue {
            total: entry.counters(),
            ..EpochValue::default()
        };
        if let Some((_, allowance)) = allowances.next_if(|(key, _)| *key == entry.key()) {
            value.near_end = allowance.near_end;
            value.before_end = allowance.before_end;
            value.fragments = allowance.fragments;
        }
        (entry.key(), value)
    })
}

impl VerdictSummary {
    fn add<K: StoredKey>(
        &mut self,
        side: Side,
        counted: &KernelSide<K>,
        outcome: &Outcome<K>,
        conditions: &IntervalConditions,
    ) {
        let mut matched = outcome.kernel;
        for finding in &outcome.findings {
            let tally = Tally {
                prefixes: 1,
                amount: magnitude(finding.difference),
            };
            self.tally_mut(finding.verdict).add(tally);
            self.sides[side as usize].tallies[finding.verdict as usize].add(tally);
            if let Ok(at) = counted
                .totals
                .binary_search_by_key(&finding.key, Entry::key)
            {
                let own = counted.totals[at].counters();
                matched.packets = matched.packets.saturating_sub(own.packets);
                matched.bytes = matched.bytes.saturating_sub(own.bytes);
            }
            self.worst.push(WorstFinding {
                address: finding.key.address(),
                side,
                verdict: finding.verdict,
                difference: finding.difference,
            });
            if self.worst.len() >= 64 * N_WORST {
                self.keep_worst();
            }
        }
        self.tally_mut(Verdict::Match).add(Tally {
            prefixes: outcome.n_match,
            amount: matched,
        });
        self.sides[side as usize].kernel.add(outcome.kernel);
        self.n_allowed += outcome.n_allowed;
        self.n_explained_by_fragments += outcome.n_explained_by_fragments;
        let window = if conditions.unstamped {
            BEFORE_END_NANOS
        } else if counted
            .allowances
            .iter()
            .any(|(_, allowances)| allowances.near_end.packets > 0)
        {
            NEAR_END_NANOS
        } else {
            0
        };
        self.window_nanos = self.window_nanos.max(window);
    }
}

#[cfg(test)]
mod tests {
    use acctd_common::contract::{EpochKey, SIDE_DEST};

    use super::*;
    use crate::model::entries::Entries;
    use crate::model::group::{GroupConfig, NflogGroup};
    use crate::model::interval::{Period, UnixNanos};
    use crate::model::prefix::{Family, PrefixLength};

    /// One packet at the end of the interval for the kernel; and one for NFLOG, with or without a stamp.
    fn interval(kernel: bool, nflog: Option<bool>) -> ClosedInterval {
        let one = Counters {
            bytes: 60,
            packets: 1,
        };
        let mut group = GroupInterval::from(GroupConfig {
            group: NflogGroup(4),
            side: Side::Dest,
            prefix_length: PrefixLength::new(Family::Ip4, 32).unwrap(),
        });
        if let Some(is_stamped) = nflog {
            group.counts.packets = 1;
            group.counts.unstamped = u64::from(!is_stamped);
            group.entries = vec![Entries::Ip4(vec![Entry::new(7, one)])];
        }
        let period = Period {
            start: UnixNanos(0),
            end: UnixNanos(1),
        };
        let mut closed = ClosedInterval::new(period, vec![group]);
        let mut counted = KernelInterval {
            is_comparable: true,
            ..KernelInterval::default()
        };
        if kernel {
            let key = EpochKey {
                version: 4,
                side: SIDE_DEST,
                address: [0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                ..EpochKey::default()
            };
            let value = EpochValue {
                total: one,
                before_end: one,
                ..EpochValue::default()
            };
            counted.counts.add(&key, &value, true);
        }
        closed.kernel = Some(counted);
        closed
    }

    fn verdicts(intervals: &[(bool, Option<bool>)]) -> Vec<Option<Verdict>> {
        let mut judge = Judge::default();
        let judged = intervals.iter().map(|(kernel, nflog)| {
            let mut interval = interval(*kernel, *nflog);
            judge.judge(&mut interval);
            let judgement = interval.kernel.unwrap().judgement.unwrap();
            let finding = judgement.ip4[Side::Dest as usize].first();
            finding.map(|finding| finding.verdict)
        });
        judged.collect()
    }

    #[test]
    fn the_first_packet_after_a_pause_may_be_in_nflogs_next_interval() {
        const UNSTAMPED: Option<bool> = Some(false);
        let moved = [(true, None), (false, UNSTAMPED)];
        assert_eq!(verdicts(&moved), [None, None]);
        let after_a_pause = [
            (true, UNSTAMPED),
            (false, None),
            (true, None),
            (false, UNSTAMPED),
        ];
        assert_eq!(verdicts(&after_a_pause), [None; 4]);
        // One that no rule saw at all does not come in the next interval either.
        let missed = [(true, None), (false, None)];
        assert_eq!(verdicts(&missed), [None, Some(Verdict::Uncovered)]);
        // With stamps nothing is uncertain.
        let stamped = [(true, Some(true)), (true, None)];
        assert_eq!(verdicts(&stamped), [None, Some(Verdict::Uncovered)]);
    }
}
