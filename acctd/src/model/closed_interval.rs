//! An interval that is over, with all that was counted in it.

use std::time::Duration;

use acctd_common::Counters;
use serde::{Deserialize, Serialize};

use crate::model::counts::Counts;
use crate::model::entries::{Entries, Entry};
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::Period;
use crate::model::kernel_counts::{EpochCounts, REASONS};
use crate::model::verdict::Judgement;

/// A period that is over, with all that was counted in it. Only [`crate::close::engine`] makes one,
/// from ledgers that their readers have let go of, so an open period cannot be written.
#[derive(Debug)]
pub struct ClosedInterval {
    /// The span it covers; the first and the last of a run are partial.
    pub period: Period,
    /// Each group's part.
    pub groups: Vec<GroupInterval>,
    /// What the kernel counted, with a cross-check.
    pub kernel: Option<KernelInterval>,
    /// Times in it of which it is not known what was logged.
    pub gaps: Vec<Gap>,
    /// The files of its checkpoints, which go when it has its own.
    pub checkpoints: Vec<String>,
    /// How many intervals were put together to this one because too many rows waited for the disk.
    pub n_merged: u32,
}

/// A time in which packets may have been logged that nobody received and no number tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// From the last moment that is accounted for to the first one that is again.
    pub period: Period,
    /// The groups that it concerns.
    pub groups: Vec<NflogGroup>,
    /// How it came about, as a word of `intervals.jsonl`.
    pub cause: GapCause,
}

/// What has made a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// acctd was killed: what came after its last checkpoint is gone, and nothing was received until
    /// it was started again.
    Killed,
    /// The kernel's side of the group was gone, until the group was bound again.
    Unbound,
    /// No rule logged to the group, where one had before.
    RulesGone,
}

/// What one group counted in a period.
#[derive(Clone, Debug)]
pub struct GroupInterval {
    /// The group.
    pub config: GroupConfig,
    /// What happened to its packets.
    pub counts: Counts,
    /// Its prefixes, in ledgers each of which has a prefix once; none where no datagram came.
    pub entries: Vec<Entries>,
    /// It may lack packets whose loss is counted in a later period, or not known yet.
    pub loss_is_open: bool,
}

impl From<GroupConfig> for GroupInterval {
    /// Nothing counted yet.
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
    /// What the kernel counted for no prefix, by the reason.
    pub fn uncounted(&self) -> impl Iterator<Item = (&'static str, Counters)> {
        let reasons = REASONS.iter();
        reasons.map(|&(reason, name)| (name, self.counts.reasons.sum(reason)))
    }

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

impl ClosedInterval {
    /// An interval with nothing but what its groups counted.
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

    /// The counters of all groups together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for group in &self.groups {
            sum.add(&group.counts);
        }
        sum
    }

    /// Puts everything in order where it lies; linear where that was done before.
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
