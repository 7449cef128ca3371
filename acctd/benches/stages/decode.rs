//! A datagram → the headers and lengths of its packets.

use std::hint::black_box;

use acctd::decode::{Record, records, wire_bytes};
use acctd::prefix::Family;
use criterion::Criterion;

use crate::datagram::{BYTES, Datagrams, SIZES};

pub(crate) fn bench(criterion: &mut Criterion) {
    for (name, family) in [("ip4", Family::Ip4), ("ip6", Family::Ip6)] {
        for n_packets in SIZES {
            let mut datagrams = Datagrams::new(family, n_packets);
            let datagram = datagrams.next(&mut (0..));
            assert_eq!(decode(datagram, family), BYTES * n_packets as u64);
            let name = format!("{name}, {n_packets} a datagram");
            crate::measure(criterion, "decode", name, n_packets, |bencher| {
                bencher.iter(|| decode(black_box(datagram), family));
            });
        }
    }
}

/// The sum of the packets' bytes.
fn decode(datagram: &[u8], family: Family) -> u64 {
    let bytes = records(datagram).filter_map(|record| {
        let Record::Packet(packet) = record else {
            return None;
        };
        // The accumulator reads these, so they must not be optimised away here.
        black_box((packet.sequence, packet.stamp));
        wire_bytes(family, packet.ip_header(family).ok()?)
    });
    bytes.sum()
}
