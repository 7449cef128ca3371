//! A netlink datagram of NFLOG → packets. Pure: no allocation, no clock, no I/O, and no panic
//! whatever the bytes are.
//!
//! Shapes: `linux/netlink.h` (headers, attributes in host byte order, aligned to 4 bytes),
//! `linux/netfilter/nfnetlink_log.h` (attributes, their values in network order), and
//! `net/netfilter/nfnetlink_log.c` for what the kernel puts into them.

use super::message::{MESSAGE_PACKET, Message, NETLINK_HEADER, NLMSG_ERROR};
use super::shape::{Layout, Shape};
use crate::model::interval::UnixNanos;
use crate::model::prefix::Family;

/// `nfgenmsg.nfgen_family`: `enum nf_inet... NFPROTO_*` of `linux/netfilter.h`.
mod nfproto {
    pub(super) const IPV4: u8 = 2;
    pub(super) const NETDEV: u8 = 5;
    pub(super) const BRIDGE: u8 = 7;
    pub(super) const IPV6: u8 = 10;
}
/// `enum nf_dev_hooks`: the one hook whose packets begin with their link-layer header.
const NF_NETDEV_EGRESS: u8 = 1;

/// `linux/if_ether.h`.
mod ethertype {
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const VLAN_OUTER: u16 = 0x88a8;
}
const VLAN_TAG: usize = 4;
/// An Ethernet header with at least one VLAN tag in it.
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
    /// Bytes that are no netlink message, or a packet message whose attributes do not add up.
    Malformed,
}

/// A logged packet as the kernel describes it: its message, and where in it things are. Each value is
/// read when it is asked for; put together beforehand they would go through memory.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'d, 'l> {
    message: &'d [u8],
    layout: &'l Layout,
}

/// Why a logged packet has no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// Fewer bytes than an IP header: the rule's `snaplen` (`--nflog-size`) is too small.
    Truncated,
    /// Neither IPv4 nor IPv6: ARP in a bridge table, for instance.
    NotIp,
    /// IPv6 in a group read for IPv4, or the other way round.
    OtherFamily,
}

/// The messages of one datagram, in order. Not an `Iterator`: a packet borrows the layout of its
/// message from here.
#[derive(Debug)]
pub struct Records<'d> {
    rest: &'d [u8],
    /// That of an earlier message; what one rule logs on one hook is alike.
    shape: Shape,
    /// Where things are in the last message that was not of this shape.
    other: Layout,
    /// Messages in a row that had another one.
    misses: u32,
}

/// So many messages of another shape, and the next one's is remembered. Where shapes alternate, one
/// of them is known, and none is learnt for each message.
const TOO_MANY_MISSES: u32 = 8;

impl<'d> Records<'d> {
    /// Those of this datagram.
    #[inline]
    #[must_use]
    pub fn of(datagram: &'d [u8]) -> Self {
        Self {
            rest: datagram,
            shape: Shape::NONE,
            other: Layout::NONE,
            misses: TOO_MANY_MISSES,
        }
    }

    /// The next message, if there is one.
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
                    if self.misses > TOO_MANY_MISSES {
                        self.shape = Shape::of(message, &layout);
                    }
                    self.other = layout;
                    return Other::Packet(message);
                }
                NLMSG_ERROR => return message.errno().map_or(Other::Malformed, Other::Reply),
                // NLMSG_DONE ends each batch; nothing else comes from this subsystem.
                _ => {}
            }
        }
    }
}

/// What comes next if it is not of the known shape.
enum Other<'d> {
    /// A packet's message, whose layout is in `Records::other`.
    Packet(&'d [u8]),
    Reply(i32),
    Malformed,
    End,
}

impl<'d> Packet<'d, '_> {
    /// `nfgenmsg.res_id`: the group that it was logged to.
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

    /// `NFULA_TIMESTAMP`: when the kernel received it; hooks prerouting, input and forward only.
    #[inline]
    #[must_use]
    pub fn stamp(&self) -> Option<UnixNanos> {
        let value = self.message.get(self.layout.stamp?..)?;
        let (seconds, rest) = value.split_first_chunk()?;
        let micros = rest.first_chunk()?;
        UnixNanos::from_stamp(u64::from_be_bytes(*seconds), u64::from_be_bytes(*micros))
    }

    /// `NFULA_PAYLOAD`: the packet, cut to the rule's and the group's copy range.
    #[inline]
    fn payload(&self) -> &'d [u8] {
        self.message.get(self.layout.payload.clone()).unwrap_or(&[])
    }

    /// The packet's IP header, at least [`Family::header_length`] bytes of `wanted`'s version.
    #[inline]
    pub fn ip_header(&self, wanted: Family) -> Result<&'d [u8], Undecodable> {
        let header = match self.layout.family {
            nfproto::IPV4 | nfproto::IPV6 => self.payload(),
            nfproto::NETDEV | nfproto::BRIDGE => self.behind_link_layer()?,
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

    /// On the netdev egress hook the payload begins with the link-layer header, everywhere else
    /// at the network header. VLAN tags that the kernel has not taken out of the packet stand
    /// between the two, unless whoever sent the frame had set the network header behind them:
    /// then they are part of the link-layer header, whose last field says what follows.
    #[cold]
    fn behind_link_layer(&self) -> Result<&'d [u8], Undecodable> {
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

/// The length of a whole IP packet as its header gives it, the header included, in bytes.
/// `None` where the header has none: a GSO or GRO packet above 64 KiB (BIG TCP) or an IPv6 jumbogram (RFC 2675).
/// `header` has at least the family's header length.
#[inline]
#[must_use]
pub fn wire_bytes(family: Family, header: &[u8]) -> Option<u64> {
    match family {
        Family::Ip4 => match u16::from_be_bytes([header[2], header[3]]) {
            0 => None,
            total => Some(u64::from(total)),
        },
        // A header with nothing behind it rightly has the payload length 0.
        Family::Ip6 => match u16::from_be_bytes([header[4], header[5]]) {
            0 if header[6] != NO_NEXT_HEADER => None,
            payload => Some(u64::from(payload) + 40),
        },
    }
}

#[cfg(test)]
mod tests;
