//! Netlink datagrams, the way from the socket to the closed periods: whatever the bytes, the stamps and
//! the clock are, each record is counted once, in a row or in the counter that says why not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use acctd::close::timeline::{Due, Timeline};
use acctd::count::accumulator::Accumulator;
use acctd::count::slots::{ClosedSlot, Settings};
use acctd::model::counts::Counts;
use acctd::model::entries::{Entries, Entry};
use acctd::model::group::NflogGroup;
use acctd::model::interval::{Interval, Period, PeriodIndex, UnixNanos};
use acctd::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use acctd::nflog::decode::{Packet, Record, Records, Undecodable, wire_bytes};

use super::input::Input;

/// `NLMSG_HDRLEN`.
const HEADER: usize = 16;

pub(crate) fn take(data: &[u8]) {
    let mut input = Input(data);
    let mut run = Run::new(&mut input);
    while !input.is_empty() {
        match input.byte() % 8 {
            0..4 => {
                let length = u16::from_le_bytes(input.array());
                run.datagram(input.slice(length.into()));
            }
            4 => run.now.0 = i64::from_le_bytes(input.array()),
            5 => {
                let by = i64::from(i32::from_le_bytes(input.array()));
                run.now.0 = run.now.0.saturating_add(by.saturating_mul(1_000_000));
            }
            6 => run.overrun(),
            _ => run.close_what_is_due(),
        }
    }
    run.finish();
}

/// A reader and the engine's clock, without a kernel.
struct Run {
    settings: Settings,
    accumulator: Accumulator,
    timeline: Timeline,
    now: UnixNanos,
    next_sequence: Option<u32>,
    expected: Counts,
    expected_rows: Rows,
    closed: Counts,
    closed_rows: Rows,
    /// Where the next period begins, unless the clock is set back.
    next_start: UnixNanos,
}

/// Bytes and packets.
type Rows = BTreeMap<IpAddr, (u64, u64)>;

impl Run {
    fn new(input: &mut Input<'_>) -> Self {
        let [kind, bits, choice, max_prefixes] = input.array();
        let (family, bits) = match kind % 3 {
            0 => (Family::Ip4, bits % 33),
            1 => (Family::Ip6, bits % 65),
            _ => (Family::Ip6, 65 + bits % 64),
        };
        let seconds = [1, 300, 86_400, 36_525 * 86_400][usize::from(choice / 2 % 4)];
        let settings = Settings {
            group: NflogGroup(5),
            side: [Side::Source, Side::Dest][usize::from(choice % 2)],
            prefix_length: PrefixLength::new(family, bits).expect("a possible length"),
            interval: Interval::new(Duration::from_secs(seconds)).expect("a possible interval"),
            max_prefixes: usize::from(max_prefixes),
            debug: false,
        };
        let now = UnixNanos(i64::from_le_bytes(input.array()));
        Self {
            settings,
            accumulator: Accumulator::new(settings, now),
            timeline: Timeline::start(settings.interval, now),
            now,
            next_sequence: None,
            expected: Counts::default(),
            expected_rows: Rows::new(),
            closed: Counts::default(),
            closed_rows: Rows::new(),
            next_start: now,
        }
    }

    fn datagram(&mut self, datagram: &[u8]) {
        self.expected.datagrams += 1;
        let mut rest = datagram;
        let mut records = Records::of(datagram);
        while let Some(message) = next_message_with_a_record(&mut rest) {
            let (mut alone, record) = (Records::of(message), records.next());
            let (alone, record) = (alone.next(), record.expect("as many records as messages"));
            self.expect(&alone.expect("a record"), &record);
        }
        assert!(records.next().is_none(), "more records than messages");
        self.accumulator.absorb(datagram, self.now);
    }

    /// What `alone`, read from a message by itself, adds to the counts. A message behind others of its
    /// shape is not walked, and `among_others` must be the same.
    fn expect(&mut self, alone: &Record<'_, '_>, among_others: &Record<'_, '_>) {
        match (alone, among_others) {
            (Record::Packet(alone), Record::Packet(among_others)) => {
                assert_eq!(alone.sequence(), among_others.sequence());
                assert_eq!(alone.stamp(), among_others.stamp());
                for family in [Family::Ip4, Family::Ip6] {
                    assert_eq!(alone.ip_header(family), among_others.ip_header(family));
                }
                self.expect_packet(*alone);
            }
            (Record::Reply(alone), Record::Reply(among_others)) => assert_eq!(alone, among_others),
            (Record::Malformed, Record::Malformed) => self.expected.malformed += 1,
            _ => panic!("{alone:?} alone is {among_others:?} among others"),
        }
    }

    fn expect_packet(&mut self, packet: Packet<'_, '_>) {
        let expected = &mut self.expected;
        if let Some(sequence) = packet.sequence() {
            let gap = sequence.wrapping_sub(self.next_sequence.unwrap_or(sequence));
            // Numbers that jump back are no loss.
            if gap <= u32::MAX / 2 {
                expected.lost += u64::from(gap);
            }
            self.next_sequence = Some(sequence.wrapping_add(1));
        } else {
            self.next_sequence = None;
        }
        let family = self.settings.prefix_length.family();
        let header = match packet.ip_header(family) {
            Ok(header) => header,
            Err(Undecodable::Truncated) => return expected.truncated += 1,
            Err(Undecodable::NotIp) => return expected.not_ip += 1,
            Err(Undecodable::OtherFamily) => return expected.other_family += 1,
        };
        let length = wire_bytes(family, header);
        expected.packets += 1;
        expected.bytes += length.unwrap_or(0);
        expected.without_length += u64::from(length.is_none());
        expected.unstamped += u64::from(packet.stamp().is_none());
        let row = self.expected_rows.entry(self.prefix(header)).or_default();
        row.0 += length.unwrap_or(0);
        row.1 += 1;
    }

