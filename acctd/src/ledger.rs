//! The counters of one group in one period: prefix → bytes and packets.
//!
//! The entries lie densely in a vector and a hash table holds their positions. That costs
//! 5 bytes a slot instead of a whole entry, so a million IPv4 prefixes take 20 MB of entries and
//! 10 MB of index; growing the index moves no counter; and a closed ledger is already the list
//! that the writer sorts: it is handed over whole, without a copy.

use std::hash::BuildHasher;

use acctd_common::Counters;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::prefix::PrefixKey;

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

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            bytes: self.bytes,
            packets: self.packets,
        }
    }
}

/// Positions of the entries by the hash of their keys, kept from one period to the next so that
/// a router with a steady set of prefixes grows its table once.
pub type Index = HashTable<u32>;

/// The open counters of one group.
///
/// Invariant: each key stands in exactly one entry, and the index holds exactly the positions
/// of all entries.
#[derive(Debug)]
pub struct Ledger<K: Copy> {
    index: Index,
    entries: Vec<Entry<K>>,
    /// Seeded anew for each ledger: the keys come from the network, and whoever knew the hash
    /// could choose addresses that all fall on one slot.
    hasher: RandomState,
    limit: usize,
    overflow: Counters,
}

impl<K: PrefixKey> Ledger<K> {
    /// An empty ledger of at most `limit` prefixes, on an index used before or a new one.
    #[must_use]
    pub fn new(limit: usize, mut index: Index) -> Self {
        index.clear();
        Self {
            index,
            entries: Vec::new(),
            hasher: RandomState::default(),
            limit: limit.min(u32::MAX as usize),
            overflow: Counters::default(),
        }
    }

    /// Counts one packet. False where the ledger is full and knows no such prefix: then the
    /// packet stands in the overflow instead.
    #[inline]
    pub fn add(&mut self, key: K, bytes: u64) -> bool {
        let hash = self.hasher.hash_one(key);
        let entries = &mut self.entries;
        let known = self
            .index
            .find(hash, |&position| entries[position as usize].key() == key);
        if let Some(&position) = known {
            let entry = &mut entries[position as usize];
            entry.bytes += bytes;
            entry.packets += 1;
            return true;
        }
        self.add_new(hash, key, bytes)
    }

    #[cold]
    fn add_new(&mut self, hash: u64, key: K, bytes: u64) -> bool {
        if self.entries.len() >= self.limit {
            self.overflow.add(Counters { bytes, packets: 1 });
            return false;
        }
        let (entries, hasher) = (&mut self.entries, &self.hasher);
        // The limit is at most u32::MAX, so each position fits.
        let position = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        entries.push(Entry {
            key,
            bytes,
            packets: 1,
        });
        self.index.insert_unique(hash, position, |&position| {
            hasher.hash_one(entries[position as usize].key())
        });
        true
    }

    /// Ends the ledger: its entries in the order of their first packet, with the overflow as an
    /// entry for `0.0.0.0` or `::`, and the index for the next ledger.
    #[must_use]
    pub fn close(self) -> (Vec<Entry<K>>, Index) {
        let Self {
            index,
            mut entries,
            overflow,
            ..
        } = self;
        if overflow.packets > 0 {
            entries.push(Entry::new(K::ZERO, overflow));
        }
        (entries, index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close_sorted(ledger: Ledger<u32>) -> Vec<(u32, u64, u64)> {
        let (entries, _) = ledger.close();
        let mut rows: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.key(),
                    entry.counters().bytes,
                    entry.counters().packets,
                )
            })
            .collect();
        rows.sort_unstable();
        rows
    }

    #[test]
    fn close_keeps_every_count() {
        let mut ledger = Ledger::new(1_000_000, Index::new());
        for round in 0..3_u32 {
            for key in 0..10_000_u32 {
                assert!(ledger.add(key.wrapping_mul(0x9e37_79b9), u64::from(key + round)));
            }
        }
        let rows = close_sorted(ledger);
        assert_eq!(rows.len(), 10_000);
        assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 30_000);
        let bytes: u64 = (0..10_000).map(|key| 3 * key + 3).sum();
        assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), bytes);
    }

    #[test]
    fn what_is_over_the_limit_goes_to_the_zero_prefix() {
        let mut ledger = Ledger::new(2, Index::new());
        assert!(ledger.add(7, 10));
        assert!(ledger.add(8, 10));
        assert!(!ledger.add(9, 30));
        assert!(ledger.add(7, 10), "a known prefix still counts");
        assert!(!ledger.add(10, 40));
        assert_eq!(close_sorted(ledger), [(0, 70, 2), (7, 20, 2), (8, 10, 1)]);
    }

    #[test]
    fn an_index_used_before_starts_empty() {
        let mut first = Ledger::new(10, Index::new());
        first.add(1_u32, 100);
        let (_, index) = first.close();
        let mut second = Ledger::new(10, index);
        second.add(1_u32, 5);
        assert_eq!(close_sorted(second), [(1, 5, 1)]);
    }
}
