//! A netlink datagram of NFLOG → packets. Pure: no allocation, no clock, no I/O, and no panic on any input.
//!
//! Formats: `linux/netlink.h` (headers and attributes in host byte order, aligned to 4 bytes),
//! `linux/netfilter/nfnetlink_log.h` (attributes, their values in network byte order), and
//! `net/netfilter/nfnetlink_log.c` (what the kernel writes).

use super::message::{MESSAGE_PACKET, Message, NETLINK_HEADER, NLMSG_ERROR, attributes};
use super::shape::{ATTRIBUTES_AT, Layout, Shape, attribute};
use crate::model::interval::UnixNanos;
use crate::model::prefix::Family;

/// `nfgenmsg.nfgen_family`: `NFPROTO_*` of `linux/netfilter.h`.
mod nfproto {
    pub(super) const IPV4: u8 = 2;
    pub(super) const NETDEV: u8 = 5;
    pub(super) const BRIDGE: u8 = 7;
    pub(super) const IPV6: u8 = 10;
}
/// `enum nf_dev_hooks`: the only hook whose packets begin with their link-layer header.
const NF_NETDEV_EGRESS: u8 = 1;

/// `linux/if_ether.h`.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const VLAN_OUTER: u16 = 0x88a8;
}
const VLAN_TAG: usize = 4;
/// An Ethernet header with one VLAN tag.
const ETHERNET_WITH_TAG: usize = 14 + VLAN_TAG;

/// IPv6 `Next Header`: "there is nothing following this header" (RFC 8200, 4.7).
const NO_NEXT_HEADER: u8 = 59;

/// One message of a datagram.
#[derive(Debug)]
pub enum Record<'d, 'l> {
    /// A logged packet.
    Packet(Packet<'d, 'l>),
    /// The kernel's answer to a request: 0, or a negative errno.
    Reply(i32),
    /// Bytes that are not a netlink message, or a packet's message with impossible attributes.
    Malformed,
}

/// A logged packet: its message, and the offsets in it. Each value is read on demand, because a struct of all
/// values would be written to memory and read again.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'d, 'l> {
    message: &'d [u8],
    layout: &'l Layout,
}

/// Why a logged packet is in no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// Fewer bytes than an IP header: the rule's `snaplen` (`--nflog-size`) is too small.
    Truncated,
    /// Neither IPv4 nor IPv6, for example ARP in a bridge table.
    NotIp,
    /// IPv6 in a group for IPv4, or IPv4 in a group for IPv6.
    OtherFamily,
}

/// The messages of one datagram, in order. Not an `Iterator`, because a packet borrows its layout from here.
#[derive(Debug)]
pub struct Records<'d> {
    rest: &'d [u8],
    /// The shape of an earlier message: all messages that one rule logs on one hook have the same.
    shape: Shape,
    /// The layout of the last message that was not of this shape.
    other: Layout,
    /// Consecutive messages of other shapes.
    misses: u32,
}

/// After more misses, the shape of the next message is remembered. So if shapes alternate, one of them is
/// known, and acctd does not learn a shape for each message.
const MAX_MISSES: u32 = 8;

impl<'d> Records<'d> {
    /// Reads from the front of this datagram.
    #[inline]
    #[must_use]
    pub fn of(datagram: &'d [u8]) -> Self {
        Self {
            rest: datagram,
            shape: Shape::NONE,
            other: Layout::NONE,
            misses: MAX_MISSES,
        }
    }

    /// The next message; `None` at the end.
    #[expect(clippy::should_implement_trait, reason = "a record borrows from this")]
    #[inline]
    pub fn next(&mut self) -> Option<Record<'d, '_>> {
        let (message, layout) = if let Some((message, rest)) = self.shape.split_off(self.rest) {
            self.rest = rest;
            self.misses = 0;
            (message, &self.shape.layout)
        } else {
            match self.next_of_another_shape() {
                Other::Packet(message) => (message, &self.other),
                Other::Reply(errno) => return Some(Record::Reply(errno)),
                Other::Malformed => return Some(Record::Malformed),
                Other::End => return None,
            }
        };
        Some(Record::Packet(Packet { message, layout }))
    }

    #[inline(never)]
    fn next_of_another_shape(&mut self) -> Other<'d> {
        loop {
            if self.rest.is_empty() {
                return Other::End;
            }
            let Some((message, rest)) = Message::split_off(self.rest) else {
                self.rest = &[];
                return Other::Malformed;
            };
            self.rest = rest;
            match message.kind {
                MESSAGE_PACKET => {
                    let message = message.bytes;
                    let Some(layout) = Layout::of(message) else {
                        return Other::Malformed;
                    };
                    self.misses += 1;
                    if self.misses > MAX_MISSES {
                        self.shape = Shape::of(message, &layout);
                    }
                    self.other = layout;
                    return Other::Packet(message);
                }
                NLMSG_ERROR => return message.errno().map_or(Other::Malformed, Other::Reply),
                // NLMSG_DONE ends each batch; this subsystem sends nothing else.
                _ => {}
            }
        }
    }
}

/// A message that is not of the known shape.
enum Other<'d> {
    /// A packet's message. Its layout is in `Records::other`.
    Packet(&'d [u8]),
    Reply(i32),
    Malformed,
    End,
}

