//! A checkpoint: a copy of the counts of an open period, in a file beside the CSV files, in case acctd is killed. The
//! writer writes it, the next start recovers it (`recovery`), and it is removed when the period has its CSV file
//! (`commit`).

use std::time::Duration;

use acctd_common::Counters;
use serde::{Deserialize, Serialize};

use crate::model::closed_interval::{Gap, GroupInterval};
use crate::model::counts::Counts;
use crate::model::entries::{Entries, Entry};
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::{Interval, Period, PeriodIndex, UnixNanos};
use crate::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use crate::output::atomic_file;
use crate::restart::checksummed::{Checksummed, Damage};

/// The counts of a period that is not over.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The length of a period.
    pub interval: Interval,
    /// The number of the period.
    pub index: PeriodIndex,
    /// The start of the period: later than its nominal start if acctd was started within it.
    pub start: UnixNanos,
    /// When the counts were copied.
    pub saved_at: UnixNanos,
    /// The counts of each group.
    pub groups: Vec<GroupInterval>,
    /// The gaps until `saved_at`.
    pub gaps: Vec<Gap>,
}

impl Checkpoint {
    /// The name of the file. It is the same for all checkpoints of one period, so each replaces the last one. `tag`
    /// distinguishes processes that share a directory.
    #[must_use]
    pub fn file_name(tag: NflogGroup, start: UnixNanos) -> String {
        format!("{}{}.{ENDING}", atomic_file::own_prefix(tag), start.0)
    }

    /// The contents of the file; the reverse of [`Checkpoint::from_saved`].
    #[must_use]
    pub fn into_saved(self) -> Saved {
        let groups = self.groups.into_iter().map(|group| SavedGroup {
            group: group.config.group,
            side: group.config.side,
            family: group.config.prefix_length.family(),
            bits: group.config.prefix_length.bits(),
            counts: group.counts,
            entries: group.entries,
        });
        Saved {
            interval: self.interval.length(),
            index: self.index,
            start: self.start,
            saved_at: self.saved_at,
            groups: groups.collect(),
            gaps: self.gaps,
        }
    }

    /// Checks the contents of a file. Fails if they are impossible.
    pub fn from_saved(saved: Saved) -> Result<Self, Damage> {
        saved.check().ok_or(Damage::Invalid)
    }

    /// The time that the checkpoint covers: until it was saved, but at most to the end of its period.
    #[must_use]
    pub fn period(&self) -> Period {
        let nominal_end = self.interval.period(self.index).end;
        Period {
            start: self.start,
            end: self.saved_at.min(nominal_end).max(self.start),
        }
    }

    /// Whether the checkpoint has exactly these groups, in any order.
    #[must_use]
    pub fn has_groups(&self, groups: &[GroupConfig]) -> bool {
        self.groups.len() == groups.len()
            && self
                .groups
                .iter()
                .all(|saved| groups.contains(&saved.config))
    }

    /// Over all groups.
    #[must_use]
    pub fn n_packets(&self) -> u64 {
        self.groups.iter().map(|group| group.counts.packets).sum()
    }
}

/// The ending of the names of checkpoints.
pub const ENDING: &str = "checkpoint";

/// A checkpoint as it is in a file.
#[derive(Debug, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "as in a checkpoint")]
pub struct Saved {
    interval: Duration,
    index: PeriodIndex,
    start: UnixNanos,
    saved_at: UnixNanos,
    groups: Vec<SavedGroup>,
    gaps: Vec<Gap>,
}

