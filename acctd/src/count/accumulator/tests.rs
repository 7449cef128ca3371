use std::time::Duration;

use super::*;
use crate::model::entries::Entry;
use crate::model::group::NflogGroup;
use crate::model::interval::Interval;
use crate::model::prefix::{PrefixKey, PrefixLength, Side};
use crate::testing::*;

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_005 * SECOND;

fn settings(side: Side, family: Family, bits: u8) -> Settings {
    Settings {
        group: NflogGroup(5),
        side,
        prefix_length: PrefixLength::new(family, bits).unwrap(),
        interval: Interval::new(Duration::from_secs(10)).unwrap(),
        max_prefixes: 1_000,
        debug: false,
    }
}

fn source_accumulator() -> Accumulator {
    Accumulator::new(settings(Side::Source, Family::Ip4, 32), UnixNanos(START))
}

fn stamped(offset: i64, sequence: u32) -> Logged {
    Logged {
        stamp: Some(START + offset),
        sequence: Some(sequence),
        ..Logged::default()
    }
}

/// Address, packets, bytes.
type EntryText = (String, u64, u64);

/// Each slot's start in seconds after START, and its entries.
fn contents(slots: &[ClosedSlot], interval: Interval) -> Vec<(i64, Vec<EntryText>)> {
    fn list<K: PrefixKey>(entries: &[Entry<K>]) -> Vec<EntryText> {
        let text = |entry: &Entry<K>| {
            let counters = entry.counters();
            (
                entry.key().address().to_string(),
                counters.packets,
                counters.bytes,
            )
        };
        entries.iter().map(text).collect()
    }
    slots
        .iter()
        .map(|slot| {
            let start = interval.period(slot.index).start.0 - START;
            let entries = match &slot.entries {
                Entries::Ip4(entries) => list(entries),
                Entries::Ip6Half(entries) => list(entries),
                Entries::Ip6(entries) => list(entries),
            };
            (start / SECOND, entries)
        })
        .collect()
}

fn row(address: &str, packets: u64, bytes: u64) -> EntryText {
    (address.into(), packets, bytes)
}

#[test]
fn either_address_is_accounted_to_the_prefix() {
    for (side, bits, expected) in [
        (Side::Source, 32, "10.21.0.1"),
        (Side::Dest, 32, "10.21.0.9"),
        (Side::Dest, 29, "10.21.0.8"),
        (Side::Dest, 0, "0.0.0.0"),
    ] {
        let settings = settings(side, Family::Ip4, bits);
        let mut accumulator = Accumulator::new(settings, UnixNanos(START));
        accumulator.absorb(&datagram(&[Logged::default()]), UnixNanos(START));
        let closed = accumulator.restart(UnixNanos(START));
        assert_eq!(
            contents(&closed, settings.interval),
            [(-5, vec![row(expected, 1, 151)])]
        );
    }
    for (side, bits, expected) in [
        (Side::Source, 64, "2001:470:1f08:2de::"),
        (Side::Source, 48, "2001:470:1f08::"),
        (Side::Dest, 128, "2a00:1450:400c:c00::69"),
        (Side::Dest, 65, "2a00:1450:400c:c00::"),
    ] {
        let settings = settings(side, Family::Ip6, bits);
        let mut accumulator = Accumulator::new(settings, UnixNanos(START));
        let packet = Logged {
            family: AF_INET6,
            payload: GO_IP6.to_vec(),
            ..Logged::default()
        };
        accumulator.absorb(&datagram(&[packet]), UnixNanos(START));
        let closed = accumulator.restart(UnixNanos(START));
        assert_eq!(
            contents(&closed, settings.interval),
            [(-5, vec![row(expected, 1, 104)])]
        );
    }
}

#[test]
fn a_packet_belongs_to_the_period_of_its_stamp() {
    let mut accumulator = source_accumulator();
    // The boundary is 5 s after START; the datagram arrives half a second later.
    let batch = [
        stamped(4 * SECOND, 0),
        stamped(5 * SECOND - 1_000, 1),
        stamped(5 * SECOND, 2),
        stamped(5 * SECOND - 2_000, 3),
    ];
    accumulator.absorb(
        &datagram(&batch),
        UnixNanos(START + 5 * SECOND + SECOND / 2),
    );
    let interval = settings(Side::Source, Family::Ip4, 32).interval;
    let next = interval.index_of(UnixNanos(START + 5 * SECOND));
    let closed = accumulator.close_before(next);
    assert_eq!(
        contents(&closed, interval),
        [(-5, vec![row("10.21.0.1", 3, 453)])]
    );
    assert_eq!(closed[0].counts.packets, 3);
    let closed = accumulator.restart(UnixNanos(START));
    assert_eq!(
        contents(&closed, interval),
        [(5, vec![row("10.21.0.1", 1, 151)])]
    );
    assert_eq!((closed[0].counts.packets, closed[0].counts.late), (1, 0));
}

