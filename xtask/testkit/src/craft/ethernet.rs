//! Ethernet frames.

use std::net::IpAddr;

use super::packet::Packet;
use crate::mac::MacAddr;

/// 802.1Q, the innermost tag.
const VLAN: u16 = 0x8100;
/// 802.1ad, each tag around another.
const SERVICE_VLAN: u16 = 0x88a8;

/// Everyone on the link.
pub const BROADCAST: MacAddr = MacAddr([0xff; 6]);

/// A host on the link that is neither end of any test's.
pub const ANOTHER_HOST: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0xee]);

/// The sender, where a test does not say another.
const SENDER: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 0x5e]);

/// The Ethernet address of a multicast group (RFC 1112, RFC 2464).
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ethernet {
    pub to: MacAddr,
    pub from: MacAddr,
    /// VLAN tags, the outermost first.
    pub tags: Vec<VlanTag>,
    /// What the frame claims to carry, if not what it does carry.
    pub ether_type: Option<u16>,
}

impl Ethernet {
    /// To this receiver, without tags.
    pub fn to(to: MacAddr) -> Self {
        Self {
            to,
            from: SENDER,
            tags: Vec::new(),
            ether_type: None,
        }
    }

    pub fn frame(&self, packet: &Packet) -> Frame {
        let mut bytes = [self.to.0, self.from.0].concat();
        for tag in &self.tags {
            bytes.extend(tag.ether_type.to_be_bytes());
            bytes.extend(tag.control.to_be_bytes());
        }
        let ether_type = self.ether_type.unwrap_or(packet.ether_type());
        bytes.extend(ether_type.to_be_bytes());
        bytes.extend(packet.bytes());
        Frame {
            bytes,
            ip_length: packet.ip_length(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlanTag {
    /// What says that this is a tag.
    pub ether_type: u16,
    /// Priority, drop eligibility, and in the low 12 bits the id.
    pub control: u16,
}

impl VlanTag {
    /// An 802.1Q tag, 0x8100.
    pub const fn customer(id: u16) -> Self {
        Self {
            ether_type: VLAN,
            control: id,
        }
    }

    /// An 802.1ad tag, 0x88a8.
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
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of the IP packet as its header states it; see
    /// [`Packet::ip_length`].
    pub fn ip_length(&self) -> u32 {
        self.ip_length
    }

    /// With this many zeros after the packet, as a driver pads a short frame.
    pub fn padded(mut self, n: usize) -> Self {
        self.bytes.resize(self.bytes.len() + n, 0);
        self
    }

    /// The first `length` bytes. Its headers do not know.
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::craft::Ipv4;

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
}
