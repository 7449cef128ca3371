//! Which intervals the cross-check can be held against.

use crate::model::interval::PeriodIndex;

/// Intervals around a restart: NFLOG counted through it, the cross-check did not.
#[derive(Debug, Default)]
pub(super) struct NotComparable {
    /// This one and those before.
    pub(super) through: Option<PeriodIndex>,
    /// This one and those after.
    pub(super) from: Option<PeriodIndex>,
}

impl NotComparable {
    pub(super) fn has(&self, index: PeriodIndex) -> bool {
        self.through.is_some_and(|through| index <= through)
            || self.from.is_some_and(|from| index >= from)
    }
}