impl<'d> Packet<'d, '_> {
    /// `nfgenmsg.res_id`: the group to which the packet was logged.
    #[must_use]
    pub fn group(&self) -> Option<u16> {
        let value = self.message.get(NETLINK_HEADER + 2..)?;
        Some(u16::from_be_bytes(*value.first_chunk()?))
    }

    /// `NFULA_SEQ`: the packet's number within its group.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> Option<u32> {
        let value = self.message.get(self.layout.sequence?..)?;
        Some(u32::from_be_bytes(*value.first_chunk()?))
    }

    /// `NFULA_TIMESTAMP`: when the kernel received the packet. Only on the hooks prerouting, input and forward.
    #[inline]
    #[must_use]
    pub fn stamp(&self) -> Option<UnixNanos> {
        let value = self.message.get(self.layout.stamp?..)?;
        let (seconds, rest) = value.split_first_chunk()?;
        let micros = rest.first_chunk()?;
        UnixNanos::from_stamp(u64::from_be_bytes(*seconds), u64::from_be_bytes(*micros))
    }

    /// `nfgenmsg.nfgen_family`: `NFPROTO_*` of the table that logged the packet.
    pub(crate) fn protocol_family(&self) -> u8 {
        self.layout.family
    }

    /// `nfulnl_msg_packet_hdr.hook`: the hook, as its family numbers it.
    pub(crate) fn hook(&self) -> u8 {
        self.layout.hook
    }

    /// `NFULA_IFINDEX_INDEV` and `…_OUTDEV`: the interfaces' indices, 0 if there is none. Walks the attributes.
    pub(crate) fn interfaces(&self) -> [u32; 2] {
        [attribute::IFINDEX_INDEV, attribute::IFINDEX_OUTDEV].map(|wanted| {
            let mut all = attributes(self.message, ATTRIBUTES_AT).flatten();
            let found = all.find(|(kind, _)| *kind == wanted);
            let value = found.and_then(|(_, value)| self.message.get(value)?.first_chunk());
            value.map_or(0, |index| u32::from_be_bytes(*index))
        })
    }

    /// `NFULA_PAYLOAD`: the packet, cut to the rule's snaplen and the group's copy range.
    #[inline]
    fn payload(&self) -> &'d [u8] {
        self.message.get(self.layout.payload.clone()).unwrap_or(&[])
    }

    /// The packet's IP header, of `wanted`'s version and at least [`Family::header_length`] bytes long.
    #[inline]
    pub fn ip_header(&self, wanted: Family) -> Result<&'d [u8], Undecodable> {
        let header = match self.layout.family {
            nfproto::IPV4 | nfproto::IPV6 => self.payload(),
            nfproto::NETDEV | nfproto::BRIDGE => self.after_link_layer()?,
            _ => return Err(Undecodable::NotIp),
        };
        let version = header.first().ok_or(Undecodable::Truncated)? >> 4;
        if version != wanted.version() {
            return Err(match version {
                4 | 6 => Undecodable::OtherFamily,
                _ => Undecodable::NotIp,
            });
        }
        if header.len() < wanted.header_length() {
            return Err(Undecodable::Truncated);
        }
        Ok(header)
    }

    /// On the netdev egress hook the payload begins with the link-layer header, on all other hooks with the
    /// network header. VLAN tags that the kernel has left in the packet are between the two. If the sender
    /// of the frame set the network header after the tags, they are part of the link-layer header, and its
    /// last field is the type of what follows.
    #[cold]
    fn after_link_layer(&self) -> Result<&'d [u8], Undecodable> {
        let is_vlan = |protocol| matches!(protocol, ethertype::VLAN | ethertype::VLAN_OUTER);
        let mut protocol = self.layout.protocol;
        let mut rest = self.payload();
        if self.layout.family == nfproto::NETDEV && self.layout.hook == NF_NETDEV_EGRESS {
            let link = self
                .message
                .get(self.layout.link_header.clone())
                .unwrap_or(&[]);
            rest = rest.get(link.len()..).ok_or(Undecodable::Truncated)?;
            if let Some(last) = link.last_chunk()
                && is_vlan(protocol)
                && link.len() >= ETHERNET_WITH_TAG
            {
                protocol = u16::from_be_bytes(*last);
            }
        }
        while is_vlan(protocol) {
            let tag: &[u8; VLAN_TAG] = rest.first_chunk().ok_or(Undecodable::Truncated)?;
            protocol = u16::from_be_bytes([tag[2], tag[3]]);
            rest = &rest[VLAN_TAG..];
        }
        match protocol {
            ethertype::IPV4 | ethertype::IPV6 => Ok(rest),
            _ => Err(Undecodable::NotIp),
        }
    }
}

/// The length of an IP packet from its header, in bytes, header included. `None` if the header has no length: a
/// GSO or GRO packet above 64 KiB (BIG TCP), or an IPv6 jumbogram (RFC 2675). `header` has at least the family's
/// header length.
#[inline]
#[must_use]
pub fn wire_bytes(family: Family, header: &[u8]) -> Option<u64> {
    match family {
        Family::Ip4 => match u16::from_be_bytes([header[2], header[3]]) {
            0 => None,
            total => Some(u64::from(total)),
        },
        // If nothing follows the header, the payload length 0 is correct.
        Family::Ip6 => match u16::from_be_bytes([header[4], header[5]]) {
            0 if header[6] != NO_NEXT_HEADER => None,
            payload => Some(u64::from(payload) + 40),
        },
    }
}

#[cfg(test)]
mod tests;
