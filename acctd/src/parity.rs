//! The output equals go-nflog-acctd's for its sample data. Only the order of rows differs: acctd sorts them.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use acctd_common::Counters;
use itertools::Itertools as _;

use crate::cli::commands::Cli;
use crate::config::Config;
use crate::count::accumulator::Accumulator;
use crate::count::slots::Settings;
use crate::model::closed_interval::{ClosedInterval, GroupInterval};
use crate::model::columns::Columns;
use crate::model::group::NflogGroup;
use crate::model::interval::{Interval, Period, UnixNanos};
use crate::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use crate::model::row::Row;
use crate::model::zone::Zone;
use crate::output::commit::{Place, Prepared};
use crate::output::csv::write_rows;
use crate::output::log_directory::LogDirectory;
use crate::testing::{AF_INET, AF_INET6, GO_IP4, GO_IP6, Logged, datagram};

/// 2013-02-11 15:00:00 UTC, the hour of the sample in go-nflog-acctd's manual.
const SAMPLE_HOUR: i64 = 1_360_594_800;

fn row(ip: &str, [source_bytes, source_packets, dest_bytes, dest_packets]: [u64; 4]) -> Row {
    Row {
        address: ip.parse().unwrap(),
        source: Counters {
            bytes: source_bytes,
            packets: source_packets,
        },
        dest: Counters {
            bytes: dest_bytes,
            packets: dest_packets,
        },
        kernel: None,
    }
}

fn sample() -> [Row; 4] {
    [
        row("192.168.0.22", [10_396_412, 159_611, 260_251_871, 257_171]),
        row("192.168.0.42", [100_372, 762, 10_888, 105]),
        row(
            "2001:aaa:bbbb:ccc:dddd:eeee:f52:b974",
            [53_756, 281, 66_277, 245],
        ),
        row(
            "2001:aaa:bbbb:ccc:dddd:eeee:7818:86a",
            [1_127_817, 9_522, 14_265_686, 14_061],
        ),
    ]
}

const SAMPLE_FILE: &str = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n\
    2013-02-11 15:00:00,192.168.0.22,10396412,159611,260251871,257171\n\
    2013-02-11 15:00:00,192.168.0.42,100372,762,10888,105\n\
    2013-02-11 15:00:00,2001:aaa:bbbb:ccc:dddd:eeee:f52:b974,53756,281,66277,245\n\
    2013-02-11 15:00:00,2001:aaa:bbbb:ccc:dddd:eeee:7818:86a,1127817,9522,14265686,14061\n";

#[test]
fn the_sample_of_the_manual_is_written_to_the_byte() {
    let start = UnixNanos(SAMPLE_HOUR * 1_000_000_000);
    let time = Zone::Utc.row_time(start);
    let mut written = Vec::new();
    write_rows(&mut written, &time, sample().into_iter(), Columns::Nflog).unwrap();
    assert_eq!(String::from_utf8(written).unwrap(), SAMPLE_FILE);
}

