//! The value of an nft counter.

use serde::Serialize;
use serde_json::Value;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Count {
    pub(crate) fn of(json: &Value) -> Option<Self> {
        Some(Self {
            packets: json["packets"].as_u64()?,
            bytes: json["bytes"].as_u64()?,
        })
    }

    /// The difference to `earlier`; `None` if the counter was reset.
    pub(crate) fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            packets: self.packets.checked_sub(earlier.packets)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
        })
    }
}
