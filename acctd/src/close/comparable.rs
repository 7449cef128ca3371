//! Which intervals the cross-check can be compared with.

use crate::model::interval::PeriodIndex;

/// Intervals around a restart: NFLOG continued to count, the cross-check did not.
#[derive(Default)]
pub(super) struct NotComparable {
    /// This one and earlier ones.
    pub(super) through: Option<PeriodIndex>,
    /// This one and later ones.
    pub(super) from: Option<PeriodIndex>,
}

impl NotComparable {
    pub(super) fn has(&self, index: PeriodIndex) -> bool {
        self.through.is_some_and(|through| index <= through)
            || self.from.is_some_and(|from| index >= from)
    }
}
