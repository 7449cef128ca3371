//! The counters of one group in one period: prefix → bytes and packets.
//!
//! The entries are in a vector, without holes, and a hash index has their positions: a million IPv4 prefixes take
//! 20 MB of entries and 17 MB of index. When the index grows, no counter moves. A closed ledger is already the list
//! that the writer sorts, so it is not copied.

use std::hash::BuildHasher;

use acctd_common::Counters;
use foldhash::fast::RandomState;

use crate::model::entries::Entry;
use crate::model::prefix::PrefixKey;

/// The positions of the entries, by the hash of their keys: open addressing with linear probing.
///
/// A slot is 0, or the entry's position plus one in the lower bits and some bits of the hash (a tag) in the upper
/// ones. Because of the tag a look-up recognises an entry without reading it. So the two cache misses of a packet do
/// not depend on each other, and those of a batch of packets overlap. The tag has the bits that the positions do not
/// need: 10 of 32 in an index for a million prefixes. Then few look-ups in a thousand find the entry of another
/// prefix first.
///
/// The index is kept from one period to the next. So a router with a stable set of prefixes grows it once.
#[derive(Debug, Default)]
pub struct Index {
    /// Their number is 0 or a power of two.
    slots: Vec<u32>,
}

/// More prefixes would leave no bit for a tag.
const MAX_PREFIXES: usize = 1 << 30;

impl Index {
    /// This index, emptied; a small one if few of its slots were used.
    fn reuse(mut self, n_entries: usize) -> Self {
        if n_entries < self.slots.len() / 32 {
            return Self::default();
        }
        self.slots.fill(0);
        self
    }

    /// The most likely position of a key with this hash. The caller must compare the key of the entry.
    #[inline]
    fn likely_position(&self, hash: u64) -> Option<u32> {
        self.positions_with_tag(hash).next()
    }

    /// The possible positions of a key with this hash, the most likely first.
    #[inline]
    fn positions_with_tag(&self, hash: u64) -> impl Iterator<Item = u32> {
        let bits = self.position_bits();
        let tag = tag(hash, bits);
        self.probe(hash)
            .map(|(_, slot)| slot)
            .take_while(|slot| *slot != 0)
            .filter(move |slot| slot >> bits == tag)
            .map(move |slot| (slot & ((1 << bits) - 1)) - 1)
    }

    /// The slots for this hash, in the order of probing.
    #[inline]
    fn probe(&self, hash: u64) -> impl Iterator<Item = (usize, u32)> {
        let mask = self.slots.len().wrapping_sub(1);
        #[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
        let start = hash as usize;
        (0..self.slots.len()).map(move |step| {
            let at = start.wrapping_add(step) & mask;
            (at, self.slots[at])
        })
    }

    fn insert(&mut self, hash: u64, position: u32) {
        let bits = self.position_bits();
        let vacant = self.probe(hash).find(|(_, slot)| *slot == 0);
        if let Some((at, _)) = vacant {
            self.slots[at] = (tag(hash, bits) << bits) | (position + 1);
        }
    }

    /// How many bits a position plus one needs: there are fewer entries than slots.
    #[inline]
    fn position_bits(&self) -> u32 {
        self.slots.len().trailing_zeros().min(31)
    }

    /// Up to three eighths a look-up mostly ends at its first slot. Longer probes are branches that the processor
    /// cannot predict.
    fn is_full(&self, n_entries: usize) -> bool {
        n_entries >= self.slots.len() / 8 * 3
    }
}

/// The uppermost bits of the hash, as many as the positions do not need. The lowest bits choose the slot.
#[inline]
fn tag(hash: u64, position_bits: u32) -> u32 {
    // 32 bits are left, so they fit.
    u32::try_from(hash >> 32).unwrap_or(0) >> position_bits
}

/// How many packets are looked up together. Their keys, hashes and positions fit the first-level cache. No processor
/// overlaps more than some tens of cache misses.
pub const BATCH: usize = 128;

/// The open counters of one group.
///
/// Invariant: each key is in exactly one entry, and the index holds exactly the positions of all entries.
#[derive(Debug)]
pub struct Ledger<K: Copy> {
    index: Index,
    entries: Vec<Entry<K>>,
    /// Each ledger has a new seed. The keys come from the network: an attacker who knows the hash could choose
    /// addresses that all need the same slot.
    hasher: RandomState,
    limit: usize,
    overflow: Counters,
}

impl<K: PrefixKey> Ledger<K> {
    /// An empty ledger of at most `limit` prefixes. `index` may have been used before.
    #[must_use]
    pub fn new(limit: usize, index: Index) -> Self {
        Self {
            index,
            entries: Vec::new(),
            hasher: RandomState::default(),
            limit: limit.min(MAX_PREFIXES),
            overflow: Counters::default(),
        }
    }

    /// Counts packets, each a prefix and its bytes. Returns how many of them went to the overflow, because the ledger
    /// is full and does not have their prefix.
    pub fn add(&mut self, packets: &[(K, u64)]) -> u64 {
        packets
            .chunks(BATCH)
            .map(|batch| self.add_batch(batch))
            .sum()
    }

