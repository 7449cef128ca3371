//! Judges a closed interval: hands the ledgers and the kernel's counts to the reconciler of each
//! family and side, and sums up what comes of it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use acctd_common::Counters;
use acctd_common::contract::{BEFORE_END_NANOS, EpochValue, NEAR_END_NANOS, reason};
use itertools::{EitherOrBoth, Itertools};

use super::counts::{EpochCounts, KernelFamily, KernelSide};
use super::reconcile::{
    Circumstances, Difference, Finding, Observed, Outcome, Reconciler, Verdict,
};
use crate::count::accumulator::Entries;
use crate::count::ledger::Entry;
use crate::model::counts::Counts;
use crate::model::prefix::{PrefixKey, Side};
use crate::output::rows::{ClosedInterval, Gap, GapCause, GroupInterval};

/// The sides, as they are numbered here.
const SIDES: [Side; 2] = [Side::Source, Side::Dest];
/// How many of the worst findings are kept.
const N_WORST: usize = 10;

/// What the kernel counted in a closed period.
#[derive(Debug, Default)]
pub struct KernelInterval {
    /// Per prefix and by reason.
    pub counts: EpochCounts,
    /// What it counted just before the first period, and just after the last.
    pub outside: Vec<EpochCounts>,
    /// Whether it watched for the same time as NFLOG.
    pub is_comparable: bool,
    /// For each side, whether packets were held back between the kernel's count and NFLOG's.
    pub is_delayed: [bool; 2],
    /// How long it took to read the kernel's map.
    pub drained_in: Duration,
    /// The verdicts, once they are given.
    pub judgement: Option<Judgement>,
}

impl KernelInterval {
    /// Takes the next interval in. Both have their verdicts.
    pub fn append(&mut self, next: Self) {
        self.counts.append(next.counts);
        self.outside = Vec::new();
        self.is_comparable &= next.is_comparable;
        for (own, next) in self.is_delayed.iter_mut().zip(next.is_delayed) {
            *own |= next;
        }
        self.drained_in += next.drained_in;
        match (&mut self.judgement, next.judgement) {
            (Some(judgement), Some(next)) => judgement.append(next),
            (judgement, next) => *judgement = judgement.take().or(next),
        }
    }
}

/// The verdicts on an interval: all but `match`, in order of prefixes.
#[derive(Debug, Default)]
pub struct Judgement {
    ip4: [Vec<Finding<u32>>; 2],
    ip6_half: [Vec<Finding<u64>>; 2],
    ip6: [Vec<Finding<u128>>; 2],
    /// What they come to.
    pub summary: VerdictSummary,
}

impl Judgement {
    fn append(&mut self, next: Self) {
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

/// Where a key's entries are kept.
pub trait StoredKey: PrefixKey {
    /// The ledger, if it has such keys.
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]>;
    /// What the kernel counted for such keys.
    fn family(counts: &EpochCounts) -> &KernelFamily<Self>;
    /// The verdicts on such keys.
    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>];
}

impl StoredKey for u32 {
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]> {
        match entries {
            Entries::Ip4(entries) => Some(entries),
            _ => None,
        }
    }

    fn family(counts: &EpochCounts) -> &KernelFamily<Self> {
        &counts.ip4
    }

    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>] {
        &judgement.ip4[side as usize]
    }
}

impl StoredKey for u64 {
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]> {
        match entries {
            Entries::Ip6Half(entries) => Some(entries),
            _ => None,
        }
    }

    fn family(counts: &EpochCounts) -> &KernelFamily<Self> {
        &counts.ip6_half
    }

    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>] {
        &judgement.ip6_half[side as usize]
    }
}

impl StoredKey for u128 {
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]> {
        match entries {
            Entries::Ip6(entries) => Some(entries),
            _ => None,
        }
    }

    fn family(counts: &EpochCounts) -> &KernelFamily<Self> {
        &counts.ip6
    }

    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>] {
        &judgement.ip6[side as usize]
    }
}

/// Gives the verdicts, interval after interval: what is uncertain at an interval's end must be
/// settled in the next one.
#[derive(Debug)]
pub struct Judge {
    ip4: [SideJudge<u32>; 2],
    ip6_half: [SideJudge<u64>; 2],
    ip6: [SideJudge<u128>; 2],
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            ip4: [SideJudge::new(), SideJudge::new()],
            ip6_half: [SideJudge::new(), SideJudge::new()],
            ip6: [SideJudge::new(), SideJudge::new()],
        }
    }
}

#[derive(Debug)]
struct SideJudge<K> {
    reconciler: Reconciler<K>,
    /// The last interval had packets without a time stamp of the kernel's, or such as were held back; some
    /// of them may have come in this one.
    was_unstamped: bool,
}

impl Judge {
    /// Judges `interval`, which must follow the one judged before, if it has a cross-check.
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
            for version in [4, 6] {
                let reasons = &kernel.counts.reasons;
                let without_length = reasons.of(version, side, reason::WITHOUT_LENGTH);
                summary.sides[at].without_length.add(without_length);
            }
            judgement.summary = summary;
        }
        judgement.summary.keep_worst();
        if let Some(kernel) = &mut interval.kernel {
            kernel.judgement = Some(judgement);
        }
    }
}

impl<K: StoredKey> SideJudge<K> {
    fn new() -> Self {
        Self {
            reconciler: Reconciler::new(K::ZERO),
            was_unstamped: false,
        }
    }

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
        let mut circumstances = self.circumstances(&groups, kernel, side);
        // What passed meanwhile NFLOG could not count. Where it is the rules that were gone, that is what
        // the verdicts are for.
        let gaps = gaps.iter().filter(|gap| gap.cause != GapCause::RulesGone);
        let groups_with_gaps: Vec<_> = gaps.flat_map(|gap| &gap.groups).collect();
        circumstances.incomparable |= groups
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
                .reconcile(observed(&groups, counted), Some(&outside), &circumstances);
        summary.add(side, counted, &outcome, &circumstances);
        outcome.findings
    }

    fn circumstances(
        &mut self,
        groups: &[&GroupInterval],
        kernel: &KernelInterval,
        side: Side,
    ) -> Circumstances {
        let mut counts = Counts::default();
        for group in groups {
            counts.add(&group.counts);
        }
        let is_unstamped = counts.unstamped > 0 || kernel.is_delayed[side as usize];
        let unstamped = is_unstamped || self.was_unstamped;
        self.was_unstamped = is_unstamped;
        let overflow = kernel
            .counts
            .reasons
            .of(K::FAMILY.version(), side, reason::OVERFLOW);
        Circumstances {
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

/// What both counted, prefix by prefix.
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

/// The kernel's values put together again.
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
        circumstances: &Circumstances,
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
        let window = if circumstances.unstamped {
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

    fn tally_mut(&mut self, verdict: Verdict) -> &mut Tally {
        &mut self.tallies[verdict as usize]
    }

    fn keep_worst(&mut self) {
        self.worst.sort_unstable_by_key(|finding| {
            let amount = magnitude(finding.difference);
            Reverse((finding.verdict, amount.bytes, amount.packets))
        });
        self.worst.truncate(N_WORST);
    }
}

fn add_tallies(own: &mut [Tally], next: [Tally; Verdict::ALL.len()]) {
    for (own, next) in own.iter_mut().zip(next) {
        own.add(next);
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
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
