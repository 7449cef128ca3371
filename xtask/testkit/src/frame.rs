//! Ethernet frames with a UDP packet in IPv4 or IPv6, built once and patched
//! in place from one packet to the next.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::mac::MacAddr;

/// The discard service: what arrives there means nothing to anyone.
pub(crate) const DEST_PORT: u16 = 9;
pub(crate) const SOURCE_PORT: u16 = 40_000;
pub(crate) const HOP_LIMIT: u8 = 64;
pub(crate) const UDP: u8 = 17;
const UDP_HEADER: u16 = 8;

/// 802.1Q, the innermost tag.
pub(crate) const VLAN: u16 = 0x8100;
/// 802.1ad, each tag around another.
pub(crate) const SERVICE_VLAN: u16 = 0x88a8;

/// The IP version of a frame's packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The length of the IP and UDP headers, the shortest packet there is.
    #[must_use]
    pub const fn headers(self) -> u16 {
        self.ip_header() + UDP_HEADER
    }

    const fn ip_header(self) -> u16 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    pub(crate) const fn ether_type(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
        }
    }
}

/// The part of a frame before its IP packet.
#[derive(Debug, Clone)]
pub struct LinkHeader {
    /// The receiver.
    pub to: MacAddr,
    /// The sender.
    pub from: MacAddr,
    /// VLAN ids, the outermost first.
    pub vlans: Vec<u16>,
    /// What the frame claims to carry, if not what it does carry.
    pub ether_type: Option<u16>,
}

impl LinkHeader {
    fn bytes(&self, family: Family) -> Vec<u8> {
        let mut bytes = [self.to.0, self.from.0].concat();
        for (depth, id) in self.vlans.iter().enumerate() {
            let innermost = depth + 1 == self.vlans.len();
            let tag = if innermost { VLAN } else { SERVICE_VLAN };
            bytes.extend(tag.to_be_bytes());
            bytes.extend(id.to_be_bytes());
        }
        let ether_type = self.ether_type.unwrap_or(family.ether_type());
        bytes.extend(ether_type.to_be_bytes());
        bytes
    }
}

/// A frame whose packet is valid: lengths and checksums are those of the
/// addresses and of the length last set. The UDP payload is zeros.
#[derive(Debug, Clone)]
pub struct Frame {
    family: Family,
    /// The whole frame, with room for the longest packet.
    buffer: Vec<u8>,
    /// Where the IP header begins.
    ip: usize,
    /// The length of the IP packet.
    ip_length: u16,
    /// The IP header says 0 instead.
    no_length: bool,
}

impl Frame {
    /// A frame with room for packets of up to `longest` bytes.
    #[must_use]
    pub fn new(link: &LinkHeader, family: Family, longest: u16) -> Self {
        let mut buffer = link.bytes(family);
        let ip = buffer.len();
        let longest = longest.max(family.headers());
        buffer.resize(ip + usize::from(longest), 0);
        let mut frame = Self {
            family,
            buffer,
            ip,
            ip_length: longest,
            no_length: false,
        };
        match family {
            Family::V4 => {
                frame.put(0, &[0x45]);
                frame.put(6, &[0x40]); // Don't fragment.
                frame.put(8, &[HOP_LIMIT, UDP]);
            }
            Family::V6 => {
                frame.put(0, &[0x60]);
                frame.put(6, &[UDP, HOP_LIMIT]);
            }
        }
        let udp = usize::from(family.ip_header());
        frame.put(udp, &SOURCE_PORT.to_be_bytes());
        frame.put(udp + 2, &DEST_PORT.to_be_bytes());
        frame.set(0, 0, longest);
        frame
    }

    /// A frame made elsewhere, to be sent as it stands. It has no room for a
    /// packet of this module's, so `set` leaves it alone.
    pub(crate) fn verbatim(bytes: Vec<u8>) -> Self {
        Self {
            family: Family::V4,
            ip: bytes.len(),
            buffer: bytes,
            ip_length: 0,
            no_length: false,
        }
    }

    /// This frame with 0 for the length in its IP header, as a packet above
    /// 64 KiB has it (BIG TCP). All else is that of its true length.
    #[must_use]
    pub fn without_length(self) -> Self {
        Self {
            no_length: true,
            ..self
        }
    }

