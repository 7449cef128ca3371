//! What a program of the user's own may leave in an epoch's map: any keys, any values. From the map
//! to the file, its line in `intervals.jsonl` and the log, sums stop at the largest number, and each
//! prefix has one row.

use std::collections::BTreeMap;
use std::net::IpAddr;

use acctd::crosscheck::report;
use acctd::crosscheck::verdicts::Judge;
use acctd::model::closed_interval::{ClosedInterval, GroupInterval, KernelInterval};
use acctd::model::columns::Columns;
use acctd::model::counts::{Counts, FileTotals};
use acctd::model::entries::{Entries, Entry};
use acctd::model::group::{GroupConfig, NflogGroup};
use acctd::model::interval::{Period, UnixNanos};
use acctd::model::kernel_counts::EpochCounts;
use acctd::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use acctd::model::row::Row;
use acctd::model::zone::Zone;
use acctd::output::csv::write_rows;
use acctd::output::journal_line;
use acctd_common::Counters;
use acctd_common::contract::{EpochKey, EpochValue, SIDE_DEST, SIDE_SOURCE, reason};

use super::input::Input;

pub(crate) fn take(data: &[u8]) {
    let mut input = Input(data);
    let ip6_bits = input.byte() % 129;
    let mut judge = Judge::default();
    while !input.is_empty() {
        one_interval(&mut judge, ip6_bits, &mut input);
    }
}

/// Sums by address and side, that of the destination second.
type Sums = BTreeMap<IpAddr, [Counters; 2]>;

fn one_interval(judge: &mut Judge, ip6_bits: u8, input: &mut Input<'_>) {
    let [choice, n_nflog, n_kernel, n_outside] = input.array();
    let is_half = ip6_bits <= 64;
    let mut expected = Sums::new();
    let mut groups = Vec::new();
    for side in [Side::Source, Side::Dest] {
        for (family, bits) in [(Family::Ip4, 32), (Family::Ip6, ip6_bits)] {
            groups.push(group(side, family, bits, n_nflog % 8, input));
        }
    }
    let counts = epoch(n_kernel % 16, is_half, &mut expected, input);
    let outside = epoch(n_outside % 4, is_half, &mut Sums::new(), input);
    let second = Period {
        start: UnixNanos(0),
        end: UnixNanos(1_000_000_000),
    };
    let mut closed = ClosedInterval::new(second, groups);
    closed.kernel = Some(KernelInterval {
        counts,
        outside: vec![outside],
        is_comparable: choice & 1 == 0,
        ..KernelInterval::default()
    });
    judge.judge(&mut closed);
    check(&mut closed, &expected);
}

/// NFLOG's side is acctd's own: what a group can have counted.
fn group(side: Side, family: Family, bits: u8, n: u8, input: &mut Input<'_>) -> GroupInterval {
    let prefix_length = PrefixLength::new(family, bits).expect("a possible length");
    let mut ledger = BTreeMap::new();
    let mut counts = Counts::default();
    for _ in 0..n {
        let address = address(input);
        let packets = input.number() >> 32;
        let counted = Counters {
            packets,
            bytes: packets * u64::from(input.byte()),
        };
        counts.packets += counted.packets;
        counts.bytes += counted.bytes;
        ledger.insert(address, counted);
    }
    let [flags, lost, late, overflow] = input.array();
    counts.unstamped = u64::from(flags & 1);
    counts.lost = lost.into();
    counts.late = late.into();
    counts.overflow = overflow.into();
    let entries = match family {
        Family::Ip4 => Entries::Ip4(entries(&ledger)),
        Family::Ip6 if bits <= 64 => Entries::Ip6Half(entries(&ledger)),
        Family::Ip6 => Entries::Ip6(entries(&ledger)),
    };
    GroupInterval {
        config: GroupConfig {
            group: NflogGroup(5),
            side,
            prefix_length,
        },
        counts,
        entries: vec![entries],
        loss_is_open: flags & 2 != 0,
    }
}

