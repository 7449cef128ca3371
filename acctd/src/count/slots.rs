//! The open intervals of one group, for one kind of key.

use std::collections::VecDeque;
use std::ops::Range;

use log::debug;

use crate::config::Config;
use crate::count::ledger::{BATCH, Index, Ledger};
use crate::count::overruns::Overruns;
use crate::model::counts::Counts;
use crate::model::entries::{Entries, Entry};
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::{Interval, Period, PeriodIndex, UnixNanos};
use crate::model::position::Position;
use crate::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use crate::nflog::decode;
use crate::nflog::decode::{Packet, Record, Records, Undecodable};

/// How a group is accounted.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// For messages.
    pub group: NflogGroup,
    /// Which address is accounted.
    pub side: Side,
    /// The prefix to account to; its family is the group's.
    pub prefix_length: PrefixLength,
    /// The length of a period.
    pub interval: Interval,
    /// The most prefixes in one ledger.
    pub max_prefixes: usize,
    /// Log each packet.
    pub debug: bool,
}

impl Settings {
    /// The settings of one of `config`'s groups.
    #[must_use]
    pub fn of(config: &Config, group: &GroupConfig) -> Self {
        Self {
            group: group.group,
            side: group.side,
            prefix_length: group.prefix_length,
            interval: config.interval,
            max_prefixes: config.max_prefixes,
            debug: config.debug,
        }
    }
}

/// What one group counted in one period that is closed.
#[derive(Debug)]
pub struct ClosedSlot {
    /// The number of the period.
    pub index: PeriodIndex,
    /// In no order.
    pub entries: Entries,
    /// Totals and losses.
    pub counts: Counts,
}

/// A reader's reply to a command.
#[derive(Debug)]
pub(crate) struct Closed {
    /// The closed periods; empty ones are left out.
    pub(crate) slots: Vec<ClosedSlot>,
    /// Periods that may lack packets whose loss is counted in a later period, or is not known yet.
    pub(crate) open_loss: Option<Range<PeriodIndex>>,
    /// If the kernel restarted its packet numbers: from the last packet before to the first one after.
    pub(crate) renumbered: Option<Period>,
    pub(crate) position: Position,
}

/// The open periods of one group, oldest first.
#[derive(Debug)]
pub struct Slots<K: Copy> {
    settings: Settings,
    mask: K,
    /// The offset of the accounted address in the IP header.
    address_offset: usize,
    /// Usually one; two for a moment around a boundary; more only if the reader is periods behind. Then they have no
    /// more packets than the socket holds.
    open: VecDeque<Slot<K>>,
    /// The slot of the last packet: the next one most likely belongs to it too.
    current: usize,
    /// All periods before this one are closed.
    first_open: PeriodIndex,
    /// The sequence number that the next packet should have; `None` before the first packet.
    next_sequence: Option<u32>,
    pub(super) overruns: Overruns,
    /// See [`Closed::renumbered`]. If it happened more than once: from the first time to the last.
    pub(super) renumbered: Option<Period>,
    /// The time of the last packet.
    last_time: UnixNanos,
    /// Open periods that lack packets whose loss was found in a later period.
    loss_counted_later: Option<Range<PeriodIndex>>,
    /// Packets of the current slot that are not in its ledger yet. It is empty between datagrams, and never longer
    /// than [`BATCH`].
    batch: Vec<(K, u64)>,
    /// The index of a closed ledger, for the next one.
    spare: Option<Index>,
    pub(super) totals: Counts,
}

#[derive(Debug)]
struct Slot<K: Copy> {
    index: PeriodIndex,
    period: Period,
    ledger: Ledger<K>,
    counts: Counts,
}

impl<K: PrefixKey> Slots<K> {
    pub(super) fn new(settings: Settings, now: UnixNanos) -> Self {
        let header_length = K::FAMILY.header_length();
        let address_length = match K::FAMILY {
            Family::Ip4 => 4,
            Family::Ip6 => 16,
        };
        // Both headers end with the source and the destination address.
        let address_offset = match settings.side {
            Side::Source => header_length - 2 * address_length,
            Side::Dest => header_length - address_length,
        };
        Self {
            settings,
            mask: K::mask(settings.prefix_length),
            address_offset,
            open: VecDeque::new(),
            current: 0,
            first_open: settings.interval.index_of(now),
            next_sequence: None,
            overruns: Overruns::default(),
            renumbered: None,
            last_time: now,
            loss_counted_later: None,
            batch: Vec::with_capacity(BATCH),
            spare: None,
            totals: Counts::default(),
        }
    }

