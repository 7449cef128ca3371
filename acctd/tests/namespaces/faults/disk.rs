//! The disk is full, read-only, slow or gone: what was counted waits, and is written in order.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