    /// Works in passes, so that the loads of a pass do not wait for each other.
    #[inline]
    fn add_batch(&mut self, batch: &[(K, u64)]) -> u64 {
        let mut hashes = [0; BATCH];
        for (hash, (key, _)) in hashes.iter_mut().zip(batch) {
            *hash = self.hasher.hash_one(key);
        }
        let mut positions = [u32::MAX; BATCH];
        for (position, hash) in positions.iter_mut().zip(&hashes[..batch.len()]) {
            *position = self.index.likely_position(*hash).unwrap_or(u32::MAX);
        }
        let mut overflowed = 0;
        for ((&(key, bytes), &position), &hash) in batch.iter().zip(&positions).zip(&hashes) {
            match self.entries.get_mut(position as usize) {
                Some(entry) if entry.key() == key => entry.count(bytes),
                _ => overflowed += u64::from(!self.add_slowly(hash, key, bytes)),
            }
        }
        overflowed
    }

    /// For a prefix that was new at the start of its batch, or shares the tag and the slot with another.
    #[cold]
    fn add_slowly(&mut self, hash: u64, key: K, bytes: u64) -> bool {
        let entries = &mut self.entries;
        let known = self
            .index
            .positions_with_tag(hash)
            .map(|position| position as usize)
            .find(|&position| entries[position].key() == key);
        if let Some(position) = known {
            entries[position].count(bytes);
            return true;
        }
        if entries.len() >= self.limit {
            self.overflow.add(Counters { bytes, packets: 1 });
            return false;
        }
        if self.index.is_full(entries.len()) {
            self.grow_index();
        }
        // The limit is far below u32::MAX, so each position fits.
        let position = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        self.entries
            .push(Entry::new(key, Counters { bytes, packets: 1 }));
        self.index.insert(hash, position);
        true
    }

    fn grow_index(&mut self) {
        const SMALLEST: usize = 1_024;
        let doubled = (self.index.slots.len() * 2).max(SMALLEST);
        // Frees the old slots before the new ones are allocated.
        self.index = Index::default();
        self.index.slots = vec![0; doubled];
        for (position, entry) in (0..).zip(&self.entries) {
            self.index
                .insert(self.hasher.hash_one(entry.key()), position);
        }
    }

    /// A copy of the entries that [`Ledger::close`] would return.
    #[must_use]
    pub fn copy(&self) -> Vec<Entry<K>> {
        let mut entries = Vec::with_capacity(self.entries.len() + 1);
        entries.extend_from_slice(&self.entries);
        entries.extend(self.overflow_entry());
        entries
    }

    /// The packets over the limit, as the entry for the zero address.
    fn overflow_entry(&self) -> Option<Entry<K>> {
        (self.overflow.packets > 0).then(|| Entry::new(K::ZERO, self.overflow))
    }

    /// Closes the ledger. Returns its entries in the order of their first packet, with the overflow as an entry for
    /// `0.0.0.0` or `::`, and the index for the next ledger.
    #[must_use]
    pub fn close(self) -> (Vec<Entry<K>>, Index) {
        let overflow = self.overflow_entry();
        let Self {
            index, mut entries, ..
        } = self;
        let index = index.reuse(entries.len());
        entries.extend(overflow);
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
        let mut ledger = Ledger::new(1_000_000, Index::default());
        for round in 0..3_u32 {
            let packets: Vec<(u32, u64)> = (0..10_000_u32)
                .map(|key| (key.wrapping_mul(0x9e37_79b9), u64::from(key + round)))
                .collect();
            assert_eq!(ledger.add(&packets), 0);
        }
        let rows = close_sorted(ledger);
        assert_eq!(rows.len(), 10_000);
        assert_eq!(rows.iter().map(|row| row.2).sum::<u64>(), 30_000);
        let bytes: u64 = (0..10_000).map(|key| 3 * key + 3).sum();
        assert_eq!(rows.iter().map(|row| row.1).sum::<u64>(), bytes);
    }

    #[test]
    fn a_new_prefix_may_come_twice_in_a_batch() {
        let mut ledger = Ledger::new(10, Index::default());
        ledger.add(&[(1, 10), (2, 20), (1, 30), (1, 40)]);
        assert_eq!(close_sorted(ledger), [(1, 80, 3), (2, 20, 1)]);
    }

    #[test]
    fn prefixes_that_share_a_hash_are_distinguished() {
        let mut ledger = Ledger::new(10, Index::default());
        for (key, bytes) in [(1, 10), (2, 20), (3, 30), (2, 200), (3, 300)] {
            assert!(ledger.add_slowly(77, key, bytes));
        }
        // All look-ups find the first of them, and then continue.
        let likely = ledger.index.likely_position(77);
        assert_eq!(likely, Some(0));
        assert_eq!(close_sorted(ledger), [(1, 10, 1), (2, 220, 2), (3, 330, 2)]);
    }

    #[test]
    fn what_is_over_the_limit_goes_to_the_zero_prefix() {
        let mut ledger = Ledger::new(2, Index::default());
        assert_eq!(ledger.add(&[(7, 10), (8, 10), (9, 30)]), 1);
        // A known prefix still counts.
        assert_eq!(ledger.add(&[(7, 10), (10, 40)]), 1);
        assert_eq!(close_sorted(ledger), [(0, 70, 2), (7, 20, 2), (8, 10, 1)]);
    }

    #[test]
    fn an_index_used_before_starts_empty() {
        let mut first = Ledger::new(10_000, Index::default());
        let packets: Vec<(u32, u64)> = (0..5_000).map(|key| (key, 100)).collect();
        first.add(&packets);
        let (_, index) = first.close();
        assert_eq!(index.slots.len(), 16_384);
        let mut second = Ledger::new(10_000, index);
        second.add(&[(1_u32, 5)]);
        let (entries, index) = second.close();
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].counters().bytes, 5);
        // An index that a flood has grown is dropped.
        assert_eq!(index.slots.len(), 0);
    }
}
