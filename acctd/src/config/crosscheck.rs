//! The configuration of the cross-check.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use acctd_common::contract::{MAX_STEPS, reason};

use crate::model::interval::{Interval, SETTLE_TIME};
use crate::model::prefix::{PrefixLength, Side};

/// An interface to cross-check, and which of its two ends is accounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// A name that Linux allows.
    pub interface: String,
    /// The end whose addresses are accounted.
    pub end: End,
}

/// Which addresses of the packets on an interface are accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Those beyond the interface: sources of incoming packets, destinations of outgoing ones.
    Far,
    /// Those on this side: destinations of incoming packets, sources of outgoing ones.
    Near,
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Far => "far",
            End::Near => "near",
        };
        write!(f, "{}:{end}", self.interface)
    }
}

/// How to attach the TC programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX if the kernel has it, else clsact.
    Auto,
    /// TCX links (Linux 6.6), before all others; they end with the process.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// The configuration of the cross-check.
#[derive(Clone, Debug)]
pub struct CrossCheckConfig {
    /// At least one; no interface twice.
    pub watched: Vec<Watched>,
    /// How to attach the programs.
    pub attach: AttachMode,
    /// The most prefixes in an epoch's map; source and destination count separately.
    pub max_prefixes: u32,
    /// The user's object, instead of acctd's.
    pub object: Option<PathBuf>,
    /// The directory of bpffs to pin the maps in.
    pub pin: Option<PathBuf>,
    /// One for each family that has a group.
    pub prefix_lengths: Vec<PrefixLength>,
    /// The families and sides that have a group, as [`acctd_common::contract::accounted_bit`] numbers them.
    pub accounted: u8,
    /// Whether files have what each prefix's packets are on the wire.
    pub wire: bool,
    /// Whether acctd explains by itself what its rules miss.
    pub explain: bool,
    /// Whether acctd's program logs each packet.
    pub debug: bool,
}

impl CrossCheckConfig {
    /// The most entries in an epoch's map, beside those of the reasons.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        let of_a_prefix = if self.wire { 2 } else { 1 };
        self.max_prefixes.saturating_mul(of_a_prefix)
    }

    /// The most kernel memory that the maps take, in bytes: the hash tables of all maps, and the entries of
    /// those maps that may be full. Measurements differ from it by at most 5 %.
    #[must_use]
    pub fn memory(&self, interval: Interval) -> u64 {
        // Key and value, rounded up to the kernel's next allocation size.
        const ENTRY: u64 = 192;
        const BUCKET: u64 = 16;
        let prefixes = u64::from(self.capacity());
        let buckets = u64::from(n_entries(self.capacity())).next_power_of_two();
        // The map being read, the open one, and those ahead.
        let n_maps = 2 + u64::from(n_ahead(interval));
        let n_full = 1 + SETTLE_TIME
            .as_nanos()
            .div_ceil(interval.length().as_nanos().max(1));
        let n_full = u64::try_from(n_full).unwrap_or(n_maps).min(n_maps);
        n_maps * buckets * BUCKET + n_full * prefixes * ENTRY
    }
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (interface, end) = match text.trim().rsplit_once(':') {
            Some((interface, "far")) => (interface, End::Far),
            Some((interface, "near")) => (interface, End::Near),
            Some((_, other)) => {
                return Err(format!(
                    "{other:?} is neither \"far\" (the addresses beyond the interface) nor \"near\""
                ));
            }
            None => (text.trim(), End::Far),
        };
        // IFNAMSIZ of linux/if.h includes the final NUL.
        if interface.is_empty() || interface.len() >= 16 || interface.contains(['/', ' ']) {
            return Err(format!("{interface:?} is not a valid name of an interface"));
        }
        Ok(Self {
            interface: interface.to_owned(),
            end,
        })
    }
}

/// How many epochs are ready after the open one.
#[must_use]
pub fn n_ahead(interval: Interval) -> u32 {
    let length = interval.length().as_millis().max(1);
    let n_ahead = STALL.as_millis().div_ceil(length);
    u32::try_from(n_ahead)
        .unwrap_or(MAX_STEPS)
        .clamp(1, MAX_STEPS)
}

/// How many keys count packets without a prefix: one per reason, version (0, 4, 6) and side.
pub const N_REASON_KEYS: u32 = 3 * 2 * (reason::END - reason::NONE - 1) as u32;

/// How many entries an epoch's map needs for `capacity` prefixes, and for the reasons why packets have none.
#[must_use]
pub fn n_entries(capacity: u32) -> u32 {
    capacity.saturating_add(N_REASON_KEYS)
}

impl Watched {
    /// The interface and hook where packets are counted for this side, as text: `eth0 egress`.
    #[must_use]
    pub fn hook_of(&self, side: Side) -> String {
        let hook = match (self.end, side) {
            (End::Far, Side::Source) | (End::Near, Side::Dest) => "ingress",
            (End::Far, Side::Dest) | (End::Near, Side::Source) => "egress",
        };
        format!("{} {hook}", self.interface)
    }
}

/// How long acctd may be unable to create epochs. If it takes longer, two intervals share a map.
pub const STALL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kernel_counts::reason_keys;

    #[test]
    fn a_map_has_room_for_the_keys_of_all_reasons() {
        assert_eq!(reason_keys().len(), N_REASON_KEYS as usize);
    }
}