    pub(super) fn absorb(&mut self, datagram: &[u8], now: UnixNanos) {
        // Most packets of a datagram belong to the slot of the last one.
        let mut slot = (self.current < self.open.len()).then_some(self.current);
        // Added to the slot when the slot changes, and at the end.
        let mut counted = Counts {
            datagrams: 1,
            ..Counts::default()
        };
        let expected_before = self.next_sequence;
        let mut records = Records::of(datagram);
        while let Some(record) = records.next() {
            match record {
                Record::Packet(packet) => {
                    // If a stamp is ahead of the clock, the clock was set back since.
                    let stamp = packet.stamp();
                    let time = stamp.map_or(now, |stamp| stamp.min(now));
                    let position = match slot {
                        Some(position) if self.open[position].period.contains(time) => position,
                        _ => {
                            if let Some(left) = slot {
                                self.settle(left, &mut counted);
                            }
                            let (position, late) = self.slot_for(time);
                            counted.late += u64::from(late);
                            slot = Some(position);
                            position
                        }
                    };
                    self.count(packet, stamp, time, &mut counted);
                    if self.batch.len() == BATCH {
                        self.count_batch(position, &mut counted);
                    }
                }
                Record::Reply(0) => {}
                Record::Reply(errno) => debug!(
                    "group {}: the kernel answered a request with errno {}",
                    self.settings.group,
                    errno.wrapping_neg()
                ),
                Record::Malformed => counted.malformed += 1,
            }
        }
        if self.next_sequence != expected_before {
            self.overruns.note_packet();
        }
        let slot = slot.unwrap_or_else(|| self.slot_for(now).0);
        self.settle(slot, &mut counted);
        self.current = slot;
    }

    #[inline]
    pub(super) fn count(
        &mut self,
        packet: Packet<'_, '_>,
        stamp: Option<UnixNanos>,
        time: UnixNanos,
        counted: &mut Counts,
    ) {
        if let Some(sequence) = packet.sequence() {
            // Before the first packet, nothing is lost.
            let expected = self.next_sequence.unwrap_or(sequence);
            let gap = sequence.wrapping_sub(expected);
            if gap != 0 {
                self.note_gap_before(time, gap, counted);
            }
            self.next_sequence = Some(sequence.wrapping_add(1));
        } else if self.next_sequence.is_some() {
            self.note_renumbered(time, counted);
        }
        self.last_time = time;
        let header = match packet.ip_header(K::FAMILY) {
            Ok(header) => header,
            Err(Undecodable::Truncated) => {
                counted.truncated += 1;
                return;
            }
            Err(Undecodable::NotIp) => {
                counted.not_ip += 1;
                return;
            }
            Err(Undecodable::OtherFamily) => {
                counted.other_family += 1;
                return;
            }
        };
        let bytes = decode::wire_bytes(K::FAMILY, header).unwrap_or_else(|| {
            counted.without_length += 1;
            0
        });
        let key = K::from_address(&header[self.address_offset..]) & self.mask;
        counted.packets += 1;
        counted.bytes += bytes;
        counted.unstamped += u64::from(stamp.is_none());
        self.batch.push((key, bytes));
        if self.settings.debug {
            debug!(
                "IP message {} Addr {} Size {bytes}",
                self.settings.side.name(),
                key.address()
            );
        }
    }

    /// The lost packets were logged at any time since the last one that arrived.
    #[cold]
    pub(super) fn note_gap_before(&mut self, time: UnixNanos, gap: u32, counted: &mut Counts) {
        /// More cannot be lost between two packets that arrive: at 10,000,000 per second this takes 200 s. A larger
        /// difference means that the number has jumped back.
        const MAX_GAP: u32 = u32::MAX / 2;
        if gap > MAX_GAP {
            self.note_renumbered(time, counted);
            return;
        }
        counted.lost += u64::from(gap);
        self.overruns.note_gap();
        let from = self.settings.interval.index_of(self.last_time);
        let until = self.settings.interval.index_of(time);
        if from < until {
            self.loss_counted_later = Some(match self.loss_counted_later.take() {
                None => from..until,
                Some(known) => known.start.min(from)..known.end.max(until),
            });
        }
    }

    /// Somebody has unbound the group and bound it again. How many packets were logged meanwhile is not known.
    #[cold]
    pub(super) fn note_renumbered(&mut self, time: UnixNanos, counted: &mut Counts) {
        let start = self.last_time.min(time);
        self.renumbered = Some(match self.renumbered {
            None => Period { start, end: time },
            Some(known) => Period {
                start: known.start.min(start),
                end: known.end.max(time),
            },
        });
        counted.overruns_without_gap += u64::from(self.overruns.open() > 0);
        self.overruns = Overruns::default();
        self.next_sequence = None;
    }

