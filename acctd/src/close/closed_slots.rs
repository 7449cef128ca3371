//! What the readers and the cross-check have handed over at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::count::slots::ClosedSlot;
use crate::crosscheck::epochs::ClosedEpoch;
use crate::model::closed_interval::KernelInterval;
use crate::model::interval::PeriodIndex;
use crate::model::position::Position;

/// What was handed over at once.
#[derive(Default)]
pub(super) struct ClosedSlots {
    /// By the readers: by period, with each the number of its reader.
    pub(super) slots: BTreeMap<PeriodIndex, Vec<(usize, ClosedSlot)>>,
    /// Periods in which a reader may lack packets, with the number of the reader.
    pub(super) open_losses: Vec<(usize, Range<PeriodIndex>)>,
    /// How far each reader has come, with its number.
    pub(super) positions: Vec<(usize, Position)>,
    /// By the cross-check, in the order of time.
    pub(super) kernel: Vec<ClosedEpoch>,
}

impl ClosedSlots {
    pub(super) fn with_data(&self) -> BTreeSet<PeriodIndex> {
        let epochs = self.kernel.iter().filter_map(|epoch| epoch.period);
        self.slots.keys().copied().chain(epochs).collect()
    }

    /// Epochs lie ready for periods that have not come. If the clock is set back, they are handed over with
    /// the others, and nothing of NFLOG's is in them: what a program has counted there, by a clock that
    /// it was told of too late, goes with the last period, whose numbers are compared no more.
    pub(super) fn join_epochs_after(&mut self, last: PeriodIndex) {
        let last = self
            .slots
            .keys()
            .next_back()
            .map_or(last, |data| last.max(*data));
        let (ahead, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.kernel)
            .into_iter()
            .partition(|epoch| epoch.period.is_some_and(|period| period > last));
        self.kernel = kept;
        let own = self.kernel.iter_mut().rfind(|epoch| epoch.period.is_some());
        let Some(own) = own else {
            return;
        };
        for epoch in ahead {
            if epoch.counts.n_entries() > 0 || !own.is_exact {
                own.is_exact = false;
                own.counts.append(epoch.counts);
            }
        }
    }

    /// Those of this period, and of any before it that was not named.
    pub(super) fn take_through(
        &mut self,
        index: PeriodIndex,
    ) -> impl Iterator<Item = (usize, ClosedSlot)> {
        let later = self.slots.split_off(&index.next());
        std::mem::replace(&mut self.slots, later)
            .into_values()
            .flatten()
    }

    pub(super) fn has_open_loss(&self, reader: usize, index: PeriodIndex) -> bool {
        self.open_losses
            .iter()
            .any(|(lossy, periods)| *lossy == reader && periods.contains(&index))
    }

    /// The period's epoch; where there is none, nothing can be compared. What was counted before the
    /// first period or after the last goes with the epoch beside it.
    pub(super) fn take_kernel(&mut self, index: PeriodIndex) -> KernelInterval {
        let at = self
            .kernel
            .iter()
            .position(|epoch| epoch.period == Some(index));
        let Some(at) = at else {
            return KernelInterval::default();
        };
        let mut outside = Vec::new();
        let epoch = self.kernel.remove(at);
        let is_outside =
            |epoch: Option<&ClosedEpoch>| epoch.is_some_and(|one| one.period.is_none());
        if is_outside(self.kernel.get(at)) {
            outside.push(self.kernel.remove(at).counts);
        }
        if at > 0 && is_outside(self.kernel.get(at - 1)) {
            outside.push(self.kernel.remove(at - 1).counts);
        }
        KernelInterval {
            counts: epoch.counts,
            outside,
            is_comparable: epoch.is_exact,
            is_delayed: epoch.is_delayed,
            drained_in: epoch.drained_in,
            ..KernelInterval::default()
        }
    }
}