#[test]
fn a_packet_that_arrives_after_its_period_is_counted_in_the_open_one_and_as_late() {
    let mut accumulator = source_accumulator();
    let interval = settings(Side::Source, Family::Ip4, 32).interval;
    let next = interval.index_of(UnixNanos(START + 5 * SECOND));
    assert!(accumulator.close_before(next).is_empty());
    let batch = [
        stamped(4 * SECOND, 0),
        stamped(6 * SECOND, 1),
        stamped(SECOND, 2),
    ];
    accumulator.absorb(&datagram(&batch), UnixNanos(START + 7 * SECOND));
    let closed = accumulator.restart(UnixNanos(START));
    assert_eq!(
        contents(&closed, interval),
        [(5, vec![row("10.21.0.1", 3, 453)])]
    );
    assert_eq!((closed[0].counts.packets, closed[0].counts.late), (3, 2));
}

#[test]
fn without_a_stamp_the_time_of_the_receive_counts_and_no_stamp_is_ahead_of_it() {
    let mut accumulator = source_accumulator();
    let interval = settings(Side::Source, Family::Ip4, 32).interval;
    let batch = [Logged::default(), stamped(400 * SECOND, 0)];
    accumulator.absorb(&datagram(&batch), UnixNanos(START + 6 * SECOND));
    let closed = accumulator.restart(UnixNanos(START));
    assert_eq!(
        contents(&closed, interval),
        [(5, vec![row("10.21.0.1", 2, 302)])]
    );
}

#[test]
fn a_reader_that_fell_periods_behind_sorts_them_all() {
    let mut accumulator = source_accumulator();
    let interval = settings(Side::Source, Family::Ip4, 32).interval;
    let batch: Vec<Logged> = (0..50_u32)
        .map(|n| stamped(i64::from(n) * SECOND, n))
        .collect();
    accumulator.absorb(&datagram(&batch), UnixNanos(START + 100 * SECOND));
    let closed = accumulator.restart(UnixNanos(START));
    let packets: Vec<(i64, u64)> = contents(&closed, interval)
        .iter()
        .map(|(start, entries)| (*start, entries[0].1))
        .collect();
    assert_eq!(
        packets,
        [(-5, 5), (5, 10), (15, 10), (25, 10), (35, 10), (45, 5)]
    );
}

#[test]
fn gaps_in_the_numbers_are_packets_lost() {
    let mut accumulator = source_accumulator();
    let now = UnixNanos(START);
    // The first number is the start, not a loss; the numbers wrap.
    accumulator.absorb(&datagram(&[stamped(0, u32::MAX - 1)]), now);
    assert_eq!(accumulator.totals().lost, 0);
    accumulator.absorb(&datagram(&[stamped(0, u32::MAX), stamped(0, 0)]), now);
    assert_eq!(accumulator.totals().lost, 0);
    // The kernel reports this before it delivers the packets that waited.
    accumulator.overrun(now);
    accumulator.absorb(&datagram(&[stamped(0, 1)]), now);
    accumulator.absorb(&datagram(&[stamped(0, 11), stamped(0, 13)]), now);
    accumulator.finish(now);
    let totals = accumulator.totals();
    assert_eq!((totals.lost, totals.overruns, totals.packets), (10, 1, 6));
    assert_eq!(totals.overruns_without_gap, 0);
}

#[test]
fn an_overrun_that_no_gap_follows_is_counted() {
    let mut accumulator = source_accumulator();
    let now = UnixNanos(START);
    accumulator.absorb(&datagram(&[stamped(0, 0)]), now);
    accumulator.overrun(now);
    accumulator.absorb(&datagram(&[stamped(0, 1)]), now);
    let closed = accumulator.finish(now);
    assert_eq!(
        (closed[0].counts.lost, closed[0].counts.overruns_without_gap),
        (0, 1)
    );
}

#[test]
fn an_overrun_without_loss_is_settled_by_the_next_packet() {
    let mut accumulator = source_accumulator();
    let now = UnixNanos(START);
    accumulator.absorb(&datagram(&[stamped(0, 0)]), now);
    accumulator.overrun(now);
    accumulator.absorb(&datagram(&[stamped(0, 1)]), now);
    let from = settings(Side::Source, Family::Ip4, 32)
        .interval
        .index_of(now);
    assert_eq!(
        accumulator.open_loss(),
        Some(from..PeriodIndex(i64::MAX)),
        "the loss before the next packets is not known yet"
    );
    accumulator.emptied(now);
    assert_eq!(
        accumulator.open_loss(),
        Some(from..from.next()),
        "later packets are not lost with it, even if no packet shows that"
    );
    accumulator.absorb(&datagram(&[stamped(0, 2)]), now);
    assert_eq!(accumulator.open_loss(), None);
    accumulator.finish(now);
    assert_eq!(accumulator.totals().overruns_without_gap, 0);
}

