//! A frame with a UDP packet, made once and patched in place from one packet to the next: for many
//! packets at speed.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    ethernet::Ethernet,
    ipv4::Ipv4,
    ipv6::Ipv6,
    packet::{Family, UDP, checksum, sum},
};

/// A frame whose packet is valid: lengths and checksums are those of the
/// addresses and of the length last set. The UDP payload is zeros.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    family: Family,
    /// The whole frame, with room for the longest packet.
    buffer: Vec<u8>,
    /// Where the IP header begins.
    ip: usize,
    /// The length of the IP packet.
    ip_length: u16,
    /// The IP header says 0 instead, as that of a packet above 64 KiB does (BIG TCP).
    no_length: bool,
}

impl Template {
    /// A frame with room for packets of up to `longest` bytes.
    pub(crate) fn new(link: &Ethernet, family: Family, longest: u16, no_length: bool) -> Self {
        let longest = longest.max(family.headers());
        let payload = vec![0; usize::from(longest - family.headers())];
        let packet = match family {
            Family::V4 => Ipv4::udp([0; 4], [0; 4], &payload).packet(),
            Family::V6 => Ipv6::udp([0_u8; 16], [0_u8; 16], &payload).packet(),
        };
        let buffer: Vec<u8> = link.frame(&packet).into();
        let ip = buffer.len() - usize::from(longest);
        let mut template = Self {
            family,
            buffer,
            ip,
            ip_length: longest,
            no_length,
        };
        template.set(0, 0, longest);
        template
    }

    /// Sets what differs from packet to packet: the addresses as numbers (of
    /// IPv4, the low 32 bits) and the length of the IP packet. A length
    /// beyond the frame's limits becomes the nearest one within.
    pub(crate) fn set(&mut self, source: u128, dest: u128, ip_length: u16) {
        let room = u16::try_from(self.buffer.len() - self.ip).unwrap_or(u16::MAX);
        self.ip_length = ip_length.clamp(self.family.headers(), room);
        match self.family {
            Family::V4 => self.set_v4(source, dest),
            Family::V6 => self.set_v6(source, dest),
        }
    }

    /// The length of the IP packet.
    pub(crate) fn ip_length(&self) -> u16 {
        self.ip_length
    }

    /// The UDP checksum is 0, which means none.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits are the address"
    )]
    fn set_v4(&mut self, source: u128, dest: u128) {
        self.put(2, &self.stated(self.ip_length).to_be_bytes());
        self.put(10, &[0, 0]);
        self.put(12, &Ipv4Addr::from_bits(source as u32).octets());
        self.put(16, &Ipv4Addr::from_bits(dest as u32).octets());
        let checksum = checksum(sum(self.packet(0, 20)));
        self.put(10, &checksum.to_be_bytes());
        self.put(24, &(self.ip_length - 20).to_be_bytes());
        self.put(26, &[0, 0]);
    }

    /// IPv6 has no header checksum, but demands one of UDP, over the
    /// addresses, the UDP length, the protocol and the UDP packet. As the
    /// payload is zeros, only the ports and the length count in the last.
    fn set_v6(&mut self, source: u128, dest: u128) {
        let length = self.ip_length - 40;
        self.put(4, &self.stated(length).to_be_bytes());
        self.put(8, &Ipv6Addr::from_bits(source).octets());
        self.put(24, &Ipv6Addr::from_bits(dest).octets());
        self.put(44, &length.to_be_bytes());
        let words = sum(self.packet(8, 46)) + u32::from(length) + u32::from(UDP);
        let checksum = match checksum(words) {
            0 => 0xffff,
            other => other,
        };
        self.put(46, &checksum.to_be_bytes());
    }

    fn stated(&self, length: u16) -> u16 {
        if self.no_length { 0 } else { length }
    }

    /// Writes into the IP packet, at an offset from its header.
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        let start = self.ip + offset;
        self.buffer[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn packet(&self, start: usize, end: usize) -> &[u8] {
        &self.buffer[self.ip + start..self.ip + end]
    }
}

/// The frame as it goes out.
impl AsRef<[u8]> for Template {
    fn as_ref(&self) -> &[u8] {
        let end = self.ip + usize::from(self.ip_length);
        self.buffer.get(..end).unwrap_or(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddr;

    fn template(family: Family, no_length: bool) -> Template {
        let link = Ethernet::to(MacAddr([2, 0, 0, 0, 0, 1]));
        Template::new(&link, family, 1500, no_length)
    }

    #[test]
    fn without_length_the_header_says_0_and_its_checksum_is_right() {
        let mut four = template(Family::V4, true);
        four.set(1, 2, 60);
        assert_eq!(four.as_ref().len(), 14 + 60);
        assert_eq!(four.as_ref()[16..18], [0, 0]);
        assert_eq!(checksum(sum(&four.as_ref()[14..34])), 0);
        let mut six = template(Family::V6, true);
        six.set(1, 2, 60);
        assert_eq!(six.as_ref()[18..20], [0, 0]);
    }

    /// Lengths go up and down: a shorter packet after a longer one leaves nothing behind.
    #[test]
    fn each_patched_packet_is_the_crafted_one() {
        let mut four = template(Family::V4, false);
        let mut six = template(Family::V6, false);
        for i in 0..5000_u16 {
            let source = u128::from(i) * 0x0001_f3a7_19e5_0b4d_31c7_77f1_0003_9d2b;
            let dest = source.rotate_left(51);
            let length = 48 + (i * 7) % 1453;
            let payload = vec![0; usize::from(length)];

            four.set(source, dest, length);
            let low =
                |address: u128| Ipv4Addr::from_bits(u32::try_from(address & 0xffff_ffff).unwrap());
            let crafted = Ipv4::udp(low(source), low(dest), &payload[28..]).packet();
            let mut crafted = crafted.bytes().to_vec();
            crafted[26..28].fill(0); // No UDP checksum.
            assert_eq!(four.as_ref()[14..], crafted, "IPv4 {i}");

            six.set(source, dest, length);
            let crafted = Ipv6::udp(source.to_be_bytes(), dest.to_be_bytes(), &payload[48..]);
            assert_eq!(&six.as_ref()[14..], crafted.packet().bytes(), "IPv6 {i}");
        }
    }

    #[test]
    fn a_length_that_has_no_room_becomes_the_nearest() {
        let mut four = template(Family::V4, false);
        for (asked, set) in [(0, 28), (27, 28), (1501, 1500)] {
            four.set(1, 2, asked);
            assert_eq!(
                (four.ip_length(), four.as_ref().len()),
                (set, 14 + usize::from(set))
            );
        }
    }
}