    pub(super) fn open_loss(&self) -> Option<Range<PeriodIndex>> {
        let known = self.loss_counted_later.clone();
        if self.overruns.open() == 0 {
            return known;
        }
        let from = self.settings.interval.index_of(self.last_time);
        let until = match self.overruns.over_at() {
            Some(over_at) => self.settings.interval.index_of(over_at).max(from).next(),
            None => PeriodIndex(i64::MAX),
        };
        Some(match known {
            None => from..until,
            Some(known) => known.start.min(from)..known.end.max(until),
        })
    }

    pub(super) fn count_batch(&mut self, slot: usize, counted: &mut Counts) {
        counted.overflow += self.open[slot].ledger.add(&self.batch);
        self.batch.clear();
    }

    pub(super) fn settle(&mut self, slot: usize, counted: &mut Counts) {
        self.count_batch(slot, counted);
        self.open[slot].counts.add(counted);
        self.totals.add(counted);
        *counted = Counts::default();
    }

    pub(super) fn overrun(&mut self, now: UnixNanos) {
        self.overruns.add();
        let slot = self.slot_for(now).0;
        let mut counted = Counts {
            overruns: 1,
            ..Counts::default()
        };
        self.settle(slot, &mut counted);
    }

    pub(super) fn count_overruns_without_gap(&mut self, now: UnixNanos) {
        if self.overruns.open() == 0 {
            return;
        }
        let slot = self.slot_for(now).0;
        let mut counted = Counts {
            overruns_without_gap: 1,
            ..Counts::default()
        };
        self.settle(slot, &mut counted);
    }

    pub(super) fn position(&self) -> Position {
        Position {
            next_sequence: self.next_sequence,
            last_time: self.last_time,
            open_overruns: self.overruns.open(),
        }
    }

    pub(super) fn resume_from(&mut self, position: Position) {
        self.next_sequence = position.next_sequence;
        // The clock may have been set back meanwhile.
        self.last_time = position.last_time.min(self.last_time);
        self.overruns = Overruns::with_open(position.open_overruns);
    }

    pub(super) fn forget_sequence(&mut self, now: UnixNanos) {
        self.count_overruns_without_gap(now);
        self.overruns = Overruns::default();
        self.next_sequence = None;
    }

    /// The position of the slot for `time`, which is opened if necessary, and whether `time` is late: if its period is
    /// closed, the slot is that of the oldest open one.
    #[cold]
    pub(super) fn slot_for(&mut self, time: UnixNanos) -> (usize, bool) {
        let index = self.settings.interval.index_of(time);
        let late = index < self.first_open;
        let index = index.max(self.first_open);
        let position = self.open.partition_point(|slot| slot.index < index);
        if self
            .open
            .get(position)
            .is_none_or(|slot| slot.index != index)
        {
            let ledger = Ledger::new(
                self.settings.max_prefixes,
                self.spare.take().unwrap_or_default(),
            );
            self.open.insert(
                position,
                Slot {
                    index,
                    period: self.settings.interval.period(index),
                    ledger,
                    counts: Counts::default(),
                },
            );
        }
        (position, late)
    }

    pub(super) fn copy(&self, entries_of: fn(Vec<Entry<K>>) -> Entries) -> Vec<ClosedSlot> {
        let slots = self.open.iter().map(|slot| ClosedSlot {
            index: slot.index,
            entries: entries_of(slot.ledger.copy()),
            counts: slot.counts,
        });
        slots.collect()
    }

    pub(super) fn close_before(
        &mut self,
        first_open: PeriodIndex,
        entries_of: fn(Vec<Entry<K>>) -> Entries,
    ) -> Vec<ClosedSlot> {
        self.first_open = self.first_open.max(first_open);
        let n_closed = self.open.partition_point(|slot| slot.index < first_open);
        self.current = self.current.saturating_sub(n_closed);
        self.loss_counted_later
            .take_if(|lossy| lossy.end <= first_open);
        let spare = &mut self.spare;
        self.open
            .drain(..n_closed)
            .map(|slot| {
                let (entries, index) = slot.ledger.close();
                *spare = Some(index);
                ClosedSlot {
                    index: slot.index,
                    entries: entries_of(entries),
                    counts: slot.counts,
                }
            })
            .collect()
    }

    pub(super) fn reopen(&mut self, now: UnixNanos) {
        self.first_open = self.settings.interval.index_of(now);
        self.loss_counted_later = None;
        // A time of the old clock would be in the future.
        self.last_time = self.last_time.min(now);
    }
}
