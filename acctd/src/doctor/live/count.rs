//! The value of an nft counter.

use serde::{Deserialize, Serialize};

use crate::rules::nft_objects::Counter;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl From<&Counter> for Count {
    fn from(counter: &Counter) -> Self {
        Self {
            packets: counter.packets,
            bytes: counter.bytes,
        }
    }
}

impl Count {
    /// The difference to `earlier`; `None` if the counter was reset.
    pub(crate) fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            packets: self.packets.checked_sub(earlier.packets)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
        })
    }
}
