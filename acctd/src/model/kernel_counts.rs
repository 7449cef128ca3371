//! What the kernel counted in an epoch, taken out of its map: per prefix and side, in the same
//! entries as a ledger's, and for each reason why packets have no prefix.

use acctd_common::Counters;
use acctd_common::contract::{EpochKey, EpochValue, reason};

use crate::model::entries;
use crate::model::entries::Entry;
use crate::model::prefix::{PrefixKey, Side};

/// One side's prefixes of one family.
#[derive(Debug)]
pub struct KernelSide<K: Copy> {
    /// The packets of each prefix.
    pub totals: Vec<Entry<K>>,
    /// What the verdict may allow for; only for prefixes that have something here.
    pub allowances: Vec<(K, Allowances)>,
}

/// The parts of [`EpochValue`] beside the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowances {
    /// [`EpochValue::near_end`].
    pub near_end: Counters,
    /// [`EpochValue::before_end`].
    pub before_end: Counters,
    /// [`EpochValue::fragments`].
    pub fragments: Counters,
}

impl Allowances {
    fn add(&mut self, other: Self) {
        self.near_end.add(other.near_end);
        self.before_end.add(other.before_end);
        self.fragments.add(other.fragments);
    }
}

/// Both sides of one family, for the key that its prefix length needs.
#[derive(Debug)]
pub struct KernelFamily<K: Copy> {
    source: KernelSide<K>,
    dest: KernelSide<K>,
}

/// All that the kernel counted in an epoch.
#[derive(Debug, Default)]
pub struct EpochCounts {
    /// IPv4 prefixes.
    pub ip4: KernelFamily<u32>,
    /// IPv6 prefixes of at most 64 bits; empty where the prefix length is longer.
    pub ip6_half: KernelFamily<u64>,
    /// IPv6 prefixes of more than 64 bits; empty where it is not.
    pub ip6: KernelFamily<u128>,
    /// Packets without a prefix.
    pub reasons: Reasons,
}

impl<K: Copy> Default for KernelSide<K> {
    fn default() -> Self {
        Self {
            totals: Vec::new(),
            allowances: Vec::new(),
        }
    }
}

impl<K: Copy> Default for KernelFamily<K> {
    fn default() -> Self {
        Self {
            source: KernelSide::default(),
            dest: KernelSide::default(),
        }
    }
}

impl<K: PrefixKey> KernelSide<K> {
    fn push(&mut self, key: K, value: &EpochValue) {
        self.totals.push(Entry::new(key, value.total));
        let allowances = Allowances {
            near_end: value.near_end,
            before_end: value.before_end,
            fragments: value.fragments,
        };
        if allowances != Allowances::default() {
            self.allowances.push((key, allowances));
        }
    }

    /// Takes in what was counted in the next epoch. Allowances are of no use any more.
    fn append(&mut self, next: Self) {
        self.allowances = Vec::new();
        entries::join(&mut self.totals, next.totals);
    }

    fn fold(&mut self, limit: usize) {
        entries::fold(&mut self.totals, limit);
    }

    /// Both lists by key; linear where they are sorted already. A program of the user's own may have
    /// several entries for a prefix, which differ where the contract wants zeros: they are one.
    pub fn sort(&mut self) {
        entries::sort_and_join(&mut self.totals);
        self.allowances.sort_unstable_by_key(|(key, _)| *key);
        self.allowances.dedup_by(|more, first| {
            let is_same = more.0 == first.0;
            if is_same {
                first.1.add(more.1);
            }
            is_same
        });
    }
}

impl<K: PrefixKey> KernelFamily<K> {
    fn append(&mut self, next: Self) {
        self.source.append(next.source);
        self.dest.append(next.dest);
    }
}

impl<K: Copy> KernelFamily<K> {
    /// One of the two.
    #[must_use]
    pub fn side(&self, side: Side) -> &KernelSide<K> {
        match side {
            Side::Source => &self.source,
            Side::Dest => &self.dest,
        }
    }

