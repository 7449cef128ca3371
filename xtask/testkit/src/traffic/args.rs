//! What to send, and what was sent.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::mac::MacAddr;

/// What to send.
///
/// Start from [`TrafficArgs::new`]:
/// `TrafficArgs { count: 1000, ..TrafficArgs::new("eth0", mac, source, dest) }`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub struct TrafficArgs {
    pub dev: String,

    pub to_mac: MacAddr,

    /// First source address, and the network the others must be in.
    pub source: IpNet,

    /// First destination address, and the network the others must be in.
    pub dest: IpNet,

    /// Number of source addresses, taken in turn.
    pub sources: u32,

    /// Number of destination addresses, taken in turn.
    pub dests: u32,

    /// Take the addresses in a scattered order instead of one after the other. Each comes once in as
    /// many packets as there are addresses, as before.
    pub scattered: bool,

    /// Successive addresses differ by 2 to the power of this; by default 0 for IPv4, 64 for IPv6.
    pub step_bits: Option<u8>,

    pub count: u64,

    /// Packets per second, evenly spaced; 0 is full speed.
    pub rate: u32,

    /// Length of the IP packets; of a range, each length in turn.
    pub size: Sizes,

    /// VLAN id in a tag of the frame; the outer one first where there are two.
    pub vlan: Vec<u16>,

    /// What the frame claims to carry, if not IPv4 or IPv6.
    pub ether_type: Option<u16>,

    /// Write 0 for the length into the IP headers, as packets above 64 KiB have it.
    pub no_length: bool,

    /// Put the Unix second of sending, modulo 65536, into the source address: into the 16 bits that
    /// `step_bits` names, the low ones of an IPv4 address or of a /64's number. Nothing is sent
    /// within 30 ms of a full second.
    pub clock_sources: bool,

    /// The same for the destination address, alone or besides.
    pub clock_dests: bool,
}

impl TrafficArgs {
    /// One packet of 100 bytes.
    pub fn new(dev: &str, to_mac: MacAddr, source: IpNet, dest: IpNet) -> Self {
        Self {
            dev: dev.to_owned(),
            to_mac,
            source,
            dest,
            sources: 1,
            dests: 1,
            scattered: false,
            step_bits: None,
            count: 1,
            rate: 0,
            size: Sizes { min: 100, max: 100 },
            vlan: Vec::new(),
            ether_type: None,
            no_length: false,
            clock_sources: false,
            clock_dests: false,
        }
    }
}

/// The lengths of the IP packets, from the shortest to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The shortest, and the first.
    pub min: u16,
    pub max: u16,
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min)
        } else {
            write!(f, "{}-{}", self.min, self.max)
        }
    }
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Packets the device has taken.
    pub packets: u64,
    /// The sum of the lengths in their IP headers.
    pub bytes: u64,
    pub seconds: f64,
    /// With `clock_sources` or `clock_dests`: packets whose address may
    /// name the second before the one in which they were sent.
    pub straddled: u64,
}
