//! IPv4 packets.

use std::net::Ipv4Addr;

use super::packet::{Family, Fragment, HOP_LIMIT, Packet, Payload, checksum, split, stated, sum};

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;

/// The header without options.
const HEADER: usize = 20;

/// An IPv4 packet. Its header's checksum is right for what the header says,
/// forced or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv4 {
    pub source: Ipv4Addr,
    pub dest: Ipv4Addr,
    /// At most 40 bytes of options, padded with zeros to a multiple of 4.
    pub options: Vec<u8>,
    /// Makes it a fragment. See [`Ipv4::fragments`] for all of a packet.
    pub fragment: Option<Fragment>,
    pub ttl: u8,
    pub payload: Payload,
    pub version: u8,
    /// The length of the header in words of 4 bytes, in 4 bits. The checksum
    /// covers what this says, but at least 20 bytes.
    pub ihl: Option<u8>,
    pub total_length: Option<u16>,
    pub wrong_checksum: bool,
}

impl Ipv4 {
    pub fn udp(source: impl Into<Ipv4Addr>, dest: impl Into<Ipv4Addr>, payload: &[u8]) -> Self {
        Self {
            source: source.into(),
            dest: dest.into(),
            options: Vec::new(),
            fragment: None,
            ttl: HOP_LIMIT,
            payload: Payload::Udp(payload.to_vec()),
            version: 4,
            ihl: None,
            total_length: None,
            wrong_checksum: false,
        }
    }

    /// The packet, in one piece.
    ///
    /// # Panics
    ///
    /// If no header has room for the options.
    pub fn packet(&self) -> Packet {
        self.packet_around(self.fragment, &self.whole_payload())
    }

    /// The packet in fragments with these many bytes of payload, the header
    /// of UDP among them, and one more fragment with the rest. All have the
    /// options, and say of themselves what is forced.
    ///
    /// # Panics
    ///
    /// If a size is not a multiple of 8, or if nothing is left for the last
    /// fragment.
    pub fn fragments(&self, id: u16, sizes: &[u16]) -> Vec<Packet> {
        split(&self.whole_payload(), id, sizes)
            .into_iter()
            .map(|(fragment, piece)| self.packet_around(Some(fragment), piece))
            .collect()
    }

    fn whole_payload(&self) -> Vec<u8> {
        self.payload
            .bytes(&self.source.octets(), &self.dest.octets())
    }

    fn packet_around(&self, fragment: Option<Fragment>, payload: &[u8]) -> Packet {
        let words_of_options = self.options.len().div_ceil(4);
        assert!(words_of_options <= 10, "an IPv4 header has no more room");
        let header = HEADER + words_of_options * 4;
        let true_ihl = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15][words_of_options];
        let ihl = self.ihl.unwrap_or(true_ihl) & 0xf;
        let total_length = self.total_length.unwrap_or(stated(header + payload.len()));
        let (id, flags_and_offset) = fragment.map_or((0, DONT_FRAGMENT), |fragment| {
            let more = if fragment.more { MORE_FRAGMENTS } else { 0 };
            (fragment.id, more | (fragment.offset / 8))
        });