#[test]
fn a_gap_does_not_settle_a_second_overrun() {
    let mut accumulator = source_accumulator();
    let now = UnixNanos(START);
    accumulator.absorb(&datagram(&[stamped(0, 0)]), now);
    accumulator.overrun(now);
    accumulator.emptied(now);
    accumulator.overrun(now);
    accumulator.absorb(&datagram(&[stamped(0, 8)]), now);
    accumulator.finish(now);
    let totals = accumulator.totals();
    assert_eq!(
        (totals.lost, totals.overruns, totals.overruns_without_gap),
        (7, 2, 1)
    );
}

#[test]
fn an_open_overrun_stays_open_in_the_next_process() {
    let now = UnixNanos(START);
    for (next, expected) in [(None, (0, 1)), (Some(4), (3, 0))] {
        let mut old = source_accumulator();
        old.absorb(&datagram(&[stamped(0, 0)]), now);
        old.overrun(now);
        let position = old.position();
        assert_eq!(position.open_overruns, 1);
        let mut accumulator = source_accumulator();
        accumulator.resume_from(position);
        if let Some(next) = next {
            accumulator.absorb(&datagram(&[stamped(0, next)]), now);
        }
        accumulator.finish(now);
        let totals = accumulator.totals();
        assert_eq!((totals.lost, totals.overruns_without_gap), expected);
    }
}

#[test]
fn numbers_that_jump_back_are_a_new_numbering_and_not_a_loss() {
    let now = UnixNanos(START + 9);
    let between = Period {
        start: UnixNanos(START),
        end: UnixNanos(START + 9_000),
    };
    for (before, after, lost, renumbered) in [
        (4_000, Some(0), 0, Some(between)),
        (4_000, Some(3_999), 0, Some(between)),
        (4_000, None, 0, Some(between)),
        (4_000, Some(4_001 + u32::MAX / 2), u32::MAX / 2, None),
        (4_000, Some(4_002 + u32::MAX / 2), 0, Some(between)),
        (u32::MAX, Some(0), 0, None),
    ] {
        let mut accumulator = source_accumulator();
        accumulator.absorb(&datagram(&[stamped(0, before)]), now);
        let next = Logged {
            sequence: after,
            ..stamped(9_000, 0)
        };
        accumulator.absorb(&datagram(&[next]), UnixNanos(START + 10_000));
        let case = format!("{before} {after:?}");
        assert_eq!(accumulator.take_renumbered(), renumbered, "{case}");
        assert_eq!(accumulator.take_renumbered(), None, "{case}");
        assert_eq!(accumulator.totals().lost, u64::from(lost), "{case}");
        assert_eq!(accumulator.totals().packets, 2, "{case}");
    }
}

#[test]
fn each_packet_is_in_a_row_or_in_the_counter_that_says_why_not() {
    let mut accumulator = source_accumulator();
    let packets = [
        Logged::default(),
        Logged {
            payload: GO_IP4[..19].to_vec(),
            ..Logged::default()
        },
        Logged {
            family: NFPROTO_ARP,
            ..Logged::default()
        },
        Logged {
            payload: GO_IP6.to_vec(),
            ..Logged::default()
        },
        Logged {
            payload: ip4([1, 2, 3, 4], [5, 6, 7, 8], 0),
            ..Logged::default()
        },
    ];
    let mut bytes = datagram(&packets);
    bytes.extend([1, 2, 3]);
    accumulator.absorb(&bytes, UnixNanos(START));
    let closed = accumulator.restart(UnixNanos(START));
    let expected = Counts {
        packets: 2,
        bytes: 151,
        datagrams: 1,
        unstamped: 2,
        without_length: 1,
        truncated: 1,
        not_ip: 1,
        other_family: 1,
        malformed: 1,
        ..Counts::default()
    };
    assert_eq!(closed[0].counts, expected);
    assert_eq!(*accumulator.totals(), expected);
}

#[test]
fn over_the_limit_totals_stay_exact() {
    let mut accumulator = source_accumulator();
    let batch: Vec<Logged> = (0..3_000_u16)
        .map(|n| {
            let [high, low] = (n % 1_500).to_be_bytes();
            Logged {
                payload: ip4([10, 0, high, low], [1, 1, 1, 1], 100),
                ..Logged::default()
            }
        })
        .collect();
    accumulator.absorb(&datagram(&batch), UnixNanos(START));
    let closed = accumulator.restart(UnixNanos(START));
    assert_eq!(
        (closed[0].counts.packets, closed[0].counts.overflow),
        (3_000, 1_000)
    );
    let entries = &contents(&closed, settings(Side::Source, Family::Ip4, 32).interval)[0].1;
    assert_eq!(entries.len(), 1_001);
    assert_eq!(entries.last(), Some(&row("0.0.0.0", 1_000, 100_000)));
    assert_eq!(entries.iter().map(|entry| entry.1).sum::<u64>(), 3_000);
}
