//! A prefix with its bytes and packets, and ledgers of them.

use std::cmp::Reverse;

use acctd_common::Counters;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::prefix::PrefixKey;

/// One prefix and what it sent or received.
///
/// Aligned to four bytes: 20 instead of 24 for an IPv4 prefix. Fields are read by copy.
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
    /// An entry on its own, for the row that gathers what was over the limit.
    #[must_use]
    pub fn new(key: K, counters: Counters) -> Self {
        Self {
            key,
            bytes: counters.bytes,
            packets: counters.packets,
        }
    }

    /// The prefix.
    #[must_use]
    #[inline]
    pub fn key(&self) -> K {
        self.key
    }

    #[inline]
    pub(crate) fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.packets += 1;
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            bytes: self.bytes,
            packets: self.packets,
        }
    }
}

/// As the key and the two counters, whatever its layout in memory.
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

/// The closed ledger of one group for one period, as its family and prefix length hold it.
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
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Ip4(entries) => entries.len(),
            Self::Ip6Half(entries) => entries.len(),
            Self::Ip6(entries) => entries.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Adds entries to others of the same kind: each prefix once, in order.
pub fn join<K: PrefixKey>(all: &mut Vec<Entry<K>>, more: Vec<Entry<K>>) {
    all.extend(more);
    sort_and_join(all);
    all.shrink_to_fit();
}

/// Puts entries in order where they lie, each prefix once; linear where they are so already.
pub fn sort_and_join<K: PrefixKey>(entries: &mut Vec<Entry<K>>) {
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

/// Returns the packets that went to the zero address.
pub fn fold<K: PrefixKey>(entries: &mut Vec<Entry<K>>, limit: usize) -> u64 {
    if entries.len() <= limit {
        return 0;
    }
    entries.select_nth_unstable_by_key(limit, |entry| Reverse(entry.counters().packets));
    let mut folded = Counters::default();
    for entry in entries.drain(limit..) {
        folded.add(entry.counters());
    }
    join(entries, vec![Entry::new(K::ZERO, folded)]);
    folded.packets
}
