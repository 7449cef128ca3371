//! Datagrams as Linux 6.18 builds them for a log rule on prerouting, with a snaplen of an IP header.
//! The attributes, their order and their lengths are those of one that was recorded; the code behind
//! them is `__build_packet_message` in `net/netfilter/nfnetlink_log.c`.

use acctd::model::interval::UnixNanos;
use acctd::model::prefix::Family;
use acctd::nflog::message::{MESSAGE_PACKET, NETLINK_HEADER};

/// Packets in a datagram: the threshold of README.md's rules, and what the kernel's buffer holds.
pub(crate) const SIZES: [usize; 2] = [50, 880];
/// The length of each packet.
pub(crate) const BYTES: u64 = 100;
const STAMP_SECONDS: i64 = 1_800_000_000;
/// When the datagrams are received, within the minute of the packets' stamps.
pub(crate) const RECEIVED: UnixNanos = UnixNanos((STAMP_SECONDS + 1) * 1_000_000_000);

const NLMSG_DONE: u16 = 3;
const ATTRIBUTE_HEADER: usize = 4;

/// Datagrams of one group, one at a time in the same place, as in a reader's buffer.
pub(crate) struct Datagrams {
    bytes: Vec<u8>,
    message_length: usize,
    family: Family,
    next_sequence: u32,
}

impl Datagrams {
    pub(crate) fn new(family: Family, n_packets: usize) -> Self {
        let packet = message(MESSAGE_PACKET, &packet(family));
        let mut bytes = packet.repeat(n_packets);
        bytes.extend(message(NLMSG_DONE, &[0, 0, 0, 5]));
        Self {
            bytes,
            message_length: packet.len(),
            family,
            next_sequence: 0,
        }
    }

    /// The next one, whose packets come from the next of these prefixes.
    pub(crate) fn next(&mut self, prefixes: &mut impl Iterator<Item = u32>) -> &[u8] {
        // The packet's number and the payload are the last attributes.
        let payload = self.message_length - self.family.header_length();
        let sequence = payload - ATTRIBUTE_HEADER - 4;
        let source = match self.family {
            Family::Ip4 => payload + 12..payload + 16,
            Family::Ip6 => payload + 8..payload + 24,
        };
        let messages = self.bytes.chunks_exact_mut(self.message_length);
        for (message, prefix) in messages.zip(prefixes) {
            message[sequence..][..4].copy_from_slice(&self.next_sequence.to_be_bytes());
            self.next_sequence = self.next_sequence.wrapping_add(1);
            let address = crate::address(self.family, prefix);
            message[source.clone()].copy_from_slice(&address[..source.len()]);
        }
        &self.bytes
    }
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; NETLINK_HEADER];
    message.extend(body);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message
}

/// `struct nfgenmsg` and the attributes of a packet that came in through Ethernet.
fn packet(family: Family) -> Vec<u8> {
    let (nfproto, [high, low], mut header) = match family {
        Family::Ip4 => (2, [0x08, 0x00], vec![0x45, 0, 0, 100]),
        Family::Ip6 => (10, [0x86, 0xdd], vec![0x60, 0, 0, 0, 0, 60, 17, 64]),
    };
    header.resize(family.header_length(), 0);
    let mut stamp = STAMP_SECONDS.to_be_bytes().to_vec();
    stamp.resize(16, 0);
    let attributes: [(u16, &[u8]); 10] = [
        (1, &[high, low, 0, 0]),                                // PACKET_HDR
        (10, &[0]),                                             // PREFIX: there, if empty
        (4, &[0, 0, 0, 2]),                                     // IFINDEX_INDEV
        (8, &[0, 6, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0]),             // HWADDR
        (15, &[0, 1]),                                          // HWTYPE
        (17, &[0, 14]),                                         // HWLEN
        (16, &[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, high, low]), // HWHEADER
        (3, &stamp),                                            // TIMESTAMP
        (12, &[0; 4]),                                          // SEQ
        (9, &header),                                           // PAYLOAD
    ];
    let mut body = vec![nfproto, 0, 0, 5];
    for (kind, value) in attributes {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        body.extend(length.to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    body
}
