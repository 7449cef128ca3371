//! NFLOG groups, and what acctd counts of each.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::prefix::{PrefixLength, Side};

/// An NFLOG group: 1 to 65535. The kernel uses 0 itself; on the command line 0 means "off".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NflogGroup(pub u16);

impl fmt::Display for NflogGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A group, and what acctd counts of its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// The group's number.
    pub group: NflogGroup,
    /// Which of the two addresses is accounted.
    pub side: Side,
    /// The length of its prefixes, and the family of its packets.
    pub prefix_length: PrefixLength,
}