    /// Sets what differs from packet to packet: the addresses as numbers (of
    /// IPv4, the low 32 bits) and the length of the IP packet. A length
    /// beyond the frame's limits becomes the nearest one within.
    pub fn set(&mut self, source: u128, dest: u128, ip_length: u16) {
        let room = u16::try_from(self.buffer.len() - self.ip).unwrap_or(u16::MAX);
        if room < self.family.headers() {
            return;
        }
        self.ip_length = ip_length.clamp(self.family.headers(), room);
        match self.family {
            Family::V4 => self.set_v4(source, dest),
            Family::V6 => self.set_v6(source, dest),
        }
    }

    /// The length of the IP packet.
    #[must_use]
    pub fn ip_length(&self) -> u16 {
        self.ip_length
    }

    /// The frame as it goes out.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let end = self.ip + usize::from(self.ip_length);
        self.buffer.get(..end).unwrap_or(&self.buffer)
    }

    /// The UDP checksum stays 0, which means none.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits are the address"
    )]
    fn set_v4(&mut self, source: u128, dest: u128) {
        let header = usize::from(Family::V4.ip_header());
        self.put(2, &self.stated(self.ip_length).to_be_bytes());
        self.put(10, &[0, 0]);
        self.put(12, &Ipv4Addr::from_bits(source as u32).octets());
        self.put(16, &Ipv4Addr::from_bits(dest as u32).octets());
        let checksum = checksum(sum(self.packet(0, header)));
        self.put(10, &checksum.to_be_bytes());
        self.put(header + 4, &(self.ip_length - 20).to_be_bytes());
    }

    /// IPv6 has no header checksum, but demands one of UDP, over the
    /// addresses, the UDP length, the protocol and the UDP packet. As the
    /// payload is zeros, only the ports and the length count in the last.
    fn set_v6(&mut self, source: u128, dest: u128) {
        let header = usize::from(Family::V6.ip_header());
        let length = self.ip_length - Family::V6.ip_header();
        self.put(4, &self.stated(length).to_be_bytes());
        self.put(8, &Ipv6Addr::from_bits(source).octets());
        self.put(24, &Ipv6Addr::from_bits(dest).octets());
        self.put(header + 4, &length.to_be_bytes());
        let words = sum(self.packet(8, header + 6)) + u32::from(length) + u32::from(UDP);
        let checksum = match checksum(words) {
            0 => 0xffff,
            other => other,
        };
        self.put(header + 6, &checksum.to_be_bytes());
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

/// The sum of the 16-bit words of at most 64 KiB; a last byte without another
/// counts as if a zero followed.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let (words, last) = bytes.as_chunks::<2>();
    let words = words.iter().map(|&w| u32::from(u16::from_be_bytes(w)));
    words.sum::<u32>() + last.first().map_or(0, |&byte| u32::from(byte) << 8)
}