/// `counters.packets` packets to or from `address` whose lengths add up to `counters.bytes`.
fn packets(address: IpAddr, side: Side, counters: Counters) -> impl Iterator<Item = Logged> {
    (0..counters.packets).map(move |number| {
        let longer = u64::from(number < counters.bytes % counters.packets);
        let length = u16::try_from(counters.bytes / counters.packets + longer).unwrap();
        let (family, mut payload, length_at, length) = match address {
            IpAddr::V4(_) => (AF_INET, GO_IP4.to_vec(), 2, length),
            IpAddr::V6(_) => (AF_INET6, GO_IP6.to_vec(), 4, length - 40),
        };
        payload[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        let octets = match address {
            IpAddr::V4(ip4) => ip4.octets().to_vec(),
            IpAddr::V6(ip6) => ip6.octets().to_vec(),
        };
        // Both headers end with the source and the destination address.
        let end = match side {
            Side::Source => payload.len() - octets.len(),
            Side::Dest => payload.len(),
        };
        payload[end - octets.len()..end].copy_from_slice(&octets);
        Logged {
            family,
            stamp: Some((SAMPLE_HOUR + 1) * 1_000_000_000),
            payload,
            ..Logged::default()
        }
    })
}

/// The whole path: datagrams, ledgers, rows, file.
#[test]
fn packets_like_those_of_the_sample_make_its_file() {
    let args = [
        "acctd",
        "-ip4-src-group=5",
        "-ip4-dst-group=4",
        "-ip6-src-group=7",
        "-ip6-dst-group=6",
        "-ip6-prefix-length=128",
        "-interval=1h",
    ];
    let config = Config::resolve(Cli::parse_args(args.map(OsString::from)).unwrap().flags).unwrap();
    let start = UnixNanos(SAMPLE_HOUR * 1_000_000_000);
    let now = UnixNanos(start.0 + 2_000_000_000);
    let period = config.interval.period(config.interval.index_of(start));
    let mut groups = Vec::new();
    for &group in &config.groups {
        let mut accumulator = Accumulator::new(Settings::of(&config, &group), start);
        let is_ip4 = group.prefix_length.family() == Family::Ip4;
        for row in sample()
            .iter()
            .filter(|row| row.address.is_ipv4() == is_ip4)
        {
            let counters = match group.side {
                Side::Source => row.source,
                Side::Dest => row.dest,
            };
            let packets = packets(row.address, group.side, counters);
            for batch in &packets.chunks(500) {
                accumulator.absorb(&datagram(&batch.collect::<Vec<_>>()), now);
            }
        }
        let mut closed = GroupInterval::from(group);
        for slot in accumulator.restart(now) {
            assert_eq!(config.interval.period(slot.index), period);
            closed.counts.add(&slot.counts);
            closed.entries.push(slot.entries);
        }
        groups.push(closed);
    }
    let mut closed = ClosedInterval::new(period, groups);
    let scratch = tempfile::tempdir().unwrap();
    let directory = LogDirectory::open(scratch.path()).unwrap();
    let time = Zone::Utc.row_time(period.start);
    let stem = Zone::Utc.file_stem(period);
    let place = Place {
        directory: &directory,
        tag: NflogGroup(4),
    };
    let (prepared, _) = Prepared::prepare(place, &stem, |target| {
        write_rows(target, &time, closed.rows(), Columns::Nflog)
    })
    .unwrap();
    let name = prepared.publish(&directory).unwrap();
    assert_eq!(name, "2013-02-11-150000_2013-02-11-160000.csv");
    let written = std::fs::read_to_string(directory.path_of(&name)).unwrap();
    assert_eq!(written, SAMPLE_FILE);
}

#[test]
fn no_traffic_is_the_header_alone() {
    let mut written = Vec::new();
    write_rows(
        &mut written,
        "2013-02-11 15:00:00",
        std::iter::empty(),
        Columns::Nflog,
    )
    .unwrap();
    assert_eq!(
        String::from_utf8(written).unwrap(),
        "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n"
    );
}

/// What Go's `net.IP.String` prints, from its documentation and tests (`net/ip_test.go`).
#[test]
fn addresses_are_written_as_go_writes_them() {
    for (address, text) in [
        ("0.0.0.0", "0.0.0.0"),
        ("255.255.255.255", "255.255.255.255"),
        ("::", "::"),
        ("::1", "::1"),
        ("2001:db8::123:12:1", "2001:db8::123:12:1"),
        // A single field of zeros is not shortened. The longest run is; of two equal runs, the first.
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1:2:3:4:5"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:DB8:0:0:1:0:0:0", "2001:db8:0:0:1::"),
        ("a:b:c:d:e:f::", "a:b:c:d:e:f::"),
        // Not as Go, which would print the IPv4 address: that is another customer's row.
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("::ffff:0:0", "::ffff:0.0.0.0"),
        ("::c000:201", "::c000:201"),
    ] {
        let mut written = Vec::new();
        write_rows(
            &mut written,
            "T",
            [row(address, [1, 2, 3, 4])].into_iter(),
            Columns::Nflog,
        )
        .unwrap();
        let written = String::from_utf8(written).unwrap();
        let last = written.lines().last().unwrap();
        assert_eq!(last, format!("T,{text},1,2,3,4"));
    }
}

#[test]
fn masks_are_those_of_go_nflog_acctd() {
    fn masked<K: PrefixKey>(address: &str, bits: u8) -> String {
        let mask = K::mask(PrefixLength::new(K::FAMILY, bits).unwrap());
        let octets = match address.parse().unwrap() {
            IpAddr::V4(ip4) => ip4.octets().to_vec(),
            IpAddr::V6(ip6) => ip6.octets().to_vec(),
        };
        (K::from_address(&octets) & mask).address().to_string()
    }
    assert_eq!(u32::FAMILY, Family::Ip4);
    for (bits, expected) in [
        (32, "192.168.255.42"),
        (24, "192.168.255.0"),
        (17, "192.168.128.0"),
        (1, "128.0.0.0"),
        (0, "0.0.0.0"),
    ] {
        assert_eq!(masked::<u32>("192.168.255.42", bits), expected);
    }
    let address = "2001:470:1f08:2de:f00f:39aa:2b2:940c";
    assert_eq!(masked::<u64>(address, 64), "2001:470:1f08:2de::");
    assert_eq!(masked::<u64>(address, 32), "2001:470::");
    assert_eq!(masked::<u128>(address, 128), address);
    assert_eq!(masked::<u128>(address, 72), "2001:470:1f08:2de:f000::");
}

#[test]
fn periods_and_names_are_those_of_go_nflog_acctd() {
    for (interval, now, name) in [
        (3_600, 0, "2013-02-11-150000_2013-02-11-160000"),
        (3_600, 3_599, "2013-02-11-150000_2013-02-11-160000"),
        (300, 301, "2013-02-11-150500_2013-02-11-151000"),
        (86_400, 0, "2013-02-11-000000_2013-02-12-000000"),
        // Periods of several days are counted from 1970-01-01, not from the start.
        (7 * 86_400, 0, "2013-02-07-000000_2013-02-14-000000"),
    ] {
        let interval = Interval::new(Duration::from_secs(interval)).unwrap();
        let now = UnixNanos((SAMPLE_HOUR + now) * 1_000_000_000);
        let period = interval.period(interval.index_of(now));
        assert_eq!(Zone::Utc.file_stem(period), name);
    }
    // The first and the last period of a run are shorter.
    let partial = Period {
        start: UnixNanos((SAMPLE_HOUR + 754) * 1_000_000_000 + 999),
        end: UnixNanos((SAMPLE_HOUR + 3_600) * 1_000_000_000),
    };
    assert_eq!(
        Zone::Utc.file_stem(partial),
        "2013-02-11-151234_2013-02-11-160000"
    );
}
