//! The types that the daemon and the eBPF programs share: one definition of what is counted, so that both
//! counts can be compared field by field.

#![no_std]

pub mod contract;
#[cfg(feature = "aya")]
#[expect(
    unsafe_code,
    reason = "aya accepts types that promise to be plain data"
)]
mod pod;
pub mod sample;

/// Bytes and packets that one prefix sent or received.
///
/// `repr(C)` with two `u64` and no padding: the layout is the same in the kernel's map and here.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes as the IP header gives them: IPv4 total length; IPv6 payload length plus the
    /// 40 bytes of the fixed header. Link-layer headers are not counted.
    pub bytes: u64,
    /// Packets, as the kernel handed them to the rule: a GRO or GSO packet counts once.
    pub packets: u64,
}

const _: () = assert!(size_of::<Counters>() == 16);

impl Counters {
    /// Adds `other` to `self`, saturating: a user's program may leave any numbers in a map.
    pub fn add(&mut self, other: Self) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.packets = self.packets.saturating_add(other.packets);
    }
}