fn entries<K: PrefixKey>(ledger: &BTreeMap<[u8; 16], Counters>) -> Vec<Entry<K>> {
    let mut by_key = BTreeMap::new();
    for (address, counted) in ledger {
        by_key.insert(K::from_address(address), *counted);
    }
    by_key
        .into_iter()
        .map(|(key, counted)| Entry::new(key, counted))
        .collect()
}

/// A map has each key once.
fn epoch(n: u8, is_half: bool, expected: &mut Sums, input: &mut Input<'_>) -> EpochCounts {
    let mut map = BTreeMap::new();
    for _ in 0..n {
        let [version, side, reason, padding] = input.array();
        let key = EpochKey {
            version,
            side,
            reason,
            padding,
            address: address(input),
        };
        let counters = |input: &mut Input<'_>| Counters {
            packets: input.number(),
            bytes: input.number(),
        };
        let mut value = EpochValue {
            total: counters(input),
            ..EpochValue::default()
        };
        if padding & 1 == 1 {
            value.near_end = counters(input);
            value.before_end = counters(input);
            value.fragments = counters(input);
        }
        map.insert(key, value);
    }
    let mut counts = EpochCounts::default();
    for (key, value) in &map {
        counts.add(key, value, is_half);
        expect(key, value, is_half, expected);
    }
    counts
}

/// Few different ones, so that they meet.
fn address(input: &mut Input<'_>) -> [u8; 16] {
    let mut address = [0; 16];
    [address[0], address[7], address[15]] = input.array();
    address
}

fn expect(key: &EpochKey, value: &EpochValue, is_half: bool, expected: &mut Sums) {
    let side = match key.side {
        SIDE_SOURCE => 0,
        SIDE_DEST => 1,
        _ => return,
    };
    let address: IpAddr = match key.version {
        4 => <[u8; 4]>::try_from(&key.address[..4])
            .expect("4 bytes")
            .into(),
        6 => {
            let mut address = key.address;
            if is_half {
                address[8..].fill(0);
            }
            address.into()
        }
        _ => return,
    };
    if key.reason == reason::NONE && value.total.packets > 0 {
        let sum = &mut expected.entry(address).or_default()[side];
        sum.packets = sum.packets.saturating_add(value.total.packets);
        sum.bytes = sum.bytes.saturating_add(value.total.bytes);
    }
}

fn check(closed: &mut ClosedInterval, expected: &Sums) {
    let rows: Vec<Row> = closed.rows().collect();
    let order = |row: &Row| (row.address.is_ipv6(), row.address);
    assert!(
        rows.is_sorted_by(|one, other| order(one) < order(other)),
        "{rows:?}"
    );
    let mut sum = [Counters::default(); 2];
    for row in &rows {
        let kernel = row.kernel.expect("each row has both counts");
        let expected = expected.get(&row.address).copied().unwrap_or_default();
        assert_eq!([kernel.source, kernel.dest], expected, "{}", row.address);
        for (sum, counted) in sum.iter_mut().zip(expected) {
            sum.packets = sum.packets.saturating_add(counted.packets);
            sum.bytes = sum.bytes.saturating_add(counted.bytes);
        }
    }
    let in_rows = |address: &IpAddr| rows.iter().any(|row| row.address == *address);
    assert!(expected.keys().all(in_rows), "{expected:?}\n{rows:?}");

    let mut file = Vec::new();
    let totals: FileTotals =
        write_rows(&mut file, "time", closed.rows(), Columns::Wire).expect("memory takes it");
    assert_eq!([totals.tc_source, totals.tc_dest], sum);
    let line = journal_line::line(closed, &[], Zone::Utc, "file", &totals, 0.0);
    let line: serde_json::Value = serde_json::from_slice(&line).expect("a line of JSON");
    assert_eq!(line["crosscheck"]["tc_source_bytes"], sum[0].bytes);
    let judgement = closed
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.judgement.as_ref());
    let summary = &judgement.expect("it was judged").summary;
    let n_prefixes: u64 = summary.tallies.iter().map(|tally| tally.prefixes).sum();
    assert!(n_prefixes <= 4 * rows.len() as u64);
    assert!(
        report::lines(summary, &[])
            .iter()
            .all(|line| !line.is_empty())
    );
}
