//! What the cross-check is asked to do.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use acctd_common::contract::{MAX_STEPS, reason};

use crate::model::interval::{Interval, SETTLE_TIME};
use crate::model::prefix::{PrefixLength, Side};

/// An interface to cross-check, and whose addresses there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The interface's name.
    pub interface: String,
    /// Which end of it is accounted.
    pub end: End,
}

/// Which addresses of the packets on an interface are accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Those beyond it: sources of what comes in, destinations of what goes out.
    Far,
    /// Those on this side: destinations of what comes in, sources of what goes out.
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

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// TCX where the kernel has it, else clsact.
    Auto,
    /// TCX links (Linux 6.6), in front of all others; they go with the process.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// What the command line says of the cross-check.
#[derive(Clone, Debug)]
pub struct CrossCheckConfig {
    /// At least one; no interface twice.
    pub watched: Vec<Watched>,
    /// How to attach.
    pub attach: AttachMode,
    /// The most prefixes and sides that an epoch's map holds.
    pub max_prefixes: u32,
    /// A program of the user's own.
    pub object: Option<PathBuf>,
    /// Where to pin the maps.
    pub pin: Option<PathBuf>,
    /// Those of the families that have a group.
    pub prefix_lengths: Vec<PrefixLength>,
    /// The families and sides that have a group, as [`contract::accounted_bit`] numbers them.
    pub accounted: u8,
    /// Whether the program logs each packet.
    pub debug: bool,
}

impl CrossCheckConfig {
    /// Kernel memory that the maps take at the most, in bytes: the tables of all that are in place,
    /// and the prefixes of those that may be full. Measured within 5 %.
    #[must_use]
    pub fn memory(&self, interval: Interval) -> u64 {
        // An entry with its key and value takes a piece of the kernel's next size.
        const ENTRY: u64 = 192;
        const BUCKET: u64 = 16;
        let prefixes = u64::from(self.max_prefixes);
        let buckets = u64::from(n_entries(self.max_prefixes)).next_power_of_two();
        // The one being read, the open one, and those ahead.
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
        // IFNAMSIZ of linux/if.h, the NUL at the end included.
        if interface.is_empty() || interface.len() >= 16 || interface.contains(['/', ' ']) {
            return Err(format!("{interface:?} cannot be the name of an interface"));
        }
        Ok(Self {
            interface: interface.to_owned(),
            end,
        })
    }
}

/// How many epochs are kept ready behind the open one.
#[must_use]
pub fn n_ahead(interval: Interval) -> u32 {
    let length = interval.length().as_millis().max(1);
    let n_ahead = STALL.as_millis().div_ceil(length);
    u32::try_from(n_ahead)
        .unwrap_or(MAX_STEPS)
        .clamp(1, MAX_STEPS)
}

/// The keys that count packets without a prefix: each reason for each version (0, 4, 6) and side.
pub const N_REASON_KEYS: u32 = 3 * 2 * (reason::END - reason::NONE - 1) as u32;

/// The entries of an epoch's map for so many prefixes and sides: the reasons have theirs besides.
#[must_use]
pub fn n_entries(capacity: u32) -> u32 {
    capacity.saturating_add(N_REASON_KEYS)
}

impl Watched {
    /// The hook whose packets are counted for this side, as text: `eth0 egress`.
    #[must_use]
    pub fn hook_of(&self, side: Side) -> String {
        let hook = match (self.end, side) {
            (End::Far, Side::Source) | (End::Near, Side::Dest) => "ingress",
            (End::Far, Side::Dest) | (End::Near, Side::Source) => "egress",
        };
        format!("{} {hook}", self.interface)
    }
}

/// How long acctd may be kept from looking after the epochs without two running together.
pub const STALL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::kernel_counts::reason_keys;

    #[test]
    fn a_map_has_room_for_the_keys_of_all_reasons() {
        assert_eq!(reason_keys().len(), N_REASON_KEYS as usize);
    }
}
