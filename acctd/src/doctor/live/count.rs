//! A counter of nft.

use serde::Serialize;
use serde_json::Value;

/// Packets and their bytes, as nft counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Count {
    /// Out of nft's JSON.
    #[must_use]
    pub fn of(json: &Value) -> Option<Self> {
        Some(Self {
            packets: json["packets"].as_u64()?,
            bytes: json["bytes"].as_u64()?,
        })
    }

    /// What came after `earlier`; `None` if the counter was set back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            packets: self.packets.checked_sub(earlier.packets)?,
            bytes: self.bytes.checked_sub(earlier.bytes)?,
        })
    }
}
