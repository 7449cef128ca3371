//! A prefix with its bytes and packets, and lists of these.

use std::cmp::Reverse;

use acctd_common::Counters;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::prefix::PrefixKey;

/// One prefix and what it sent or received.
///
/// Aligned to 4 bytes, so that an IPv4 prefix takes 20 bytes instead of 24. The fields cannot be borrowed.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Entry<K: Copy> {
    key: K,
    bytes: u64,
    packets: u64,
}

const _: () = assert!(size_of::<Entry<u32>>() == 20);

const _: () = assert!(size_of::<Entry<u64>>() == 24);

const _: () = assert!(size_of::<Entry<u128>>() == 32);

impl<K: PrefixKey> Entry<K> {
    /// An entry of a list; ledgers count packets one by one.
    #[must_use]
    pub fn new(key: K, counters: Counters) -> Self {
        Self {
            key,
            bytes: counters.bytes,
            packets: counters.packets,
        }
    }

    /// The prefix that is counted.
    #[must_use]
    #[inline]
    pub fn key(&self) -> K {
        self.key
    }

    /// Counts one packet.
    #[inline]
    pub(crate) fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.packets += 1;
    }

    /// The prefix's bytes and packets.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            bytes: self.bytes,
            packets: self.packets,
        }
    }
}

/// The format is the key and the two counters. It does not depend on the layout in memory.
impl<K: PrefixKey + Serialize> Serialize for Entry<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.key(), self.bytes, self.packets).serialize(serializer)
    }
}

impl<'de, K: PrefixKey + Deserialize<'de>> Deserialize<'de> for Entry<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, bytes, packets) = Deserialize::deserialize(deserializer)?;
        Ok(Self::new(key, Counters { bytes, packets }))
    }
}

/// The ledger of one group for one period, with the key type of its family and prefix length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Entries {
    /// IPv4 prefixes.
    Ip4(Vec<Entry<u32>>),
    /// IPv6 prefixes of at most 64 bits.
    Ip6Half(Vec<Entry<u64>>),
    /// IPv6 prefixes of more than 64 bits.
    Ip6(Vec<Entry<u128>>),
}

impl Entries {
    /// How many prefixes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Ip4(entries) => entries.len(),
            Self::Ip6Half(entries) => entries.len(),
            Self::Ip6(entries) => entries.len(),
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Adds `more` to `all`. Afterwards `all` is sorted and has each prefix once.
pub fn merge<K: PrefixKey>(all: &mut Vec<Entry<K>>, more: Vec<Entry<K>>) {
    all.extend(more);
    sort_and_merge(all);
    all.shrink_to_fit();
}

/// Sorts entries in place and adds those with the same prefix; linear if they are sorted already.
pub fn sort_and_merge<K: PrefixKey>(entries: &mut Vec<Entry<K>>) {
    entries.sort_unstable_by_key(Entry::key);
    entries.dedup_by(|next, kept| {
        let is_same = next.key() == kept.key();
        if is_same {
            let mut sum = kept.counters();
            sum.add(next.counters());
            *kept = Entry::new(kept.key(), sum);
        }
        is_same
    });
}

/// Keeps the `limit` prefixes with the most packets, and adds all others to the prefix of the zero address.
/// Returns how many packets that are.
pub fn fold<K: PrefixKey>(entries: &mut Vec<Entry<K>>, limit: usize) -> u64 {
    if entries.len() <= limit {
        return 0;
    }
    entries.select_nth_unstable_by_key(limit, |entry| Reverse(entry.counters().packets));
    let mut folded = Counters::default();
    for entry in entries.drain(limit..) {
        folded.add(entry.counters());
    }
    merge(entries, vec![Entry::new(K::ZERO, folded)]);
    folded.packets
}
