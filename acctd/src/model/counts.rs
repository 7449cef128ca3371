//! What happened to the packets of one group.
//!
//! `packets` (in rows) + `undecodable()` is what the kernel delivered. `lost` is what it could not deliver,
//! by the gaps in its sequence numbers.

use std::sync::atomic::{AtomicU64, Ordering};

use acctd_common::Counters;
use serde::{Deserialize, Serialize};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one group, in one period or since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Adds each counter of `other`.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// The largest counter.
            #[must_use]
            pub fn largest(&self) -> u64 {
                0 $(.max(self.$name))*
            }

            /// What was added since `earlier`, which is an older state of these counters.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }

        /// The counters since the start. One reader writes them, and other threads read them.
        #[derive(Debug, Default)]
        pub struct SharedCounts {
            $($name: AtomicU64,)*
        }

        impl SharedCounts {
            /// Publishes the reader's counters. Relaxed, because warnings and metrics need no
            /// consistency between counters, and may be a datagram late.
            pub fn publish(&self, counts: &Counts) {
                $(self.$name.store(counts.$name, Ordering::Relaxed);)*
            }

            /// The counters that were published last.
            #[must_use]
            pub fn load(&self) -> Counts {
                Counts { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Packets in rows.
    packets,
    /// Their bytes: IP header and payload.
    bytes,
    /// Netlink datagrams that brought them.
    datagrams,
    /// Packets that the kernel numbered and could not deliver.
    lost,
    /// How often the kernel reported (ENOBUFS) that the socket had overflowed.
    overruns,
    /// Overruns after which no packet came before the end. So the number of lost packets is unknown.
    overruns_without_gap,
    /// Packets counted in a later period than that of their time stamp, which was closed already.
    late,
    /// Packets in rows without a time stamp of the kernel. Their time is when acctd received them.
    unstamped,
    /// Packets in rows whose IP header has no length. They add no bytes.
    without_length,
    /// Packets in the row of `0.0.0.0` or `::`, because the ledger was full.
    overflow,
    /// Not in rows: fewer bytes than an IP header.
    truncated,
    /// Not in rows: neither IPv4 nor IPv6.
    not_ip,
    /// Not in rows: IPv6 in an IPv4 group, or IPv4 in an IPv6 group.
    other_family,
    /// Not in rows: netlink messages that do not parse.
    malformed,
}

impl Counts {
    /// Packets that the kernel delivered and that are not in rows.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.truncated + self.not_ip + self.other_family + self.malformed
    }
}

/// The sums over the rows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// How many rows, without the header.
    pub rows: u64,
    /// The sum of the source columns.
    pub source: Counters,
    /// The sum of the destination columns.
    pub dest: Counters,
    /// The sum of the cross-check's source columns.
    pub tc_source: Counters,
    /// The sum of the cross-check's destination columns.
    pub tc_dest: Counters,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_counts_are_loaded_and_subtracted_field_by_field() {
        let mut counts = Counts {
            packets: 10,
            lost: 3,
            malformed: 1,
            ..Counts::default()
        };
        let earlier = counts;
        counts.add(&Counts {
            packets: 5,
            not_ip: 2,
            ..Counts::default()
        });
        let shared = SharedCounts::default();
        shared.publish(&counts);
        assert_eq!(shared.load(), counts);
        let delta = shared.load().since(&earlier);
        assert_eq!((delta.packets, delta.lost, delta.not_ip), (5, 0, 2));
        assert_eq!(counts.undecodable(), 3);
    }
}
