use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::count::accumulator::Accumulator;
use crate::count::slots::Settings;
use crate::model::counts::Counts;
use crate::model::group::NflogGroup;
use crate::model::interval::Interval;
use crate::model::prefix::{PrefixLength, Side};
use crate::testing::*;

const ETHERNET_IP4: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
const QINQ: [u8; 8] = [0x00, 0x05, 0x81, 0x00, 0x00, 0x07, 0x08, 0x00];

fn header_of(packet: &Logged, wanted: Family) -> Result<Vec<u8>, Undecodable> {
    let bytes = datagram(std::slice::from_ref(packet));
    match Records::of(&bytes).next() {
        Some(Record::Packet(packet)) => packet.ip_header(wanted).map(<[u8]>::to_vec),
        other => panic!("{other:?}"),
    }
}

/// The number of records in a datagram.
fn count(bytes: &[u8]) -> usize {
    let mut records = Records::of(bytes);
    let mut n = 0;
    while records.next().is_some() {
        n += 1;
    }
    n
}

#[test]
fn every_packet_of_a_batch_comes_out_in_order() {
    let batch: Vec<Logged> = (0..880)
        .map(|n| Logged {
            sequence: Some(n),
            stamp: Some(1_700_000_000_000_001_999 + i64::from(n)),
            ..Logged::default()
        })
        .collect();
    let bytes = datagram(&batch);
    let mut expected = 0;
    let mut records = Records::of(&bytes);
    while let Some(record) = records.next() {
        let Record::Packet(packet) = record else {
            panic!("{record:?}")
        };
        assert_eq!(packet.sequence(), Some(expected));
        assert_eq!(packet.stamp().unwrap().0 / 1_000_000, 1_700_000_000_000);
        assert_eq!(packet.ip_header(Family::Ip4), Ok(GO_IP4.as_slice()));
        expected += 1;
    }
    assert_eq!(expected, 880);
}

#[test]
fn the_length_includes_the_ip_header() {
    assert_eq!(wire_bytes(Family::Ip4, &GO_IP4), Some(151));
    assert_eq!(wire_bytes(Family::Ip6, &GO_IP6), Some(64 + 40));
}

#[test]
fn a_header_without_a_length_says_so() {
    let big_tcp = ip4([10, 0, 0, 1], [10, 0, 0, 2], 0);
    assert_eq!(wire_bytes(Family::Ip4, &big_tcp), None);
    let mut jumbo = GO_IP6;
    jumbo[4..6].copy_from_slice(&[0, 0]);
    for next_header in [0, 6] {
        jumbo[6] = next_header;
        assert_eq!(wire_bytes(Family::Ip6, &jumbo), None);
    }
    jumbo[6] = NO_NEXT_HEADER;
    assert_eq!(wire_bytes(Family::Ip6, &jumbo), Some(40));
}

#[test]
fn bridge_and_netdev_ingress_begin_at_the_network_header() {
    for (family, hook) in [
        (NFPROTO_BRIDGE, 1),
        (NFPROTO_BRIDGE, 4),
        (NFPROTO_NETDEV, 0),
    ] {
        let packet = Logged {
            family,
            hook,
            link_header: ETHERNET_IP4.to_vec(),
            ..Logged::default()
        };
        assert_eq!(header_of(&packet, Family::Ip4), Ok(GO_IP4.to_vec()));
    }
}

#[test]
fn netdev_egress_begins_at_the_link_layer_header() {
    let egress = |protocol, link: &[u8], behind_link: &[u8]| Logged {
        family: NFPROTO_NETDEV,
        hook: NF_NETDEV_EGRESS,
        protocol,
        link_header: link.to_vec(),
        payload: [link, behind_link, &GO_IP4].concat(),
        ..Logged::default()
    };
    let mut tagged = ETHERNET_IP4;
    tagged[12..].copy_from_slice(&[0x88, 0xa8]);
    let with_tags_inside = [&tagged[..], &QINQ].concat();
    for packet in [
        egress(0x0800, &ETHERNET_IP4, &[]),
        // A device without a link layer: a tunnel.
        egress(0x0800, &[], &[]),
        // Two tags after the header, and the same two as a part of it.
        egress(0x88a8, &tagged, &QINQ),
        egress(0x88a8, &with_tags_inside, &[]),
    ] {
        assert_eq!(header_of(&packet, Family::Ip4), Ok(GO_IP4.to_vec()));
    }
    let cut = Logged {
        payload: ETHERNET_IP4[..10].to_vec(),
        ..egress(0x0800, &ETHERNET_IP4, &[])
    };
    assert_eq!(header_of(&cut, Family::Ip4), Err(Undecodable::Truncated));
}

