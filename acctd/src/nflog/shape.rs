//! Where in a packet's message things are. The messages that one rule logs on one hook differ in
//! values alone, so that whoever knows the shape of one finds the values of the next without
//! walking its attributes: a comparison under a mask says whether it is of that shape.

use std::ops::Range;

use super::message::{ATTRIBUTE_HEADER, NETLINK_HEADER, NFGENMSG, align, attributes};

/// `enum nfulnl_attr_type`, those that accounting reads.
pub(super) mod attribute {
    pub(in crate::nflog) const PACKET_HDR: u16 = 1;
    pub(in crate::nflog) const TIMESTAMP: u16 = 3;
    pub(in crate::nflog) const PAYLOAD: u16 = 9;
    pub(in crate::nflog) const SEQ: u16 = 12;
    pub(in crate::nflog) const L2HDR: u16 = 21;
}

/// Where the values of a message are, in bytes from its front, and those that are the same in all
/// messages of its shape.
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
    /// That of a message of nothing.
    pub(super) const NONE: Self = Self {
        family: 0,
        hook: 0,
        protocol: 0,
        sequence: None,
        stamp: None,
        link_header: 0..0,
        payload: 0..0,
    };

    /// That of a packet's message; `None` if its attributes do not add up.
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
const ATTRIBUTES_AT: usize = NETLINK_HEADER + NFGENMSG;

/// The longest message whose shape is remembered, in bytes. The kernel's are of 148 (IPv4) and 168
/// (IPv6) where they come from an Ethernet device and the rule has no label.
const LONGEST: usize = 256;

/// The shape of a message: its length, its attributes' types and lengths, and the values that say
/// how to read the others.
#[derive(Debug)]
pub(super) struct Shape {
    /// Where things are in its messages.
    pub(super) layout: Layout,
    /// In bytes, not less than a block.
    length: usize,
    /// Of the blocks from the front of a message on.
    front: [Pattern; LONGEST / BLOCK],
    /// Of the block at its very end, which may overlap them.
    end: Pattern,
}

impl Shape {
    /// That of no message.
    pub(super) const NONE: Self = Self {
        layout: Layout::NONE,
        length: usize::MAX,
        front: [Pattern::ANY; LONGEST / BLOCK],
        end: Pattern::ANY,
    };

    /// The shape of this message of this layout; none if it is too short or too long.
    pub(super) fn of(message: &[u8], layout: &Layout) -> Self {
        let mut mask = vec![0_u8; message.len()];
        let mut in_common = |range: Range<usize>| {
            if let Some(bytes) = mask.get_mut(range) {
                bytes.fill(0xff);
            }
        };
        // Length and type, then the family.
        in_common(0..6);
        in_common(NETLINK_HEADER..NETLINK_HEADER + 1);
        for (kind, value) in attributes(message, ATTRIBUTES_AT).flatten() {
            in_common(value.start - ATTRIBUTE_HEADER..value.start);
            if kind == attribute::PACKET_HDR {
                in_common(value);
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

    /// The message at the front of a datagram if it is of this shape, and what follows it.
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

/// What is compared at a time: as much as fits two vector registers of any processor.
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

    /// Zeros where the block is as it should be.
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
