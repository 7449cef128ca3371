//! NFLOG groups, and what each is read for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::prefix::{PrefixLength, Side};

/// An NFLOG group: 1 to 65535. 0 is the kernel's own, and "off" on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NflogGroup(pub u16);

impl fmt::Display for NflogGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group and what it is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// The NFLOG group.
    pub group: NflogGroup,
    /// Which address is accounted.
    pub side: Side,
    /// To which prefix; its family is the group's.
    pub prefix_length: PrefixLength,
}
