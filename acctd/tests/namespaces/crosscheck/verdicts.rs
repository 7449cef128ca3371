//! Rules with a hole, packets logged twice, lost or not kept.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
