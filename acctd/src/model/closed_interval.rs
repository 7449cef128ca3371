//! An interval that is over, and what was counted in it.

use std::time::Duration;

use acctd_common::Counters;
use serde::{Deserialize, Serialize};

use crate::model::counts::Counts;
use crate::model::entries::{Entries, Entry};
use crate::model::explanation::Explained;
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::Period;
use crate::model::kernel_counts::{EpochCounts, REASONS};
use crate::model::verdict::Judgement;

/// A period that is over, and what was counted in it. Only `close::engine` makes one, from ledgers
/// that have left their readers. So an open period cannot be written.
#[derive(Debug)]
pub struct ClosedInterval {
    /// The time that it covers. The first and the last of a run may be shorter than the interval.
    pub period: Period,
    /// One element per group.
    pub groups: Vec<GroupInterval>,
    /// What the kernel counted; `None` without a cross-check.
    pub kernel: Option<KernelInterval>,
    /// Times in the period for which it is unknown what was logged.
    pub gaps: Vec<Gap>,
    /// The names of its checkpoints. They are removed when the interval has a file.
    pub checkpoints: Vec<String>,
    /// How many intervals were merged into this one because too many rows waited for the disk; 1 if none.
    pub n_merged: u32,
}

/// A time in which packets may have been logged and lost, without a sequence number that shows how many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// From the end of what is accounted for to the moment from which packets are counted again.
    pub period: Period,
    /// The groups whose packets may be lost.
    pub groups: Vec<NflogGroup>,
    /// Why packets may be lost; a word in `intervals.jsonl`.
    pub cause: GapCause,
}

/// The cause of a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// acctd was killed. What it counted after its last checkpoint is lost, and nothing was received before
    /// the next start.
    Killed,
    /// The kernel had no socket bound to the group.
    Unbound,
    /// The rules that log to the group were removed.
    RulesGone,
}

/// What one group counted in a period.
#[derive(Clone, Debug)]
pub struct GroupInterval {
    /// The group, and what it is read for.
    pub config: GroupConfig,
    /// What happened to its packets.
    pub counts: Counts,
    /// Its ledgers. Each has a prefix at most once. Empty if no datagram came.
    pub entries: Vec<Entries>,
    /// Whether packets of this period may be lost that are counted as lost in a later period, or not yet.
    pub loss_is_open: bool,
}

impl From<GroupConfig> for GroupInterval {
    /// A group that has counted nothing.
    fn from(config: GroupConfig) -> Self {
        Self {
            config,
            counts: Counts::default(),
            entries: Vec::new(),
            loss_is_open: false,
        }
    }
}

/// What the kernel counted in a closed period.
#[derive(Debug, Default)]
pub struct KernelInterval {
    /// The packets of each prefix, and the packets without a prefix by reason.
    pub counts: EpochCounts,
    /// What it counted just before the first period and just after the last one.
    pub outside: Vec<EpochCounts>,
    /// Whether the kernel and NFLOG counted for the same time.
    pub is_comparable: bool,
    /// By side: whether packets were delayed between the kernel's count and NFLOG's.
    pub is_delayed: [bool; 2],
    /// How long it took to read the kernel's map.
    pub drained_in: Duration,
    /// `None` until the verdicts are given.
    pub judgement: Option<Judgement>,
    /// What `--explain` found out about earlier intervals since the last one was closed.
    pub explained: Vec<Explained>,
}

impl KernelInterval {
    /// Packets that the kernel counted without a prefix, by the name of the reason.
    pub fn uncounted(&self) -> impl Iterator<Item = (&'static str, Counters)> {
        let reasons = REASONS.iter();
        reasons.map(|&(reason, name)| (name, self.counts.reasons.sum(reason)))
    }

    /// Merges the next interval into this one. Both have their verdicts.
    pub fn append(&mut self, next: Self) {
        self.counts.append(next.counts);
        self.outside = Vec::new();
        self.is_comparable &= next.is_comparable;
        for (own, next) in self.is_delayed.iter_mut().zip(next.is_delayed) {
            *own |= next;
        }
        self.drained_in += next.drained_in;
        self.explained.extend(next.explained);
        match (&mut self.judgement, next.judgement) {
            (Some(judgement), Some(next)) => judgement.append(next),
            (judgement, next) => *judgement = judgement.take().or(next),
        }
    }
}

impl ClosedInterval {
    /// An interval without a cross-check, gaps or checkpoints.
    #[must_use]
    pub fn new(period: Period, groups: Vec<GroupInterval>) -> Self {
        Self {
            period,
            groups,
            kernel: None,
            gaps: Vec::new(),
            checkpoints: Vec::new(),
            n_merged: 1,
        }
    }

    /// The sum over all groups.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for group in &self.groups {
            sum.add(&group.counts);
        }
        sum
    }

    /// Sorts all entries in place; linear if they are sorted already.
    pub fn sort(&mut self) {
        for ledger in self.groups.iter_mut().flat_map(|group| &mut group.entries) {
            match ledger {
                Entries::Ip4(entries) => entries.sort_unstable_by_key(Entry::key),
                Entries::Ip6Half(entries) => entries.sort_unstable_by_key(Entry::key),
                Entries::Ip6(entries) => entries.sort_unstable_by_key(Entry::key),
            }
        }
        if let Some(kernel) = &mut self.kernel {
            kernel.counts.sort();
        }
    }
}
