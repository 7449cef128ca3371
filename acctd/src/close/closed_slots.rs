//! The replies of the readers and of the cross-check to one command.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::count::slots::ClosedSlot;
use crate::crosscheck::epochs::ClosedEpoch;
use crate::model::closed_interval::KernelInterval;
use crate::model::interval::PeriodIndex;
use crate::model::position::Position;

/// Readers are identified by number.
#[derive(Default)]
pub(super) struct ClosedSlots {
    /// The slots by period, each with its reader.
    pub(super) slots: BTreeMap<PeriodIndex, Vec<(usize, ClosedSlot)>>,
    /// Periods in which a reader may lack packets.
    pub(super) open_losses: Vec<(usize, Range<PeriodIndex>)>,
    /// How far each reader has read.
    pub(super) positions: Vec<(usize, Position)>,
    /// The cross-check's epochs, oldest first.
    pub(super) kernel: Vec<ClosedEpoch>,
}

impl ClosedSlots {
    pub(super) fn with_data(&self) -> BTreeSet<PeriodIndex> {
        let epochs = self.kernel.iter().filter_map(|epoch| epoch.period);
        self.slots.keys().copied().chain(epochs).collect()
    }

    /// What was logged while acctd stopped belongs to the last period, although its time may be after the boundary: its
    /// file ends when acctd has stopped.
    pub(super) fn join_slots_after(&mut self, last: PeriodIndex) {
        let after = self.slots.split_off(&last.next());
        let after: Vec<_> = after.into_values().flatten().collect();
        if !after.is_empty() {
            self.slots.entry(last).or_default().extend(after);
        }
    }

    /// Epochs are prepared for future periods. If the clock is set back, they are closed with the others. NFLOG has
    /// nothing in these periods, but a program may have counted there, because it learns of the new clock late. These
    /// counts are added to the last period, which is then not compared.
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
        let last = self.kernel.iter_mut().rfind(|epoch| epoch.period.is_some());
        let Some(last) = last else {
            return;
        };
        for epoch in ahead {
            if epoch.counts.n_entries() > 0 || !last.is_exact {
                last.is_exact = false;
                last.counts.append(epoch.counts);
            }
        }
    }

    /// The slots of this period, and of earlier periods that have not been taken.
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

    /// The counts of the period's epoch. If there is none, the result is not comparable. What was counted before the
    /// first period or after the last is added to the neighbouring epoch.
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
