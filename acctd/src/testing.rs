//! Datagrams as the kernel builds them, for unit tests.

use crate::nflog::message::MESSAGE_PACKET;

pub(crate) const AF_INET: u8 = 2;
pub(crate) const NFPROTO_ARP: u8 = 3;
pub(crate) const NFPROTO_NETDEV: u8 = 5;
pub(crate) const NFPROTO_BRIDGE: u8 = 7;
pub(crate) const AF_INET6: u8 = 10;

/// The packets of go-nflog-acctd's own tests: 151 bytes from 10.21.0.1 to 10.21.0.9 …
pub(crate) const GO_IP4: [u8; 20] = [
    0x45, 0x00, 0x00, 0x97, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x26, 0x23, 10, 21, 0, 1, 10, 21,
    0, 9,
];
/// … and 64 bytes after the header from 2001:470:1f08:2de:f00f:39aa:2b2:940c to `2a00:1450:400c:c00::69`.
pub(crate) const GO_IP6: [u8; 40] = [
    0x60, 0x00, 0x00, 0x00, 0x00, 0x40, 0x3a, 0x40, 0x20, 0x01, 0x04, 0x70, 0x1f, 0x08, 0x02, 0xde,
    0xf0, 0x0f, 0x39, 0xaa, 0x02, 0xb2, 0x94, 0x0c, 0x2a, 0x00, 0x14, 0x50, 0x40, 0x0c, 0x0c, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x69,
];

/// A logged packet, in the fields that the kernel fills.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) family: u8,
    pub(crate) hook: u8,
    pub(crate) protocol: u16,
    pub(crate) sequence: Option<u32>,
    /// In nanoseconds. The datagram has microseconds, as in the kernel.
    pub(crate) stamp: Option<i64>,
    pub(crate) link_header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Further attributes: the position to insert it at, type, value.
    pub(crate) extra: Vec<(usize, u16, Vec<u8>)>,
}

impl Default for Logged {
    fn default() -> Self {
        Self {
            family: AF_INET,
            hook: 1,
            protocol: 0x0800,
            sequence: None,
            stamp: None,
            link_header: Vec::new(),
            payload: GO_IP4.to_vec(),
            extra: Vec::new(),
        }
    }
}

/// The first 20 bytes of an IPv4 packet.
pub(crate) fn ip4(source: [u8; 4], dest: [u8; 4], total_length: u16) -> Vec<u8> {
    let mut header = GO_IP4.to_vec();
    header[2..4].copy_from_slice(&total_length.to_be_bytes());
    header[12..16].copy_from_slice(&source);
    header[16..20].copy_from_slice(&dest);
    header
}

/// One message per packet, with attributes in the kernel's order, and the message that ends a batch.
pub(crate) fn datagram(packets: &[Logged]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for packet in packets {
        bytes.extend(message(packet));
    }
    push_message(&mut bytes, 3, &[0, 0, 0, 5]);
    bytes
}

/// A netlink message with one packet.
pub(crate) fn message(packet: &Logged) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_message(&mut bytes, MESSAGE_PACKET, &body(packet));
    bytes
}

pub(crate) fn push_message(bytes: &mut Vec<u8>, kind: u16, body: &[u8]) {
    let length = u32::try_from(16 + body.len()).unwrap();
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(body);
    pad(bytes);
}

fn body(packet: &Logged) -> Vec<u8> {
    let [high, low] = packet.protocol.to_be_bytes();
    let mut attributes = vec![(1, vec![high, low, packet.hook, 0])];
    // NFULA_IFINDEX_INDEV, NFULA_HWTYPE: acctd ignores them.
    attributes.push((4, vec![0, 0, 0, 2]));
    attributes.push((15, vec![0, 1]));
    if let Some(stamp) = packet.stamp {
        let mut value = (stamp / 1_000_000_000).to_be_bytes().to_vec();
        value.extend((stamp % 1_000_000_000 / 1_000).to_be_bytes());
        attributes.push((3, value));
    }
    if let Some(sequence) = packet.sequence {
        attributes.push((12, sequence.to_be_bytes().to_vec()));
    }
    if !packet.link_header.is_empty() {
        attributes.push((21, packet.link_header.clone()));
    }
    attributes.push((9, packet.payload.clone()));
    for (position, kind, value) in &packet.extra {
        let position = position % (attributes.len() + 1);
        attributes.insert(position, (*kind, value.clone()));
    }
    let mut body = vec![packet.family, 0, 0, 5];
    for (kind, value) in attributes {
        body.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        pad(&mut body);
    }
    body
}

fn pad(bytes: &mut Vec<u8>) {
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
}
