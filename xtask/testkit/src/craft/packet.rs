//! What packets of IPv4 and IPv6 have in common.

/// The discard service: what arrives there means nothing to anyone.
const DEST_PORT: u16 = 9;
const SOURCE_PORT: u16 = 40_000;
pub(super) const HOP_LIMIT: u8 = 64;
pub(super) const UDP: u8 = 17;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The length of the IP and UDP headers, the shortest packet there is.
    pub(crate) const fn headers(self) -> u16 {
        match self {
            Self::V4 => 20 + 8,
            Self::V6 => 40 + 8,
        }
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
    pub(super) fn new(family: Family, bytes: Vec<u8>, ip_length: u32) -> Self {
        Self {
            family,
            bytes,
            ip_length,
        }
    }

    pub(super) fn ether_type(&self) -> u16 {
        match self.family {
            Family::V4 => 0x0800,
            Family::V6 => 0x86dd,
        }
    }

    /// The packet as it goes out.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The length as the header states it, even where that is wrong: the
    /// total length of IPv4, the payload length of IPv6 plus 40.
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
    Udp(Vec<u8>),
    /// Just these bytes, for instance a fragment of something.
    Raw {
        /// What the header before claims that they are.
        protocol: u8,
        bytes: Vec<u8>,
    },
}

impl Payload {
    pub(super) fn protocol(&self) -> u8 {
        match self {
            Self::Udp(_) => UDP,
            Self::Raw { protocol, .. } => *protocol,
        }
    }

    /// The bytes between these addresses, given as octets: the checksum of
    /// UDP covers them.
    pub(super) fn bytes(&self, source: &[u8], dest: &[u8]) -> Vec<u8> {
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
pub(super) fn stated(length: usize) -> u16 {
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
    pub more: bool,
}

/// Cuts off these sizes, one after another; the last piece is what is left.
pub(super) fn split<'a>(whole: &'a [u8], id: u16, sizes: &[u16]) -> Vec<(Fragment, &'a [u8])> {
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

/// The sum of the 16-bit words of at most 64 KiB; a last byte without another
/// counts as if a zero followed.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let (words, last) = bytes.as_chunks::<2>();
    let words = words.iter().map(|&w| u32::from(u16::from_be_bytes(w)));
    words.sum::<u32>() + last.first().map_or(0, |&byte| u32::from(byte) << 8)
}

/// The Internet checksum (RFC 1071) from the sum of the words.
#[expect(
    clippy::cast_possible_truncation,
    reason = "folded to 16 bits: the first fold of any sum is at most 0x1fffe, the second 16 bits"
)]
pub(super) fn checksum(sum: u32) -> u16 {
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !(folded as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

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
