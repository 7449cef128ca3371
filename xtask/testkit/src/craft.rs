//! Single Ethernet frames, each as odd as a test of a packet parser needs it.
//! All is valid but what is forced: a struct's fields are what a frame says,
//! `None` is what is right.
//!
//! ```
//! use testkit::{craft::{Ethernet, Ipv4, VlanTag}, mac::MacAddr};
//!
//! let packet = Ipv4 {
//!     total_length: Some(0),
//!     ..Ipv4::udp([192, 0, 2, 1], [198, 51, 100, 2], b"payload")
//! }
//! .packet();
//! let frame = Ethernet {
//!     tags: vec![VlanTag::service(5), VlanTag::customer(7)],
//!     ..Ethernet::to(MacAddr([2, 0, 0, 0, 0, 1]))
//! }
//! .frame(&packet);
//! assert_eq!(frame.ip_length(), 0);
//! assert_eq!(frame.bytes().len(), 14 + 2 * 4 + 20 + 8 + 7);
//! ```
//!
//! No library makes these: `etherparse`, for one, writes versions, header
//! lengths and the order of extension headers itself, so that every malformed
//! frame would be a valid one of its, patched here. For many frames at speed
//! there is [`crate::frame`].

use std::net::IpAddr;

use crate::{
    frame::{DEST_PORT, Family, SERVICE_VLAN, SOURCE_PORT, UDP, VLAN, checksum, sum},
    mac::MacAddr,
};

mod ipv4;
mod ipv6;

pub use ipv4::Ipv4;
pub use ipv6::{Extension, Ipv6};

/// Everyone on the link.
pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

/// A host on the link that is neither end of any test's.
pub const ANOTHER_HOST: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0xee]);

/// The sender, where a test does not say another.
const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0x5e]);

/// The Ethernet address of a multicast group (RFC 1112, RFC 2464).
#[must_use]
pub fn multicast_mac(group: impl Into<IpAddr>) -> MacAddr {
    match group.into() {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddr([0x33, 0x33, a, b, c, d])
        }
    }
}

/// The part of a frame before its packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    /// The receiver.
    pub to: MacAddr,
    /// The sender.
    pub from: MacAddr,
    /// VLAN tags, the outermost first.
    pub tags: Vec<VlanTag>,
    /// What the frame claims to carry, if not what it does carry.
    pub ether_type: Option<u16>,
}

impl Ethernet {
    /// To this receiver, without tags.
    #[must_use]
    pub fn to(to: MacAddr) -> Self {
        Self {
            to,
            from: SENDER,
            tags: Vec::new(),
            ether_type: None,
        }
    }

    /// The frame with this packet in it.
    #[must_use]
    pub fn frame(&self, packet: &Packet) -> Frame {
        let mut bytes = [self.to.0, self.from.0].concat();
        for tag in &self.tags {
            bytes.extend(tag.ether_type.to_be_bytes());
            bytes.extend(tag.control.to_be_bytes());
        }
        let ether_type = self.ether_type.unwrap_or(packet.family.ether_type());
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(&packet.bytes);
        Frame {
            bytes,
            ip_length: packet.ip_length,
        }
    }
}

/// A VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// What says that this is a tag.
    pub ether_type: u16,
    /// Priority, drop eligibility, and in the low 12 bits the id.
    pub control: u16,
}

impl VlanTag {
    /// An 802.1Q tag, 0x8100.
    #[must_use]
    pub const fn customer(id: u16) -> Self {
        Self {
            ether_type: VLAN,
            control: id,
        }
    }

    /// An 802.1ad tag, 0x88a8.
    #[must_use]
    pub const fn service(id: u16) -> Self {
        Self {
            ether_type: SERVICE_VLAN,
            control: id,
        }
    }
}

/// A frame, whole or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Vec<u8>,
    ip_length: u32,
}

impl Frame {
    /// The frame as it goes out.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of the IP packet as its header states it; see
    /// [`Packet::ip_length`].
    #[must_use]
    pub fn ip_length(&self) -> u32 {
        self.ip_length
    }

    /// With this many zeros after the packet, as a driver pads a short frame.
    #[must_use]
    pub fn padded(mut self, n: usize) -> Self {
        self.bytes.resize(self.bytes.len() + n, 0);
        self
    }