    /// One of the two, to be sorted.
    pub fn side_mut(&mut self, side: Side) -> &mut KernelSide<K> {
        match side {
            Side::Source => &mut self.source,
            Side::Dest => &mut self.dest,
        }
    }
}

impl EpochCounts {
    /// Takes in an entry of the map. `is_half` says that IPv6 prefixes are of at most 64 bits.
    /// A key that the contract does not know, from a program of the user's own, is ignored.
    pub fn take_in(&mut self, key: &EpochKey, value: &EpochValue, is_half: bool) {
        let Some(side) = side_of(key) else {
            return;
        };
        if key.reason != reason::NONE {
            self.reasons.add(key, value.total);
            return;
        }
        if value.total.packets == 0 {
            return;
        }
        match key.version {
            4 => self
                .ip4
                .side_mut(side)
                .push(u32::from_address(&key.address), value),
            6 if is_half => self
                .ip6_half
                .side_mut(side)
                .push(u64::from_address(&key.address), value),
            6 => self
                .ip6
                .side_mut(side)
                .push(u128::from_address(&key.address), value),
            _ => {}
        }
    }
}

impl EpochCounts {
    /// Entries that it has in memory.
    #[must_use]
    pub fn n_entries(&self) -> usize {
        let sides = [Side::Source, Side::Dest].into_iter();
        let n_entries = sides.map(|side| {
            self.ip4.side(side).totals.len()
                + self.ip6_half.side(side).totals.len()
                + self.ip6.side(side).totals.len()
        });
        n_entries.sum()
    }

    /// Takes in what was counted in the next epoch, once both have their verdicts.
    pub fn append(&mut self, next: Self) {
        self.ip4.append(next.ip4);
        self.ip6_half.append(next.ip6_half);
        self.ip6.append(next.ip6);
        self.reasons.append(&next.reasons);
    }

    /// Leaves at most `limit` prefixes of each family and side, and adds the others to the zero
    /// address.
    pub fn fold(&mut self, limit: usize) {
        for side in [Side::Source, Side::Dest] {
            self.ip4.side_mut(side).fold(limit);
            self.ip6_half.side_mut(side).fold(limit);
            self.ip6.side_mut(side).fold(limit);
        }
    }

    /// Everything in order where it lies; linear where that was done before.
    pub fn sort(&mut self) {
        for side in [Side::Source, Side::Dest] {
            self.ip4.side_mut(side).sort();
            self.ip6_half.side_mut(side).sort();
            self.ip6.side_mut(side).sort();
        }
    }
}

fn side_of(key: &EpochKey) -> Option<Side> {
    use acctd_common::contract::{SIDE_DEST, SIDE_SOURCE};
    match key.side {
        SIDE_SOURCE => Some(Side::Source),
        SIDE_DEST => Some(Side::Dest),
        _ => None,
    }
}

/// The versions that [`EpochKey::version`] can have.
pub const VERSIONS: [u8; 3] = [0, 4, 6];
const N_REASONS: usize = reason::END as usize;

/// Packets and bytes by reason, version and side.
#[derive(Clone, Debug, Default)]
pub struct Reasons([[[Counters; N_REASONS]; 2]; VERSIONS.len()]);

impl Reasons {
    fn add(&mut self, key: &EpochKey, counters: Counters) {
        let version = usize::from(key.version / 2).saturating_sub(1);
        if let Some(count) = self
            .0
            .get_mut(version)
            .and_then(|sides| sides.get_mut(usize::from(key.side)))
            .and_then(|reasons| reasons.get_mut(usize::from(key.reason)))
        {
            count.add(counters);
        }
    }

    fn append(&mut self, next: &Self) {
        let own = self.0.iter_mut().flatten().flatten();
        for (own, next) in own.zip(next.0.iter().flatten().flatten()) {
            own.add(*next);
        }
    }

