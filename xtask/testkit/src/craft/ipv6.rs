//! IPv6 packets and their extension headers.

use std::net::Ipv6Addr;

use super::packet::{Family, Fragment, HOP_LIMIT, Packet, Payload, split, stated};

const HEADER: u32 = 40;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipv6 {
    pub source: Ipv6Addr,
    /// The destination address, also for the checksum of UDP: a routing
    /// header is taken to have been used up.
    pub dest: Ipv6Addr,
    /// The extension headers in their order, which need not be one that is
    /// allowed.
    pub extensions: Vec<Extension>,
    pub hop_limit: u8,
    pub payload: Payload,
    pub version: u8,
    /// The length of all that follows the first 40 bytes.
    pub payload_length: Option<u16>,
}

impl Ipv6 {
    pub fn udp(source: impl Into<Ipv6Addr>, dest: impl Into<Ipv6Addr>, payload: &[u8]) -> Self {
        Self {
            source: source.into(),
            dest: dest.into(),
            extensions: Vec::new(),
            hop_limit: HOP_LIMIT,
            payload: Payload::Udp(payload.to_vec()),
            version: 6,
            payload_length: None,
        }
    }

    /// The packet, in one piece.
    pub fn packet(&self) -> Packet {
        let next = self.payload.protocol();
        self.packet_around(&self.extensions, next, &self.whole_payload())
    }

    /// The packet in fragments with these many bytes each after the fragment
    /// header, the header of UDP among them, and one more fragment with the
    /// rest. Extension headers up to the last one of hop-by-hop options or
    /// routing are in each fragment; others are split as payload is (RFC
    /// 8200, 4.5). All fragments say of themselves what is forced.
    ///
    /// # Panics
    ///
    /// If a size is not a multiple of 8, or if nothing is left for the last
    /// fragment.
    pub fn fragments(&self, id: u16, sizes: &[u16]) -> Vec<Packet> {
        let n_in_each = self
            .extensions
            .iter()
            .rposition(|e| matches!(e, Extension::HopByHop(_) | Extension::Routing { .. }))
            .map_or(0, |last| last + 1);
        let (in_each, in_payload) = self.extensions.split_at(n_in_each);
        let (next, mut whole) = chain(in_payload, self.payload.protocol());
        whole.extend(self.whole_payload());
        split(&whole, id, sizes)
            .into_iter()
            .map(|(fragment, piece)| {
                let extensions = [in_each, &[Extension::Fragment(fragment)]].concat();
                self.packet_around(&extensions, next, piece)
            })
            .collect()
    }

    fn whole_payload(&self) -> Vec<u8> {
        self.payload
            .bytes(&self.source.octets(), &self.dest.octets())
    }

    /// `protocol` is that of `payload`.
    fn packet_around(&self, extensions: &[Extension], protocol: u8, payload: &[u8]) -> Packet {
        let (next, headers) = chain(extensions, protocol);
        let true_length = stated(headers.len() + payload.len());
        let payload_length = self.payload_length.unwrap_or(true_length);

        let mut bytes = vec![self.version << 4, 0, 0, 0];
        bytes.extend(payload_length.to_be_bytes());
        bytes.extend([next, self.hop_limit]);
        bytes.extend(self.source.octets());
        bytes.extend(self.dest.octets());
        bytes.extend(headers);
        bytes.extend(payload);
        Packet::new(Family::V6, bytes, HEADER + u32::from(payload_length))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options: these bytes, and zeros, each the option Pad1, to
    /// the next multiple of 8.
    HopByHop(Vec<u8>),
    Routing {
        kind: u8,
        segments_left: u8,
        /// What follows, padded with zeros.
        data: Vec<u8>,
    },
    /// Destination options, as those of hop-by-hop.
    DestinationOptions(Vec<u8>),
    /// A fragment header. See [`Ipv6::fragments`] for all fragments of a
    /// packet.
    Fragment(Fragment),
    /// Any other, or one that is wrong in itself, for instance in its length.
    Raw {
        /// What the header before says that this is.
        number: u8,
        /// All but its first byte, which says what comes next.
        rest: Vec<u8>,
    },
}

impl Extension {
    fn number(&self) -> u8 {
        match self {
            Self::HopByHop(_) => 0,
            Self::Routing { .. } => 43,
            Self::Fragment(_) => 44,
            Self::DestinationOptions(_) => 60,
            Self::Raw { number, .. } => *number,
        }
    }

    /// The header; `next` is the number of the one that follows.
    fn bytes(&self, next: u8) -> Vec<u8> {
        match self {
            Self::HopByHop(options) | Self::DestinationOptions(options) => {
                with_length(next, options)
            }
            Self::Routing {
                kind,
                segments_left,
                data,
            } => with_length(next, &[&[*kind, *segments_left], &data[..]].concat()),
            Self::Fragment(Fragment { id, offset, more }) => {
                let [high, low] = (offset & !7 | u16::from(*more)).to_be_bytes();
                let [id_high, id_low] = id.to_be_bytes();
                vec![next, 0, high, low, 0, 0, id_high, id_low]
            }
            Self::Raw { rest, .. } => [&[next], &rest[..]].concat(),
        }
    }
}

/// The headers one after another, and the number of the first of them;
/// `protocol` is what follows the last.
fn chain(extensions: &[Extension], protocol: u8) -> (u8, Vec<u8>) {
    let mut next = protocol;
    let mut headers = Vec::new();
    for extension in extensions.iter().rev() {
        headers.push(extension.bytes(next));
        next = extension.number();
    }
    headers.reverse();
    (next, headers.concat())
}

/// A header in the common form, whose second byte is its length in units of
/// 8 bytes, the first of them not counted.
fn with_length(next: u8, content: &[u8]) -> Vec<u8> {
    let units = (2 + content.len()).div_ceil(8);
    let length = u8::try_from(units - 1);
    assert!(length.is_ok(), "an extension header has 2048 bytes at most");
    let mut bytes = [&[next, length.unwrap_or(0)], content].concat();
    bytes.resize(units * 8, 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::craft::packet::{checksum, sum};

    fn udp(payload: &[u8]) -> Ipv6 {
        let source = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1];
        let dest = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 2];
        Ipv6::udp(source, dest, payload)
    }