#[test]
fn vlan_tags_that_the_kernel_left_in_the_packet_are_skipped() {
    let packet = Logged {
        family: NFPROTO_BRIDGE,
        protocol: 0x8100,
        payload: [&[0, 7, 0x08, 0x00][..], &GO_IP4].concat(),
        ..Logged::default()
    };
    assert_eq!(header_of(&packet, Family::Ip4), Ok(GO_IP4.to_vec()));
    let cut = Logged {
        payload: vec![0, 7, 8],
        ..packet
    };
    assert_eq!(header_of(&cut, Family::Ip4), Err(Undecodable::Truncated));
}

#[test]
fn a_packet_without_a_row_has_a_reason() {
    let arp = Logged {
        family: NFPROTO_BRIDGE,
        protocol: 0x0806,
        // Its first bytes look like IPv4.
        payload: GO_IP4.to_vec(),
        ..Logged::default()
    };
    assert_eq!(header_of(&arp, Family::Ip4), Err(Undecodable::NotIp));
    let arp_table = Logged {
        family: NFPROTO_ARP,
        ..Logged::default()
    };
    assert_eq!(header_of(&arp_table, Family::Ip4), Err(Undecodable::NotIp));
    let ip6 = Logged {
        family: AF_INET6,
        payload: GO_IP6.to_vec(),
        ..Logged::default()
    };
    assert_eq!(header_of(&ip6, Family::Ip4), Err(Undecodable::OtherFamily));
    assert_eq!(header_of(&ip6, Family::Ip6), Ok(GO_IP6.to_vec()));
    for length in 0..20 {
        let cut = Logged {
            payload: GO_IP4[..length].to_vec(),
            ..Logged::default()
        };
        assert_eq!(header_of(&cut, Family::Ip4), Err(Undecodable::Truncated));
    }
    let zero = Logged {
        payload: vec![0; 60],
        ..Logged::default()
    };
    assert_eq!(header_of(&zero, Family::Ip4), Err(Undecodable::NotIp));
}

#[test]
fn replies_are_distinguished_from_packets() {
    let mut bytes = Vec::new();
    push_message(&mut bytes, NLMSG_ERROR, &0_i32.to_ne_bytes());
    push_message(&mut bytes, NLMSG_ERROR, &(-1_i32).to_ne_bytes());
    push_message(&mut bytes, 1, &[]);
    bytes.extend(datagram(&[Logged::default()]));
    let mut records = Records::of(&bytes);
    assert!(matches!(records.next(), Some(Record::Reply(0))));
    assert!(matches!(records.next(), Some(Record::Reply(-1))));
    assert!(matches!(records.next(), Some(Record::Packet(_))));
    assert!(records.next().is_none());
}

#[test]
fn an_impossible_length_ends_the_datagram_with_one_malformed_record() {
    for length in [0_u32, 15, 4_096, u32::MAX] {
        let mut bytes = datagram(&[Logged::default(), Logged::default()]);
        bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        assert_eq!(count(&bytes), 1, "{length}");
        assert!(matches!(
            Records::of(&bytes).next(),
            Some(Record::Malformed)
        ));
    }
    assert_eq!(count(&[0; 15]), 1);
    assert_eq!(count(&[]), 0);
}

#[test]
fn impossible_attributes_spoil_only_their_message() {
    for length in [0_u16, 3, 4_096, u16::MAX] {
        let mut bytes = datagram(&[Logged::default(), Logged::default()]);
        bytes[20..22].copy_from_slice(&length.to_ne_bytes());
        let mut records = Records::of(&bytes);
        assert!(matches!(records.next(), Some(Record::Malformed)));
        assert!(matches!(records.next(), Some(Record::Packet(_))));
        assert!(records.next().is_none());
    }
}

/// Sequence, stamp, IP header.
type Reading = (Option<u32>, Option<UnixNanos>, Result<Vec<u8>, Undecodable>);

/// All that acctd reads in a datagram.
fn reading(bytes: &[u8]) -> Vec<Reading> {
    let mut records = Records::of(bytes);
    let mut readings = Vec::new();
    while let Some(record) = records.next() {
        if let Record::Packet(packet) = record {
            readings.push((
                packet.sequence(),
                packet.stamp(),
                packet.ip_header(Family::Ip4).map(<[u8]>::to_vec),
            ));
        }
    }
    readings
}