impl Checksummed for Saved {
    const TITLE: &'static str = "acctd checkpoint 1\n";
    /// A hundred million IPv6 prefixes.
    const MAX_BYTES: u64 = 1 << 32;
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedGroup {
    group: NflogGroup,
    side: Side,
    family: Family,
    bits: u8,
    counts: Counts,
    entries: Vec<Entries>,
}

/// The most that the counters of all groups may add up to. In bytes this is nine months at 100 Gbit/s. Sums of dozens
/// of such values do not overflow.
const MAX_COUNTER: u64 = 1 << 58;

impl Saved {
    fn check(self) -> Option<Checkpoint> {
        let interval = Interval::new(self.interval).ok()?;
        let nominal = interval.period(self.index);
        if self.start >= nominal.end || self.saved_at < self.start {
            return None;
        }
        let groups: Option<Vec<_>> = self.groups.into_iter().map(SavedGroup::check).collect();
        let groups = groups?;
        let is_repeated = (1..groups.len()).any(|at| {
            groups[..at]
                .iter()
                .any(|other| other.config.group == groups[at].config.group)
        });
        let largest = groups.iter().map(|group| group.counts.largest());
        let is_too_much = largest.fold(0, u64::saturating_add) > MAX_COUNTER;
        if groups.is_empty() || is_repeated || is_too_much {
            return None;
        }
        Some(Checkpoint {
            interval,
            index: self.index,
            start: self.start,
            saved_at: self.saved_at,
            groups,
            gaps: self.gaps,
        })
    }
}

impl SavedGroup {
    fn check(self) -> Option<GroupInterval> {
        let prefix_length = PrefixLength::new(self.family, self.bits).ok()?;
        if self.group == NflogGroup(0) {
            return None;
        }
        let mut sum = Counters::default();
        for entries in &self.entries {
            let part = match (entries, self.family) {
                (Entries::Ip4(entries), Family::Ip4) => sum_of(entries, prefix_length),
                (Entries::Ip6Half(entries), Family::Ip6) if self.bits <= 64 => {
                    sum_of(entries, prefix_length)
                }
                (Entries::Ip6(entries), Family::Ip6) if self.bits > 64 => {
                    sum_of(entries, prefix_length)
                }
                _ => None,
            };
            sum = checked_sum(sum, part?)?;
        }
        let counted = Counters {
            bytes: self.counts.bytes,
            packets: self.counts.packets,
        };
        (sum == counted).then_some(GroupInterval {
            config: GroupConfig {
                group: self.group,
                side: self.side,
                prefix_length,
            },
            counts: self.counts,
            entries: self.entries,
            loss_is_open: false,
        })
    }
}

/// `None` if a key has bits outside its prefix, or the sum overflows.
fn sum_of<K: PrefixKey>(entries: &[Entry<K>], prefix_length: PrefixLength) -> Option<Counters> {
    let mask = K::mask(prefix_length);
    entries.iter().try_fold(Counters::default(), |sum, entry| {
        let is_prefix = entry.key() & mask == entry.key();
        is_prefix.then(|| checked_sum(sum, entry.counters()))?
    })
}

fn checked_sum(one: Counters, other: Counters) -> Option<Counters> {
    Some(Counters {
        bytes: one.bytes.checked_add(other.bytes)?,
        packets: one.packets.checked_add(other.packets)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restart::checksummed;

    fn checkpoint(bits: u8, entries: Entries, packets: u64) -> Checkpoint {
        let interval = Interval::new(Duration::from_secs(10)).unwrap();
        let family = match entries {
            Entries::Ip4(_) => Family::Ip4,
            _ => Family::Ip6,
        };
        Checkpoint {
            interval,
            index: PeriodIndex(7),
            start: UnixNanos(71_000_000_000),
            saved_at: UnixNanos(75_000_000_000),
            groups: vec![GroupInterval {
                config: GroupConfig {
                    group: NflogGroup(5),
                    side: Side::Source,
                    prefix_length: PrefixLength::new(family, bits).unwrap(),
                },
                counts: Counts {
                    packets,
                    bytes: 100 * packets,
                    lost: 3,
                    ..Counts::default()
                },
                entries: vec![entries],
                loss_is_open: false,
            }],
            gaps: Vec::new(),
        }
    }

    fn entry<K: PrefixKey>(key: K, packets: u64) -> Entry<K> {
        let bytes = packets.wrapping_mul(100);
        Entry::new(key, Counters { bytes, packets })
    }

    fn read_back(checkpoint: Checkpoint) -> Result<Checkpoint, Damage> {
        let mut bytes = Vec::new();
        checksummed::write(&checkpoint.into_saved(), &mut bytes).unwrap();
        Checkpoint::from_saved(checksummed::read(&bytes)?)
    }

    #[test]
    fn a_saved_checkpoint_is_read() {
        let entries = Entries::Ip6(vec![entry(u128::MAX, 2), entry(0, 1)]);
        let read = read_back(checkpoint(128, entries, 3)).unwrap();
        assert_eq!(read.index, PeriodIndex(7));
        assert_eq!(read.groups[0].counts.lost, 3);
        let Entries::Ip6(entries) = &read.groups[0].entries[0] else {
            panic!("{:?}", read.groups[0].entries);
        };
        assert_eq!(entries[0].key(), u128::MAX);
        assert_eq!(entries[0].counters().packets, 2);
        assert_eq!(
            (read.period().start, read.period().end),
            (UnixNanos(71_000_000_000), UnixNanos(75_000_000_000))
        );
    }

    /// A week at 800 Gbit/s: 60,480,000,000,000,000 bytes.
    #[test]
    fn a_week_of_a_fast_link_is_read() {
        let packets = 604_800_000_000_000;
        let entries = Entries::Ip4(vec![entry(0x0a00_0000, packets)]);
        let read = read_back(checkpoint(24, entries, packets)).unwrap();
        assert_eq!(read.groups[0].counts.bytes, 60_480_000_000_000_000);
        let packets = 1 << 52;
        let entries = Entries::Ip4(vec![entry(0x0a00_0000, packets)]);
        let refused = read_back(checkpoint(24, entries, packets)).unwrap_err();
        assert_eq!(refused, Damage::Invalid);
    }

    /// Written by the version that introduced format 1. A later version must read it, or use another title.
    #[test]
    fn a_checkpoint_of_format_1_is_read() {
        let ip4 = Entries::Ip4(vec![entry(0x0a00_0000, 3), entry(0xc000_0200, 1)]);
        let ip6 = Entries::Ip6Half(vec![entry(0x2001_0db8_0000_0000, 5)]);
        let mut written = checkpoint(24, ip4, 4);
        let mut other = checkpoint(64, ip6, 5).groups.remove(0);
        other.config.group = NflogGroup(6);
        other.config.side = Side::Dest;
        written.groups.push(other);
        written.gaps.push(Gap {
            period: Period {
                start: UnixNanos(72_000_000_000),
                end: UnixNanos(73_000_000_000),
            },
            groups: vec![NflogGroup(5)],
            cause: crate::model::closed_interval::GapCause::Killed,
        });
        checksummed::testing::ensure_format("checkpoint-1", &written.clone().into_saved());
        read_back(written).unwrap();
    }

    #[test]
    fn impossible_values_are_rejected() {
        let nonsense = |checkpoint: Checkpoint| {
            assert_eq!(read_back(checkpoint).unwrap_err(), Damage::Invalid);
        };
        let good = || checkpoint(24, Entries::Ip4(vec![entry(0x0a00_0000, 3)]), 3);
        read_back(good()).unwrap();
        // Sums that do not match, keys that are not prefixes, keys of the other family.
        nonsense(checkpoint(24, Entries::Ip4(vec![entry(0x0a00_0000, 3)]), 4));
        nonsense(checkpoint(24, Entries::Ip4(vec![entry(0x0a00_0001, 3)]), 3));
        nonsense(checkpoint(64, Entries::Ip6(vec![entry(0, 3)]), 3));
        nonsense(checkpoint(
            24,
            Entries::Ip4(vec![entry(0, u64::MAX), entry(0, 4)]),
            3,
        ));
        nonsense(Checkpoint {
            saved_at: UnixNanos(70_000_000_000),
            ..good()
        });
        nonsense(Checkpoint {
            index: PeriodIndex(6),
            ..good()
        });
        nonsense(Checkpoint {
            groups: Vec::new(),
            ..good()
        });
        let twice = [good().groups, good().groups].into_iter().flatten();
        nonsense(Checkpoint {
            groups: twice.collect(),
            ..good()
        });
    }
}
