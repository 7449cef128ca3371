//! acctd keeps no more privileges than it needs, and runs without root.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
