//! Parity with go-nflog-acctd: for its own sample data, exactly its output. Only the order of
//! the rows differs: it writes them in no order, acctd sorts them.

use std::net::IpAddr;
use std::time::Duration;

use acctd_common::Counters;

use crate::csv_writer::write_rows;
use crate::interval::{Interval, Period, UnixNanos};
use crate::naming::Zone;
use crate::prefix::{Family, PrefixKey, PrefixLength};
use crate::rows::Row;

/// 2013-02-11 15:00:00 UTC, the hour of the sample in the seed's manual.
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

#[test]
fn the_sample_of_the_manual_is_written_to_the_byte() {
    let rows = [
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
    ];
    let start = UnixNanos(SAMPLE_HOUR * 1_000_000_000);
    let mut written = Vec::new();
    write_rows(
        &mut written,
        &Zone::Utc.row_time(start),
        rows.into_iter(),
        false,
    )
    .unwrap();
    assert_eq!(
        String::from_utf8(written).unwrap(),
        "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n\
         2013-02-11 15:00:00,192.168.0.22,10396412,159611,260251871,257171\n\
         2013-02-11 15:00:00,192.168.0.42,100372,762,10888,105\n\
         2013-02-11 15:00:00,2001:aaa:bbbb:ccc:dddd:eeee:f52:b974,53756,281,66277,245\n\
         2013-02-11 15:00:00,2001:aaa:bbbb:ccc:dddd:eeee:7818:86a,1127817,9522,14265686,14061\n"
    );
}

#[test]
fn no_traffic_is_the_header_alone() {
    let mut written = Vec::new();
    write_rows(
        &mut written,
        "2013-02-11 15:00:00",
        std::iter::empty(),
        false,
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
        // One field of zeros is not shortened, the longer run is, and of two equal the first.
        ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1:2:3:4:5"),
        ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
        ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("2001:DB8:0:0:1:0:0:0", "2001:db8:0:0:1::"),
        ("a:b:c:d:e:f::", "a:b:c:d:e:f::"),
        // An IPv4-mapped address comes out as the IPv4 address, an IPv4-compatible one does not.
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::c000:201", "::c000:201"),
    ] {
        let mut written = Vec::new();
        write_rows(
            &mut written,
            "T",
            [row(address, [1, 2, 3, 4])].into_iter(),
            false,
        )
        .unwrap();
        let written = String::from_utf8(written).unwrap();
        let last = written.lines().last().unwrap();
        assert_eq!(last, format!("T,{text},1,2,3,4"));
    }
}

#[test]
fn masks_are_the_seeds() {
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
fn periods_and_names_are_the_seeds() {
    for (interval, now, name) in [
        (3_600, 0, "2013-02-11-150000_2013-02-11-160000"),
        (3_600, 3_599, "2013-02-11-150000_2013-02-11-160000"),
        (300, 301, "2013-02-11-150500_2013-02-11-151000"),
        (86_400, 0, "2013-02-11-000000_2013-02-12-000000"),
        // Whole days are counted from 1970-01-01, not from the start.
        (7 * 86_400, 0, "2013-02-07-000000_2013-02-14-000000"),
    ] {
        let interval = Interval::new(Duration::from_secs(interval)).unwrap();
        let now = UnixNanos((SAMPLE_HOUR + now) * 1_000_000_000);
        let period = interval.period(interval.index_of(now));
        assert_eq!(Zone::Utc.file_stem(period), name);
    }
    // The first and the last are partial.
    let partial = Period {
        start: UnixNanos((SAMPLE_HOUR + 754) * 1_000_000_000 + 999),
        end: UnixNanos((SAMPLE_HOUR + 3_600) * 1_000_000_000),
    };
    assert_eq!(
        Zone::Utc.file_stem(partial),
        "2013-02-11-151234_2013-02-11-160000"
    );
}
