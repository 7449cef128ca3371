//! acctd is killed: what is saved is there once, and what is not is no more than a checkpoint's worth.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
