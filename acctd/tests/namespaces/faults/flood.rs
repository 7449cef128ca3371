//! More comes than can be counted or held: memory stays bounded, and the sums add up.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
