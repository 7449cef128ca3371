//! The offsets in a packet's message. The messages that one rule logs on one hook differ only in values. So if
//! the shape of one is known, the values of the next are at the same offsets, and acctd does not walk its
//! attributes. A comparison under a mask shows whether a message has that shape.

use std::ops::Range;

use super::message::{ATTRIBUTE_HEADER, NETLINK_HEADER, NFGENMSG, align, attributes};

/// `enum nfulnl_attr_type`: the attributes that acctd reads.
pub(super) mod attribute {
    pub(in crate::nflog) const PACKET_HDR: u16 = 1;
    pub(in crate::nflog) const TIMESTAMP: u16 = 3;
    pub(in crate::nflog) const IFINDEX_INDEV: u16 = 4;
    pub(in crate::nflog) const IFINDEX_OUTDEV: u16 = 5;
    pub(in crate::nflog) const PAYLOAD: u16 = 9;
    pub(in crate::nflog) const SEQ: u16 = 12;
    pub(in crate::nflog) const L2HDR: u16 = 21;
}

/// The offsets of values in a message, and the values that are the same in all messages of its shape.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `NFPROTO_*` of the table that logged the packet.
    pub(super) family: u8,
    /// `nfulnl_msg_packet_hdr.hook`; its meaning depends on the family.
    pub(super) hook: u8,
    /// `nfulnl_msg_packet_hdr.hw_protocol`: an `EtherType`.
    pub(super) protocol: u16,
    pub(super) sequence: Option<usize>,
    pub(super) stamp: Option<usize>,
    pub(super) link_header: Range<usize>,
    pub(super) payload: Range<usize>,
}

impl Layout {
    /// The layout of an empty message.
    pub(super) const NONE: Self = Self {
        family: 0,
        hook: 0,
        protocol: 0,
        sequence: None,
        stamp: None,
        link_header: 0..0,
        payload: 0..0,
    };

    /// The layout of a packet's message; `None` if its attributes are impossible.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let mut layout = Self {
            family: *message.get(NETLINK_HEADER)?,
            ..Self::NONE
        };
        message.get(NETLINK_HEADER..ATTRIBUTES_AT)?;
        for attribute in attributes(message, ATTRIBUTES_AT) {
            let (kind, value) = attribute?;
            match kind {
                attribute::PAYLOAD => layout.payload = value,
                attribute::L2HDR => layout.link_header = value,
                attribute::SEQ if value.len() >= 4 => layout.sequence = Some(value.start),
                attribute::TIMESTAMP if value.len() >= 16 => layout.stamp = Some(value.start),
                attribute::PACKET_HDR => {
                    let [high, low, hook, ..] = *message.get(value)?.first_chunk::<4>()?;
                    layout.protocol = u16::from_be_bytes([high, low]);
                    layout.hook = hook;
                }
                attribute::SEQ | attribute::TIMESTAMP => return None,
                _ => {}
            }
        }
        Some(layout)
    }
}

/// Where the attributes of a packet's message begin.
pub(super) const ATTRIBUTES_AT: usize = NETLINK_HEADER + NFGENMSG;

/// The longest message whose shape is remembered, in bytes. If packets come from an Ethernet device and the rule
/// has no prefix, their messages have 148 (IPv4) or 168 bytes (IPv6).
const LONGEST: usize = 256;

/// The shape of a message: its length, the types and lengths of its attributes, and the values that decide how
/// the others are read.
#[derive(Debug)]
pub(super) struct Shape {
    /// The layout of messages of this shape.
    pub(super) layout: Layout,
    /// In bytes, at least one block.
    length: usize,
    /// The whole blocks from the front of a message.
    front: [Pattern; LONGEST / BLOCK],
    /// The last bytes of a message, as many as a block has. They may overlap the other blocks.
    end: Pattern,
}

impl Shape {
    /// A shape that no message has.
    pub(super) const NONE: Self = Self {
        layout: Layout::NONE,
        length: usize::MAX,
        front: [Pattern::ANY; LONGEST / BLOCK],
        end: Pattern::ANY,
    };

    /// The shape of this message, which has this layout. [`Shape::NONE`] if it is too short or too long.
    pub(super) fn of(message: &[u8], layout: &Layout) -> Self {
        let mut mask = vec![0_u8; message.len()];
        let mut compare = |range: Range<usize>| {
            if let Some(bytes) = mask.get_mut(range) {
                bytes.fill(0xff);
            }
        };
        // Length and type of the message, then the family.
        compare(0..6);
        compare(NETLINK_HEADER..NETLINK_HEADER + 1);
        for (kind, value) in attributes(message, ATTRIBUTES_AT).flatten() {
            compare(value.start - ATTRIBUTE_HEADER..value.start);
            if kind == attribute::PACKET_HDR {
                compare(value);
            }
        }
        let mut shape = Self::NONE;
        let (Some(bytes), Some(last_mask)) = (message.last_chunk(), mask.last_chunk()) else {
            return shape;
        };
        if message.len() > LONGEST {
            return shape;
        }
        shape.layout = layout.clone();
        shape.length = message.len();
        shape.end = Pattern::of(bytes, last_mask);
        let blocks = message.as_chunks().0.iter().zip(mask.as_chunks().0);
        for (pattern, (bytes, mask)) in shape.front.iter_mut().zip(blocks) {
            *pattern = Pattern::of(bytes, mask);
        }
        shape
    }

    /// If the first message of the datagram has this shape: the message, and what follows it.
    #[inline]
    pub(super) fn split_off<'a>(&self, datagram: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let message = datagram.get(..self.length)?;
        let mut difference = self.end.difference(message.last_chunk()?);
        for (block, pattern) in message.as_chunks().0.iter().zip(&self.front) {
            let more = pattern.difference(block);
            for (difference, more) in difference.iter_mut().zip(more) {
                *difference |= more;
            }
        }
        if difference != [0; _] {
            return None;
        }
        let rest = datagram.get(align(self.length)..).unwrap_or(&[]);
        Some((message, rest))
    }
}

/// How many bytes are compared at a time: they fit two vector registers of any processor.
const BLOCK: usize = 32;

/// Bytes under a mask.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    bytes: [u64; BLOCK / 8],
    mask: [u64; BLOCK / 8],
}

impl Pattern {
    const ANY: Self = Self {
        bytes: [0; _],
        mask: [0; _],
    };

    fn of(bytes: &[u8; BLOCK], mask: &[u8; BLOCK]) -> Self {
        Self {
            bytes: words(bytes),
            mask: words(mask),
        }
    }

    /// Zero bits where the block matches.
    #[inline]
    fn difference(&self, block: &[u8; BLOCK]) -> [u64; BLOCK / 8] {
        let words = words(block);
        std::array::from_fn(|at| (words[at] ^ self.bytes[at]) & self.mask[at])
    }
}

#[inline]
fn words(block: &[u8; BLOCK]) -> [u64; BLOCK / 8] {
    let words = block.as_chunks().0;
    std::array::from_fn(|at| u64::from_ne_bytes(words[at]))
}