    /// Those of one family and side.
    #[must_use]
    pub fn of(&self, version: u8, side: Side, reason: u8) -> Counters {
        self.0[usize::from(version / 2).saturating_sub(1)][side as usize][usize::from(reason)]
    }

    /// Those of all families and sides.
    #[must_use]
    pub fn sum(&self, reason: u8) -> Counters {
        let mut sum = Counters::default();
        for side in self.0.iter().flatten() {
            sum.add(side[usize::from(reason)]);
        }
        sum
    }
}

/// The names of the map contract's reasons.
pub const REASONS: [(u8, &str); 10] = [
    (reason::NOT_IP, "not_ip"),
    (reason::OTHER_HOST, "other_host"),
    (reason::BAD_HEADER, "bad_header"),
    (reason::BAD_CHECKSUM, "bad_checksum"),
    (reason::TRUNCATED, "truncated"),
    (reason::BAD_OPTIONS, "bad_options"),
    (reason::UNKNOWN_VLAN, "unknown_vlan"),
    (reason::OVERFLOW, "overflow"),
    (reason::UNACCOUNTED, "unaccounted"),
    (reason::WITHOUT_LENGTH, "without_length"),
];

/// The keys of all reasons.
#[must_use]
pub fn reason_keys() -> Vec<EpochKey> {
    let mut keys = Vec::new();
    for version in VERSIONS {
        for side in 0..2 {
            keys.extend((reason::NONE + 1..reason::END).map(|reason| EpochKey {
                version,
                side,
                reason,
                ..EpochKey::default()
            }));
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_sorted_out_by_version_side_and_reason() {
        let mut counts = EpochCounts::default();
        let one = |bytes| EpochValue {
            total: Counters { bytes, packets: 1 },
            ..EpochValue::default()
        };
        let mut address = [0; 16];
        address[..4].copy_from_slice(&[192, 0, 2, 7]);
        let ip4 = EpochKey {
            version: 4,
            address,
            ..EpochKey::default()
        };
        counts.take_in(&ip4, &one(100), true);
        counts.take_in(
            &EpochKey {
                side: 1,
                version: 6,
                ..ip4
            },
            &one(200),
            true,
        );
        counts.take_in(
            &EpochKey {
                side: 1,
                version: 6,
                ..ip4
            },
            &one(300),
            false,
        );
        for version in VERSIONS {
            let key = EpochKey {
                version,
                side: 1,
                reason: reason::TRUNCATED,
                ..EpochKey::default()
            };
            counts.take_in(&key, &one(u64::from(version)), true);
        }
        // Nothing that the contract knows, and a prefix that was never counted.
        counts.take_in(&EpochKey { version: 5, ..ip4 }, &one(1), true);
        counts.take_in(&EpochKey { side: 2, ..ip4 }, &one(1), true);
        counts.take_in(&EpochKey { reason: 200, ..ip4 }, &one(1), true);
        counts.take_in(&ip4, &EpochValue::default(), true);
        let source = counts.ip4.side(Side::Source);
        assert_eq!(source.totals.len(), 1);
        assert_eq!(source.totals[0].key(), 0xc000_0207);
        assert!(source.allowances.is_empty());
        assert_eq!(
            counts.ip6_half.side(Side::Dest).totals[0].key(),
            0xc000_0207 << 32
        );
        assert_eq!(
            counts.ip6.side(Side::Dest).totals[0].key(),
            0xc000_0207 << 96
        );
        assert_eq!(counts.reasons.of(4, Side::Dest, reason::TRUNCATED).bytes, 4);
        assert_eq!(
            counts.reasons.of(4, Side::Source, reason::TRUNCATED).bytes,
            0
        );
        assert_eq!(counts.reasons.sum(reason::TRUNCATED).bytes, 10);
        assert_eq!(counts.reasons.sum(reason::TRUNCATED).packets, 3);
    }
}
