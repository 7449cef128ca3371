//! A datagram → the headers and lengths of its packets.

use std::hint::black_box;

use acctd::model::prefix::Family;
use acctd::nflog::decode::{Record, Records, wire_bytes};
use criterion::Criterion;

use crate::datagram::{BYTES, Datagrams, SIZES};

pub(crate) fn bench(criterion: &mut Criterion) {
    for (name, family) in [("ip4", Family::Ip4), ("ip6", Family::Ip6)] {
        for n_packets in SIZES {
            let mut datagrams = Datagrams::new(family, n_packets);
            let datagram = datagrams.next(&mut (0..));
            assert_eq!(decode(datagram, family).0, BYTES * n_packets as u64);
            let name = format!("{name}, {n_packets} a datagram");
            crate::measure(criterion, "decode", name, n_packets, |bencher| {
                bencher.iter(|| decode(black_box(datagram), family));
            });
        }
    }
}

/// The sum of the packets' bytes, and of what else the accumulator reads of them: nothing may be
/// optimised away, nor forced into memory.
fn decode(datagram: &[u8], family: Family) -> (u64, u64) {
    let (mut bytes, mut others) = (0, 0_u64);
    let mut records = Records::of(datagram);
    while let Some(record) = records.next() {
        let Record::Packet(packet) = record else {
            continue;
        };
        if let Ok(header) = packet.ip_header(family) {
            bytes += wire_bytes(family, header).unwrap_or(0);
        }
        let stamp = packet.stamp().map_or(0, |stamp| stamp.0.cast_unsigned());
        others = others.wrapping_add(stamp ^ u64::from(packet.sequence().unwrap_or(0)));
    }
    (bytes, others)
}
