//! What the kernel counted in an epoch, as read from its map: per prefix and side, in the same entries as a
//! ledger; and per reason, for packets without a prefix.

use acctd_common::Counters;
use acctd_common::contract::{EpochKey, EpochValue, reason};

use crate::model::entries::{self, Entry};
use crate::model::prefix::{PrefixKey, Side};

/// One side's prefixes of one family.
#[derive(Debug)]
pub struct KernelSide<K: Copy> {
    /// The packets of each prefix.
    pub totals: Vec<Entry<K>>,
    /// What the verdict may allow for. Prefixes without any are missing.
    pub allowances: Vec<(K, Allowances)>,
    /// What packets of several segments are more on the wire ([`reason::SEGMENTS`]), if it is counted per prefix.
    /// Prefixes without any are missing.
    pub segments: Vec<Entry<K>>,
}

/// The parts of [`EpochValue`] except the total.
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

/// Both sides of one family, with the key type of its prefix length.
#[derive(Debug)]
pub struct KernelFamily<K: Copy> {
    source: KernelSide<K>,
    dest: KernelSide<K>,
}

/// What the kernel counted in an epoch.
#[derive(Debug, Default)]
pub struct EpochCounts {
    /// IPv4 prefixes.
    pub ip4: KernelFamily<u32>,
    /// IPv6 prefixes, if the prefix length is at most 64 bits.
    pub ip6_half: KernelFamily<u64>,
    /// IPv6 prefixes, if the prefix length is more than 64 bits.
    pub ip6: KernelFamily<u128>,
    /// Packets without a prefix, by reason.
    pub reasons: Reasons,
    /// The program counts [`reason::SEGMENTS`].
    pub has_segments: bool,
}

impl<K: Copy> Default for KernelSide<K> {
    fn default() -> Self {
        Self {
            totals: Vec::new(),
            allowances: Vec::new(),
            segments: Vec::new(),
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
    fn push(&mut self, key: &EpochKey, value: &EpochValue) {
        let prefix = K::from_address(&key.address);
        if key.reason == reason::SEGMENTS {
            self.segments.push(Entry::new(prefix, value.total));
        } else {
            self.push_packets(prefix, value);
        }
    }

    fn push_packets(&mut self, key: K, value: &EpochValue) {
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

    /// Adds what was counted in the next epoch. Allowances are dropped: the verdicts are given.
    fn append(&mut self, next: Self) {
        self.allowances = Vec::new();
        entries::merge(&mut self.totals, next.totals);
        entries::merge(&mut self.segments, next.segments);
    }

    fn fold(&mut self, limit: usize) {
        entries::fold(&mut self.totals, limit);
        entries::fold(&mut self.segments, limit);
    }

    /// Sorts both lists by key; linear if they are sorted already. A user's program may make several keys for
    /// one prefix, if it sets bytes that the contract wants to be zero. Their counts are added.
    pub fn sort(&mut self) {
        entries::sort_and_merge(&mut self.totals);
        entries::sort_and_merge(&mut self.segments);
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
    /// One of the two sides.
    #[must_use]
    pub fn side(&self, side: Side) -> &KernelSide<K> {
        match side {
            Side::Source => &self.source,
            Side::Dest => &self.dest,
        }
    }

    /// One of the two sides, to change it.
    pub fn side_mut(&mut self, side: Side) -> &mut KernelSide<K> {
        match side {
            Side::Source => &mut self.source,
            Side::Dest => &mut self.dest,
        }
    }
}

impl EpochCounts {
    /// Adds an entry of the map. `is_half` says that IPv6 prefixes have at most 64 bits. A user's program may
    /// make a key that is not in the contract; such a key is ignored.
    pub fn add(&mut self, key: &EpochKey, value: &EpochValue, is_half: bool) {
        let Some(side) = side_of(key) else {
            return;
        };
        if key.reason != reason::NONE {
            self.reasons.add(key, value.total);
        }
        let is_of_a_prefix = match key.reason {
            reason::NONE => true,
            reason::SEGMENTS => {
                self.has_segments = true;
                key.address != [0; 16]
            }
            _ => false,
        };
        if !is_of_a_prefix || value.total.packets == 0 {
            return;
        }
        match key.version {
            4 => self.ip4.side_mut(side).push(key, value),
            6 if is_half => self.ip6_half.side_mut(side).push(key, value),
            6 => self.ip6.side_mut(side).push(key, value),
            _ => {}
        }
    }

    /// How many entries are in memory.
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

    /// Adds what was counted in the next epoch. Both have their verdicts.
    pub fn append(&mut self, next: Self) {
        self.ip4.append(next.ip4);
        self.ip6_half.append(next.ip6_half);
        self.ip6.append(next.ip6);
        self.reasons.append(&next.reasons);
        self.has_segments |= next.has_segments;
    }

    /// Keeps at most `limit` prefixes of each family and side, and adds the others to the zero address.
    pub fn fold(&mut self, limit: usize) {
        for side in [Side::Source, Side::Dest] {
            self.ip4.side_mut(side).fold(limit);
            self.ip6_half.side_mut(side).fold(limit);
            self.ip6.side_mut(side).fold(limit);
        }
    }

    /// Sorts all entries in place; linear if they are sorted already.
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

/// The values of [`EpochKey::version`]; 0 is neither IPv4 nor IPv6.
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

    /// The packets of one version, side and reason.
    #[must_use]
    pub fn of(&self, version: u8, side: Side, reason: u8) -> Counters {
        self.0[usize::from(version / 2).saturating_sub(1)][side as usize][usize::from(reason)]
    }

    /// The packets of one reason, over all versions and sides.
    #[must_use]
    pub fn sum(&self, reason: u8) -> Counters {
        let mut sum = Counters::default();
        for side in self.0.iter().flatten() {
            sum.add(side[usize::from(reason)]);
        }
        sum
    }
}

/// The reasons of the map contract, and their names in `intervals.jsonl` and metrics.
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

/// All keys that an epoch's map may have for packets without a prefix, and for the sums of [`reason::SEGMENTS`].
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
    fn entries_are_added_by_version_side_and_reason() {
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
        counts.add(&ip4, &one(100), true);
        counts.add(
            &EpochKey {
                side: 1,
                version: 6,
                ..ip4
            },
            &one(200),
            true,
        );
        counts.add(
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
            counts.add(&key, &one(u64::from(version)), true);
        }
        // Keys that are not in the contract, and a prefix without packets.
        counts.add(&EpochKey { version: 5, ..ip4 }, &one(1), true);
        counts.add(&EpochKey { side: 2, ..ip4 }, &one(1), true);
        counts.add(&EpochKey { reason: 200, ..ip4 }, &one(1), true);
        counts.add(&ip4, &EpochValue::default(), true);
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