    fn with(extensions: Vec<Extension>) -> Ipv6 {
        Ipv6 {
            extensions,
            ..udp(b"abc")
        }
    }

    /// As a receiver checks it (RFC 8200, 8.1).
    fn udp_verifies(packet: &Packet) -> bool {
        let udp = &packet.bytes()[40..];
        let addresses = sum(&packet.bytes()[8..40]);
        checksum(addresses + 17 + u32::try_from(udp.len()).unwrap() + sum(udp)) == 0
    }

    #[test]
    fn a_packet_without_extensions_is_exact_to_the_byte() {
        let packet = udp(b"a").packet();
        let expected: &[u8] = &[
            0x60, 0, 0, 0, 0, 9, 17, 64, // to the addresses
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, // source
            0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, // destination
            0x9c, 0x40, 0, 9, 0, 9, 0xa7, 0x1d, // UDP
            b'a',
        ];
        assert_eq!(packet.bytes(), expected);
        assert_eq!(packet.ip_length(), 49);
    }

    #[test]
    fn each_extension_header_is_exact_to_the_byte() {
        let extensions = vec![
            Extension::HopByHop(vec![5, 2, 0, 0]),
            Extension::Routing {
                kind: 4,
                segments_left: 0,
                data: vec![9; 5],
            },
            Extension::DestinationOptions(vec![]),
            Extension::Fragment(Fragment {
                id: 0x1234,
                offset: 0x0108,
                more: true,
            }),
            Extension::Raw {
                number: 135,
                rest: vec![255, 1],
            },
        ];
        let packet = with(extensions).packet();
        let expected: &[u8] = &[
            43, 0, 5, 2, 0, 0, 0, 0, // hop-by-hop options
            60, 1, 4, 0, 9, 9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0, // routing
            44, 0, 0, 0, 0, 0, 0, 0, // destination options
            135, 0, 0x01, 0x09, 0, 0, 0x12, 0x34, // fragment
            17, 255, 1, // as it was given
        ];
        assert_eq!(packet.bytes()[6], 0, "hop-by-hop options come first");
        assert_eq!(&packet.bytes()[40..40 + expected.len()], expected);
        let length = expected.len() + 8 + 3;
        assert_eq!(usize::from(packet.bytes()[5]), length);
        assert_eq!(packet.bytes().len(), 40 + length);
        assert_eq!(packet.ip_length() as usize, 40 + length);
    }

    #[test]
    fn what_is_forced_is_in_the_header_and_the_rest_is_right() {
        for payload_length in [0, 10, 1500, u16::MAX] {
            let packet = Ipv6 {
                payload_length: Some(payload_length),
                ..udp(b"abc")
            }
            .packet();
            assert_eq!(packet.bytes()[4..6], payload_length.to_be_bytes());
            assert_eq!(packet.ip_length(), 40 + u32::from(payload_length));
            assert_eq!(packet.bytes().len(), 51);
            assert!(udp_verifies(&packet));
        }
        let version = Ipv6 {
            version: 4,
            ..udp(b"abc")
        };
        assert_eq!(version.packet().bytes()[0], 0x40);
    }

    #[test]
    fn odd_addresses_have_right_checksums() {
        for address in ["::1", "::", "ff00::1", "ff01::1", "ff0e::1"] {
            let address: Ipv6Addr = address.parse().unwrap();
            for payload in 0..=65_u8 {
                let payload: Vec<u8> = (0..payload).collect();
                let from = Ipv6 {
                    source: address,
                    ..udp(&payload)
                };
                let to = Ipv6 {
                    dest: address,
                    ..udp(&payload)
                };
                for packet in [from.packet(), to.packet()] {
                    assert!(udp_verifies(&packet), "{address}");
                }
            }
        }
    }

    #[test]
    fn fragments_are_exact_to_the_byte_and_make_up_the_packet() {
        let whole = Ipv6 {
            extensions: vec![
                Extension::HopByHop(vec![]),
                Extension::DestinationOptions(vec![]),
            ],
            ..udp(&(0..25).collect::<Vec<u8>>())
        };
        let fragments = whole.fragments(0x1234, &[8, 16]);
        let headers: Vec<_> = fragments
            .iter()
            .map(|fragment| fragment.bytes()[40..56].to_vec())
            .collect();
        assert_eq!(
            headers,
            [
                [44, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 1, 0, 0, 0x12, 0x34],
                [44, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 9, 0, 0, 0x12, 0x34],
                [44, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 24, 0, 0, 0x12, 0x34],
            ],
            "hop-by-hop options, and a fragment of what begins with destination options"
        );
        let lengths: Vec<_> = fragments.iter().map(Packet::ip_length).collect();
        assert_eq!(lengths, [64, 72, 73]);
        let joined: Vec<u8> = fragments
            .iter()
            .flat_map(|fragment| &fragment.bytes()[56..])
            .copied()
            .collect();
        assert_eq!(joined, whole.packet().bytes()[48..]);
    }
}