    /// Bit by bit, unlike the ledger's keys.
    fn prefix(&self, header: &[u8]) -> IpAddr {
        let at = match (self.settings.prefix_length.family(), self.settings.side) {
            (Family::Ip4, Side::Source) => 12..16,
            (Family::Ip4, Side::Dest) => 16..20,
            (Family::Ip6, Side::Source) => 8..24,
            (Family::Ip6, Side::Dest) => 24..40,
        };
        let mut address = header[at].to_vec();
        for bit in self.settings.prefix_length.bits().into()..8 * address.len() {
            address[bit / 8] &= !(0x80 >> (bit % 8));
        }
        match <[u8; 4]>::try_from(&address[..]) {
            Ok(ip4) => ip4.into(),
            Err(_) => <[u8; 16]>::try_from(address).expect("16 bytes").into(),
        }
    }

    fn overrun(&mut self) {
        self.expected.overruns += 1;
        self.accumulator.overrun(self.now);
    }

    /// As the engine does.
    fn close_what_is_due(&mut self) {
        match self.timeline.poll(self.now) {
            None => {}
            Some(Due::Close(first_open)) => {
                let slots = self.accumulator.close_before(first_open);
                let periods = self.timeline.close_before(first_open, &with_data(&slots));
                self.write(&periods, &slots);
            }
            Some(Due::Restart) => {
                let slots = self.accumulator.restart(self.now);
                let periods = self.timeline.finish(self.now, &with_data(&slots));
                self.timeline.restart(self.now);
                self.write(&periods, &slots);
                self.next_start = self.now;
            }
        }
    }

    fn write(&mut self, periods: &[(PeriodIndex, Period)], slots: &[ClosedSlot]) {
        for (_, period) in periods {
            assert_eq!(period.start, self.next_start, "a gap or an overlap");
            assert!(period.start <= period.end);
            self.next_start = period.end;
        }
        let last = periods.last().map(|(index, _)| *index);
        for slot in slots {
            assert!(Some(slot.index) <= last, "{:?} has no file", slot.index);
            let rows: Vec<(IpAddr, u64, u64)> = match &slot.entries {
                Entries::Ip4(entries) => rows(entries),
                Entries::Ip6Half(entries) => rows(entries),
                Entries::Ip6(entries) => rows(entries),
            };
            let n_packets: u64 = rows.iter().map(|row| row.2).sum();
            let n_bytes: u64 = rows.iter().map(|row| row.1).sum();
            assert_eq!(
                (n_packets, n_bytes),
                (slot.counts.packets, slot.counts.bytes)
            );
            // The overflow has an entry of its own.
            assert!(
                rows.len() <= self.settings.max_prefixes + usize::from(slot.counts.overflow > 0)
            );
            for (address, bytes, packets) in rows {
                let row = self.closed_rows.entry(address).or_default();
                row.0 += bytes;
                row.1 += packets;
            }
            self.closed.add(&slot.counts);
        }
    }

    fn finish(mut self) {
        let slots = self.accumulator.finish(self.now);
        let periods = self.timeline.finish(self.now, &with_data(&slots));
        self.write(&periods, &slots);
        assert_eq!(self.closed, *self.accumulator.totals());
        if self.closed.overflow == 0 {
            assert_eq!(self.closed_rows, self.expected_rows);
        }
        // These depend on periods.
        self.expected.late = self.closed.late;
        self.expected.overflow = self.closed.overflow;
        self.expected.overruns_without_gap = self.closed.overruns_without_gap;
        assert_eq!(self.closed, self.expected);
        assert!(self.closed.overruns_without_gap <= self.closed.overruns);
    }
}

/// The front of a datagram up to the next message that is a record, whose bytes this returns; where
/// no length helps on, that is all that is left.
fn next_message_with_a_record<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    while !rest.is_empty() {
        let length = rest
            .first_chunk()
            .map_or(0, |length| u32::from_ne_bytes(*length));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = rest.get(..length).filter(|message| message.len() >= HEADER);
        let message = message.unwrap_or(rest);
        *rest = rest.get(message.len().next_multiple_of(4)..).unwrap_or(&[]);
        if Records::of(message).next().is_some() {
            return Some(message);
        }
    }
    None
}

fn with_data(slots: &[ClosedSlot]) -> BTreeSet<PeriodIndex> {
    slots.iter().map(|slot| slot.index).collect()
}

fn rows<K: PrefixKey>(entries: &[Entry<K>]) -> Vec<(IpAddr, u64, u64)> {
    let row = |entry: &Entry<K>| {
        let counters = entry.counters();
        (entry.key().address(), counters.bytes, counters.packets)
    };
    entries.iter().map(row).collect()
}