/// The Internet checksum (RFC 1071) from the sum of the words.
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded to 16 bits: the first fold of any sum is at most 0x1fffe, the second 16 bits"
)]
pub(crate) fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(vlans: &[u16], ether_type: Option<u16>) -> LinkHeader {
        LinkHeader {
            to: MacAddr([2, 0, 0, 0, 0, 1]),
            from: MacAddr([2, 0, 0, 0, 0, 2]),
            vlans: vlans.to_vec(),
            ether_type,
        }
    }

    fn v4(text: &str) -> u128 {
        text.parse::<Ipv4Addr>().unwrap().to_bits().into()
    }

    fn v6(text: &str) -> u128 {
        text.parse::<Ipv6Addr>().unwrap().to_bits()
    }

    #[test]
    fn without_length_the_header_says_0_and_its_checksum_is_right() {
        let mut frame = Frame::new(&link(&[], None), Family::V4, 100).without_length();
        frame.set(v4("192.0.2.1"), v4("198.51.100.2"), 60);
        assert_eq!(frame.bytes().len(), 14 + 60);
        assert_eq!(frame.bytes()[16..18], [0, 0]);
        assert_eq!(checksum(sum(&frame.bytes()[14..34])), 0);
        let mut frame = Frame::new(&link(&[], None), Family::V6, 100).without_length();
        frame.set(v6("2001:db8::1"), v6("2001:db8::2"), 60);
        assert_eq!(frame.bytes()[18..20], [0, 0]);
    }

    #[test]
    fn an_ipv4_frame_is_exact_to_the_byte() {
        let mut frame = Frame::new(&link(&[], None), Family::V4, 100);
        frame.set(v4("192.0.2.1"), v4("198.51.100.2"), 30);
        let expected: &[u8] = &[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00, // Ethernet
            0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0x4e, 0x98, // IPv4, to its checksum
            192, 0, 2, 1, 198, 51, 100, 2, // addresses
            0x9c, 0x40, 0, 9, 0, 10, 0, 0, // UDP
            0, 0, // payload
        ];
        assert_eq!(frame.bytes(), expected);
        assert_eq!(frame.ip_length(), 30);
    }

    #[test]
    fn an_ipv6_frame_is_exact_to_the_byte() {
        let mut frame = Frame::new(&link(&[], None), Family::V6, 100);
        frame.set(v6("2001:db8::1"), v6("2001:db8::2"), 49);
        let expected: &[u8] = &[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, // Ethernet
            0x60, 0, 0, 0, 0, 9, 17, 64, // IPv6, to its addresses
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // destination
            0x9c, 0x40, 0, 9, 0, 9, 0x08, 0x1e, // UDP
            0,    // payload
        ];
        assert_eq!(frame.bytes(), expected);
    }

    /// The sum over a header that holds a right checksum is all ones; so a
    /// receiver checks it (RFC 1071), by other code than that which made it.
    #[test]
    fn checksums_hold_for_every_patch() {
        fn verifies(words: &[u8]) -> bool {
            let total: u64 = words
                .chunks(2)
                .map(|c| u64::from(c[0]) << 8 | c.get(1).map_or(0, |&b| u64::from(b)))
                .sum();
            total.is_multiple_of(0xffff) && total > 0
        }
        let mut four = Frame::new(&link(&[], None), Family::V4, 1500);
        let mut six = Frame::new(&link(&[], None), Family::V6, 1500);
        for i in 0..5000_u16 {
            let spread = u128::from(i) * 0x0001_f3a7_19e5_0b4d_31c7_77f1_0003_9d2b;
            let length = 48 + i % 1453;
            four.set(spread, !spread, length);
            assert!(verifies(&four.bytes()[14..34]), "IPv4 {i}");
            six.set(spread, spread.rotate_left(51), length);
            let bytes = six.bytes();
            let mut covered = bytes[22..54].to_vec();
            covered.extend((length - 40).to_be_bytes());
            covered.extend([0, UDP]);
            covered.extend(&bytes[54..]);
            assert!(verifies(&covered), "IPv6 {i}");
            assert_ne!(bytes[60..62], [0, 0], "a UDP checksum of 0 means none");
        }
    }

    #[test]
    fn a_shorter_packet_after_a_longer_one_leaves_nothing_behind() {
        let mut patched = Frame::new(&link(&[], None), Family::V6, 1500);
        patched.set(v6("2001:db8::1"), v6("2001:db8::2"), 1500);
        patched.set(v6("2001:db8::3"), v6("2001:db8::4"), 80);
        let mut fresh = Frame::new(&link(&[], None), Family::V6, 80);
        fresh.set(v6("2001:db8::3"), v6("2001:db8::4"), 80);
        assert_eq!(patched.bytes(), fresh.bytes());
    }

    #[test]
    fn a_frame_made_elsewhere_stays_as_it_is() {
        let mut frame = Frame::verbatim(vec![1, 2, 3]);
        frame.set(v4("192.0.2.1"), v4("198.51.100.2"), 60);
        assert_eq!(frame.bytes(), [1, 2, 3]);
    }

    #[test]
    fn the_outer_of_two_vlan_tags_is_a_service_tag() {
        let header = link(&[100, 7], None).bytes(Family::V4);
        assert_eq!(
            header[12..],
            [0x88, 0xa8, 0, 100, 0x81, 0x00, 0, 7, 0x08, 0x00]
        );
    }

    #[test]
    fn the_ether_type_can_belie_the_packet() {
        let header = link(&[5], Some(0x0806)).bytes(Family::V4);
        assert_eq!(header[12..], [0x81, 0x00, 0, 5, 0x08, 0x06]);
    }
}