/// All that acctd counts of a datagram: the counters, and the periods with their entries.
fn counted(bytes: &[u8], family: Family) -> (Counts, String) {
    let now = UnixNanos(1_700_000_000_000_000_000);
    let settings = Settings {
        group: NflogGroup(5),
        side: Side::Source,
        prefix_length: PrefixLength::new(family, 32).unwrap(),
        interval: Interval::new(Duration::from_secs(10)).unwrap(),
        max_prefixes: 1_000,
        debug: false,
    };
    let mut accumulator = Accumulator::new(settings, now);
    accumulator.absorb(bytes, now);
    let counts = *accumulator.totals();
    (counts, format!("{:?}", accumulator.restart(now)))
}

fn known_to_decoder(kind: u16) -> bool {
    use crate::nflog::message::ATTRIBUTE_TYPE_MASK;
    use crate::nflog::shape::attribute::{L2HDR, PACKET_HDR, PAYLOAD, SEQ, TIMESTAMP};
    [L2HDR, PACKET_HDR, PAYLOAD, SEQ, TIMESTAMP].contains(&(kind & ATTRIBUTE_TYPE_MASK))
}

prop_compose! {
    fn any_logged()(
        family in prop_oneof![Just(2_u8), Just(5), Just(7), Just(10), any::<u8>()],
        hook in 0_u8..6,
        protocol in prop_oneof![Just(0x0800_u16), Just(0x8100), Just(0x88a8), any::<u16>()],
        sequence in any::<Option<u32>>(),
        stamp in proptest::option::of(0..i64::MAX),
        link_header in proptest::collection::vec(any::<u8>(), 0..24),
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            Just(GO_IP4.to_vec()),
            Just(GO_IP6.to_vec()),
        ],
    ) -> Logged {
        Logged { family, hook, protocol, sequence, stamp, link_header, payload, extra: vec![] }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_end_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4_096)) {
        // Each record takes at least a header, except a malformed one at the end.
        prop_assert!(count(&bytes) <= bytes.len() / NETLINK_HEADER + 1);
        reading(&bytes);
    }

    #[test]
    fn damaged_datagrams_end_without_a_panic(
        packets in proptest::collection::vec(any_logged(), 1..20),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = datagram(&packets);
        for (position, byte) in damage {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        bytes.truncate(cut.index(bytes.len() + 1));
        prop_assert!(count(&bytes) <= bytes.len() / NETLINK_HEADER + 1);
        reading(&bytes);
    }

    #[test]
    fn a_message_reads_the_same_whatever_came_before_it(
        kinds in proptest::collection::vec(any_logged(), 1..4),
        turns in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u32>()), 1..60),
        damage in proptest::collection::vec(
            (any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), any::<u8>()), 0..20),
    ) {
        // Few shapes, many values. After the header, which has the length, any byte may be wrong.
        let mut messages: Vec<Vec<u8>> = turns
            .into_iter()
            .map(|(kind, number)| {
                let kind = &kinds[kind.index(kinds.len())];
                message(&Logged {
                    sequence: kind.sequence.map(|_| number),
                    stamp: kind.stamp.map(|_| i64::from(number)),
                    payload: kind.payload.iter().map(|byte| byte ^ u8::from(number % 2 == 1)).collect(),
                    ..kind.clone()
                })
            })
            .collect();
        for (turn, position, byte) in damage {
            let turn = turn.index(messages.len());
            let body = &mut messages[turn][NETLINK_HEADER..];
            let position = position.index(body.len());
            body[position] = byte;
        }
        let alone: Vec<Reading> = messages.iter().flat_map(|message| reading(message)).collect();
        prop_assert_eq!(reading(&messages.concat()), alone);
    }

    #[test]
    fn unknown_attributes_change_nothing(
        packets in proptest::collection::vec(any_logged(), 1..20),
        extra in proptest::collection::vec(
            (0_usize..8, any::<u16>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
    ) {
        let plain = datagram(&packets);
        prop_assert_eq!(reading(&plain).len(), packets.len());
        let extra: Vec<_> = extra.into_iter().filter(|extra| !known_to_decoder(extra.1)).collect();
        let with_extra: Vec<_> = packets
            .into_iter()
            .map(|packet| Logged { extra: extra.clone(), ..packet })
            .collect();
        let with_extra = datagram(&with_extra);
        for family in [Family::Ip4, Family::Ip6] {
            prop_assert_eq!(counted(&plain, family), counted(&with_extra, family));
        }
        prop_assert_eq!(reading(&plain), reading(&with_extra));
    }
}