    /// The first `length` bytes. Its headers do not know.
    #[must_use]
    pub fn truncated(mut self, length: usize) -> Self {
        self.bytes.truncate(length);
        self
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Frame> for Vec<u8> {
    fn from(frame: Frame) -> Self {
        frame.bytes
    }
}

/// An IP packet: what a tun device takes, and what a frame carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    family: Family,
    bytes: Vec<u8>,
    ip_length: u32,
}

impl Packet {
    /// The packet as it goes out.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length as the header states it, even where that is wrong: the
    /// total length of IPv4, the payload length of IPv6 plus 40.
    #[must_use]
    pub fn ip_length(&self) -> u32 {
        self.ip_length
    }
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Packet> for Vec<u8> {
    fn from(packet: Packet) -> Self {
        packet.bytes
    }
}

/// What an IP packet carries after its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// A UDP packet with this in it.
    Udp(Vec<u8>),
    /// Just these bytes, for instance a fragment of something.
    Raw {
        /// What the header before claims that they are.
        protocol: u8,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl Payload {
    fn protocol(&self) -> u8 {
        match self {
            Self::Udp(_) => UDP,
            Self::Raw { protocol, .. } => *protocol,
        }
    }

    /// The bytes between these addresses, given as octets: the checksum of
    /// UDP covers them.
    fn bytes(&self, source: &[u8], dest: &[u8]) -> Vec<u8> {
        match self {
            Self::Udp(payload) => udp(source, dest, payload),
            Self::Raw { bytes, .. } => bytes.clone(),
        }
    }
}

fn udp(source: &[u8], dest: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = stated(8 + payload.len());
    let mut bytes = Vec::new();
    for field in [SOURCE_PORT, DEST_PORT, length, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(payload);
    let addresses = sum(source) + sum(dest);
    let words = addresses + u32::from(UDP) + u32::from(length) + sum(&bytes);
    let checksum = match checksum(words) {
        0 => 0xffff, // A checksum of 0 means none.
        other => other,
    };
    bytes[6..8].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

/// A length as a header has it: 0 where 16 bits do not hold it, as in a
/// jumbogram or a packet of BIG TCP.
fn stated(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(0)
}

/// A fragment's place in the packet it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// What all fragments of one packet have in common. IPv6 would have 32
    /// bits for it.
    pub id: u16,
    /// How many bytes are before this, a multiple of 8.
    pub offset: u16,
    /// More is to come.
    pub more: bool,
}

/// Cuts off these sizes, one after another; the last piece is what is left.
fn split<'a>(whole: &'a [u8], id: u16, sizes: &[u16]) -> Vec<(Fragment, &'a [u8])> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    let mut rest = whole;
    for &size in sizes {
        assert!(
            size.is_multiple_of(8) && usize::from(size) < rest.len(),
            "no fragment of {size} bytes can be cut off {}: a header counts in eights, \
             and the last fragment has something in it",
            rest.len()
        );
        let (piece, after) = rest.split_at(size.into());
        let more = true;
        pieces.push((Fragment { id, offset, more }, piece));
        offset += size;
        rest = after;
    }
    let more = false;
    pieces.push((Fragment { id, offset, more }, rest));
    pieces
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn packet() -> Packet {
        Ipv4::udp([192, 0, 2, 1], [198, 51, 100, 2], b"ab").packet()
    }

    #[test]
    fn a_frame_without_tags_is_exact_to_the_byte() {
        let frame = Ethernet::to(PEER).frame(&packet());
        let expected: &[u8] = &[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0xff, 0x5e, 0x08, 0x00, // Ethernet
            0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 17, 0x4e, 0x98, // IPv4, to its checksum
            192, 0, 2, 1, 198, 51, 100, 2, // addresses
            0x9c, 0x40, 0, 9, 0, 10, 0x15, 0xf7, // UDP
            b'a', b'b',
        ];
        assert_eq!(frame.bytes(), expected);
        assert_eq!(frame.ip_length(), 30);
    }

    #[test]
    fn tags_stand_in_their_order_and_have_the_type_they_were_given() {
        let tags = |tags: &[VlanTag]| {
            let tags = tags.to_vec();
            let link = Ethernet {
                tags,
                ..Ethernet::to(PEER)
            };
            let frame = link.frame(&packet());
            let end = frame.bytes().len() - packet().bytes().len();
            frame.bytes()[12..end].to_vec()
        };
        let (outer, inner) = (VlanTag::service(5), VlanTag::customer(0x3007));
        assert_eq!(tags(&[inner]), [0x81, 0, 0x30, 7, 8, 0]);
        assert_eq!(tags(&[outer]), [0x88, 0xa8, 0, 5, 8, 0]);
        assert_eq!(
            tags(&[outer, inner]),
            [0x88, 0xa8, 0, 5, 0x81, 0, 0x30, 7, 8, 0]
        );
        assert_eq!(
            tags(&[inner, inner, outer]),
            [0x81, 0, 0x30, 7, 0x81, 0, 0x30, 7, 0x88, 0xa8, 0, 5, 8, 0]
        );
    }

    #[test]
    fn the_ether_type_can_belie_the_packet() {
        let link = Ethernet {
            ether_type: Some(0x86dd),
            ..Ethernet::to(PEER)
        };
        assert_eq!(link.frame(&packet()).bytes()[12..14], [0x86, 0xdd]);
    }

    #[test]
    fn padding_and_truncation_leave_the_headers_alone() {
        let whole = Ethernet::to(PEER).frame(&packet());
        let padded = whole.clone().padded(16);
        assert_eq!(padded.bytes(), [whole.bytes(), &[0; 16]].concat());
        let cut = whole.clone().truncated(33);
        assert_eq!(cut.bytes(), &whole.bytes()[..33]);
        assert_eq!((padded.ip_length(), cut.ip_length()), (30, 30));
    }

    #[test]
    fn a_group_has_its_ethernet_address() {
        let v4 = multicast_mac(Ipv4Addr::new(239, 129, 2, 3));
        assert_eq!(v4.to_string(), "01:00:5e:01:02:03");
        let v6 = multicast_mac("ff01::1:2:3".parse::<Ipv6Addr>().unwrap());
        assert_eq!(v6.to_string(), "33:33:00:02:00:03");
    }

    #[test]
    fn fragments_are_cut_in_order_and_the_last_has_the_rest() {
        let whole: Vec<u8> = (0..30).collect();
        let at = |offset, more| Fragment {
            id: 7,
            offset,
            more,
        };
        assert_eq!(
            split(&whole, 7, &[16, 8]),
            [
                (at(0, true), &whole[..16]),
                (at(16, true), &whole[16..24]),
                (at(24, false), &whole[24..]),
            ]
        );
        assert_eq!(split(&whole, 7, &[]), [(at(0, false), &whole[..])]);
    }

    #[test]
    #[should_panic(expected = "no fragment of 12 bytes")]
    fn a_fragment_that_no_header_can_place_is_refused() {
        split(&[0; 30], 7, &[12]);
    }

    #[test]
    #[should_panic(expected = "no fragment of 16 bytes can be cut off 16")]
    fn nothing_left_for_the_last_fragment_is_refused() {
        split(&[0; 24], 7, &[8, 16]);
    }
}
