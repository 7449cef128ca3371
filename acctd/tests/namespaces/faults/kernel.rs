//! The kernel's side of a group goes away, or somebody else has taken it.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
