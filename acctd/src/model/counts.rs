//! What happened to the packets of one group: the numbers behind "nothing is silent".
//!
//! For what the kernel handed over: `packets` (in rows) + `undecodable()` = all of it. What it
//! could not hand over is `lost`, from the gaps in its own numbering.

use std::sync::atomic::{AtomicU64, Ordering};

use acctd_common::Counters;
use serde::{Deserialize, Serialize};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one group, over one period or since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counts {
            /// Adds `other` to `self`.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// The largest of them.
            #[must_use]
            pub fn largest(&self) -> u64 {
                0 $(.max(self.$name))*
            }

            /// What was added since `earlier`, an older state of the same counters.
            #[must_use]
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(earlier.$name),)* }
            }
        }

        /// The same counters since the start, written by one reader and read by anyone.
        #[derive(Debug, Default)]
        pub struct SharedCounts {
            $($name: AtomicU64,)*
        }

        impl SharedCounts {
            /// Publishes the reader's counters. Relaxed: each stands for itself, and a
            /// number that is a datagram old is good enough for a warning or a metric.
            pub fn publish(&self, counts: &Counts) {
                $(self.$name.store(counts.$name, Ordering::Relaxed);)*
            }

            /// The counters as last published.
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
    /// Times that the kernel said (ENOBUFS) that the socket had overflowed.
    overruns,
    /// Overruns after which no packet came before the end, to show how many are lost.
    overruns_without_gap,
    /// Packets in rows of a later period than their time stamp's, which was written already.
    late,
    /// Packets in rows that carry no time stamp of the kernel's: theirs is that of the receive.
    unstamped,
    /// Packets in rows whose header has no length; they add no bytes.
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
    /// Packets that the kernel delivered and that are in no row.
    #[must_use]
    pub fn undecodable(&self) -> u64 {
        self.truncated + self.not_ip + self.other_family + self.malformed
    }
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Rows, the header not counted.
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
