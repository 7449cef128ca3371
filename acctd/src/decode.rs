//! A netlink datagram of NFLOG → packets. Pure: no allocation, no clock, no I/O, and no panic
//! whatever the bytes are.
//!
//! Shapes: `linux/netlink.h` (headers, attributes in host byte order, aligned to 4 bytes),
//! `linux/netfilter/nfnetlink_log.h` (attributes, their values in network order), and
//! `net/netfilter/nfnetlink_log.c` for what the kernel puts into them.

use crate::interval::UnixNanos;
use crate::prefix::Family;

/// `struct nlmsghdr`.
pub const NETLINK_HEADER: usize = 16;
/// `struct nfgenmsg`.
pub const NFGENMSG: usize = 4;
/// `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;

/// `NLMSG_ERROR`: a reply to a request of ours, an errno in it (0: done).
const NLMSG_ERROR: u16 = 2;
/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET`.
pub const MESSAGE_PACKET: u16 = 4 << 8;
/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG`.
pub const MESSAGE_CONFIG: u16 = 4 << 8 | 1;

/// `enum nfulnl_attr_type`, those that accounting reads.
mod attribute {
    pub(super) const PACKET_HDR: u16 = 1;
    pub(super) const TIMESTAMP: u16 = 3;
    pub(super) const PAYLOAD: u16 = 9;
    pub(super) const SEQ: u16 = 12;
    pub(super) const L2HDR: u16 = 21;
}
/// The upper two bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

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
pub enum Record<'a> {
    /// A logged packet.
    Packet(Packet<'a>),
    /// The kernel's answer to a request: 0, or a negative errno.
    Reply(i32),
    /// Bytes that are no netlink message, or a packet message whose attributes do not add up.
    Malformed,
}

/// A logged packet as the kernel describes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packet<'a> {
    /// `NFULA_SEQ`: the packet's number within its group.
    pub sequence: Option<u32>,
    /// `NFULA_TIMESTAMP`: when the kernel received it; hooks prerouting, input and forward only.
    pub stamp: Option<UnixNanos>,
    /// `NFPROTO_*` of the table that logged it.
    family: u8,
    /// `nfulnl_msg_packet_hdr.hook`; its meaning depends on the family.
    hook: u8,
    /// `nfulnl_msg_packet_hdr.hw_protocol`: an `EtherType`.
    protocol: u16,
    /// `NFULA_L2HDR`.
    link_header: &'a [u8],
    /// `NFULA_PAYLOAD`: the packet, cut to the rule's and the group's copy range.
    payload: &'a [u8],
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

/// The messages of one datagram, in order.
#[inline]
pub fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    Records { rest: datagram }
}

struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            if self.rest.is_empty() {
                return None;
            }
            let Some((kind, body)) = self.next_message() else {
                // Nothing behind it can be found without its length.
                self.rest = &[];
                return Some(Record::Malformed);
            };
            match kind {
                MESSAGE_PACKET => {
                    return Some(packet(body).map_or(Record::Malformed, Record::Packet));
                }
                NLMSG_ERROR => {
                    return Some(body.first_chunk().map_or(Record::Malformed, |errno| {
                        Record::Reply(i32::from_ne_bytes(*errno))
                    }));
                }
                // NLMSG_DONE ends each batch; nothing else comes from this subsystem.
                _ => {}
            }
        }
    }
}

impl<'a> Records<'a> {
    #[inline]
    fn next_message(&mut self) -> Option<(u16, &'a [u8])> {
        let header: &[u8; NETLINK_HEADER] = self.rest.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = self.rest.get(NETLINK_HEADER..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or(&[]);
        Some((kind, body))
    }
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`.
#[inline]
fn align(length: usize) -> usize {
    (length + 3) & !3
}

#[inline]
fn packet(body: &[u8]) -> Option<Packet<'_>> {
    let mut packet = Packet {
        family: *body.first()?,
        ..Packet::default()
    };
    let mut rest = body.get(NFGENMSG..)?;
    while !rest.is_empty() {
        let header: &[u8; ATTRIBUTE_HEADER] = rest.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE_MASK;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(align(length)..).unwrap_or(&[]);
        match kind {
            attribute::PAYLOAD => packet.payload = value,
            attribute::SEQ => packet.sequence = Some(u32::from_be_bytes(*value.first_chunk()?)),
            attribute::TIMESTAMP => {
                let seconds = u64::from_be_bytes(*value.first_chunk()?);
                let micros = u64::from_be_bytes(*value.get(8..)?.first_chunk()?);
                packet.stamp = UnixNanos::from_stamp(seconds, micros);
            }
            attribute::PACKET_HDR => {
                let [high, low, hook, ..] = *value.first_chunk::<4>()?;
                packet.protocol = u16::from_be_bytes([high, low]);
                packet.hook = hook;
            }
            attribute::L2HDR => packet.link_header = value,
            _ => {}
        }
    }
    Some(packet)
}

impl<'a> Packet<'a> {
    /// The packet's IP header, at least [`Family::header_length`] bytes of `wanted`'s version.
    #[inline]
    pub fn ip_header(&self, wanted: Family) -> Result<&'a [u8], Undecodable> {
        let header = match self.family {
            nfproto::IPV4 | nfproto::IPV6 => self.payload,
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
    fn behind_link_layer(&self) -> Result<&'a [u8], Undecodable> {
        let is_vlan = |protocol| matches!(protocol, ethertype::VLAN | ethertype::VLAN_OUTER);
        let mut protocol = self.protocol;
        let mut rest = self.payload;
        if self.family == nfproto::NETDEV && self.hook == NF_NETDEV_EGRESS {
            let link = self.link_header;
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
