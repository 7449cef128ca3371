//! Gives generic code access to the entries, counts and verdicts of one key type.

use crate::model::entries::{Entries, Entry};
use crate::model::kernel_counts::{EpochCounts, KernelFamily};
use crate::model::prefix::{PrefixKey, Side};
use crate::model::verdict::{Finding, Judgement};

/// A key type, and where its entries, counts and verdicts are.
pub trait StoredKey: PrefixKey {
    /// The ledger, if it has keys of this type.
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]>;
    /// What the kernel counted for keys of this type.
    fn family(counts: &EpochCounts) -> &KernelFamily<Self>;
    /// The verdicts on keys of this type.
    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>];
}

impl StoredKey for u32 {
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]> {
        match entries {
            Entries::Ip4(entries) => Some(entries),
            _ => None,
        }
    }

    fn family(counts: &EpochCounts) -> &KernelFamily<Self> {
        &counts.ip4
    }

    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>] {
        &judgement.ip4[side as usize]
    }
}

impl StoredKey for u64 {
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]> {
        match entries {
            Entries::Ip6Half(entries) => Some(entries),
            _ => None,
        }
    }

    fn family(counts: &EpochCounts) -> &KernelFamily<Self> {
        &counts.ip6_half
    }

    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>] {
        &judgement.ip6_half[side as usize]
    }
}

impl StoredKey for u128 {
    fn entries(entries: &Entries) -> Option<&[Entry<Self>]> {
        match entries {
            Entries::Ip6(entries) => Some(entries),
            _ => None,
        }
    }

    fn family(counts: &EpochCounts) -> &KernelFamily<Self> {
        &counts.ip6
    }

    fn findings(judgement: &Judgement, side: Side) -> &[Finding<Self>] {
        &judgement.ip6[side as usize]
    }
}