        let mut bytes = vec![self.version << 4 | ihl, 0];
        bytes.extend(total_length.to_be_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.extend(flags_and_offset.to_be_bytes());
        bytes.extend([self.ttl, self.payload.protocol(), 0, 0]);
        bytes.extend(self.source.octets());
        bytes.extend(self.dest.octets());
        bytes.extend(&self.options);
        bytes.resize(header, 0);
        bytes.extend(payload);

        let covered = (usize::from(ihl) * 4).clamp(HEADER, bytes.len());
        let checksum = checksum(sum(&bytes[..covered])) ^ u16::from(self.wrong_checksum);
        bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
        Packet::new(Family::V4, bytes, total_length.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(payload: &[u8]) -> Ipv4 {
        Ipv4::udp([192, 0, 2, 1], [198, 51, 100, 2], payload)
    }

    /// As a receiver checks it (RFC 1071).
    fn header_verifies(packet: &Packet) -> bool {
        let header = usize::from(packet.bytes()[0] & 0xf) * 4;
        checksum(sum(&packet.bytes()[..header])) == 0
    }

    #[test]
    fn options_are_padded_and_counted_exactly() {
        let packet = Ipv4 {
            options: vec![7, 7, 4, 0xff, 0xff, 0xff, 0xff],
            ..udp(b"abc")
        }
        .packet();
        let expected: &[u8] = &[
            0x47, 0, 0, 39, 0, 0, 0x40, 0, 64, 17, 0x41, 0x88, // to the checksum
            192, 0, 2, 1, 198, 51, 100, 2, // addresses
            7, 7, 4, 0xff, 0xff, 0xff, 0xff, 0, // options
            0x9c, 0x40, 0, 9, 0, 11, 0xb2, 0xf4, // UDP
            b'a', b'b', b'c',
        ];
        assert_eq!(packet.bytes(), expected);
        assert!(header_verifies(&packet));
        assert_eq!(packet.ip_length(), 39);
    }

    #[test]
    fn every_number_of_option_bytes_makes_a_valid_header() {
        for n in 0..=40 {
            let packet = Ipv4 {
                options: vec![1; n],
                ..udp(b"abc")
            }
            .packet();
            assert!(header_verifies(&packet), "{n}");
            let header = 20 + n.next_multiple_of(4);
            assert_eq!(packet.bytes().len(), header + 8 + 3);
            assert_eq!(usize::from(packet.bytes()[0]), 0x40 + header / 4);
        }
    }

    #[test]
    fn what_is_forced_is_in_the_header_and_the_rest_is_right() {
        let right = udp(b"abc").packet();
        for total_length in [0, 19, 20, 1500, u16::MAX] {
            let packet = Ipv4 {
                total_length: Some(total_length),
                ..udp(b"abc")
            }
            .packet();
            assert_eq!(packet.bytes()[2..4], total_length.to_be_bytes());
            assert_eq!(packet.ip_length(), u32::from(total_length));
            assert_eq!(packet.bytes().len(), right.bytes().len());
            assert!(header_verifies(&packet), "{total_length}");
        }
        let version = Ipv4 {
            version: 6,
            ..udp(b"abc")
        };
        assert_eq!(version.packet().bytes()[0], 0x65);
        assert!(header_verifies(&version.packet()));
        for (ihl, verifies) in [(0, false), (4, false), (6, true), (15, false)] {
            let packet = Ipv4 {
                ihl: Some(ihl),
                ..udp(b"abcd")
            }
            .packet();
            assert_eq!(packet.bytes()[0], 0x40 + ihl);
            if verifies {
                assert!(header_verifies(&packet), "{ihl}");
            }
        }
    }

    #[test]
    fn a_wrong_checksum_differs_from_the_right_one_in_a_bit() {
        let right = udp(b"abc").packet();
        let wrong = Ipv4 {
            wrong_checksum: true,
            ..udp(b"abc")
        }
        .packet();
        let mut bytes = right.bytes().to_vec();
        bytes[11] ^= 1;
        assert_eq!(wrong.bytes(), bytes);
        assert!(header_verifies(&right) && !header_verifies(&wrong));
    }

    #[test]
    fn fragments_are_exact_to_the_byte_and_make_up_the_packet() {
        let whole = udp(&(0..25).collect::<Vec<u8>>());
        let fragments = whole.fragments(0x1234, &[8, 16]);
        let headers: Vec<_> = fragments
            .iter()
            .map(|fragment| fragment.bytes()[..10].to_vec())
            .collect();
        assert_eq!(
            headers,
            [
                [0x45, 0, 0, 28, 0x12, 0x34, 0x20, 0, 64, 17],
                [0x45, 0, 0, 36, 0x12, 0x34, 0x20, 1, 64, 17],
                [0x45, 0, 0, 29, 0x12, 0x34, 0x00, 3, 64, 17],
            ]
        );
        let lengths: Vec<_> = fragments.iter().map(Packet::ip_length).collect();
        assert_eq!(lengths, [28, 36, 29]);
        assert!(fragments.iter().all(header_verifies));
        let joined: Vec<u8> = fragments
            .iter()
            .flat_map(|fragment| &fragment.bytes()[HEADER..])
            .copied()
            .collect();
        assert_eq!(joined, whole.packet().bytes()[HEADER..]);
    }

    #[test]
    fn a_single_fragment_stands_where_it_is_told_to() {
        let packet = Ipv4 {
            fragment: Some(Fragment {
                id: 7,
                offset: 65_528,
                more: true,
            }),
            payload: Payload::Raw {
                protocol: 6,
                bytes: vec![1, 2],
            },
            ..udp(b"")
        }
        .packet();
        assert_eq!(
            packet.bytes()[4..10],
            [0, 7, 0x3f, 0xff, 64, 6],
            "the largest offset there is"
        );
        assert_eq!(packet.bytes()[HEADER..], [1, 2]);
        assert_eq!(packet.ip_length(), 22);
    }
}
