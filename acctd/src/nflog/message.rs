//! Messages to and from netfilter over netlink (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`): how a
//! request is built, and how a datagram is taken apart.

use std::io;
use std::ops::Range;

/// `struct nlmsghdr`, in bytes.
pub const NETLINK_HEADER: usize = 16;
/// `struct nfgenmsg`, in bytes.
pub(super) const NFGENMSG: usize = 4;
/// `struct nlattr`, in bytes.
pub(super) const ATTRIBUTE_HEADER: usize = 4;
/// The upper two bits of an attribute's type are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
pub(super) const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// The reply to a request: an errno, or 0 for success.
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLM_F_REQUEST: u16 = 1;
pub(super) const NLM_F_ACK: u16 = 4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;

/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET`.
pub const MESSAGE_PACKET: u16 = 4 << 8;
/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG`.
pub(super) const MESSAGE_CONFIG: u16 = 4 << 8 | 1;

/// A request: `nlmsghdr`, `nfgenmsg` for all families, attributes. Its reply has the same `number`.
/// `resource` is the NFLOG group, where the request is about one.
pub(super) fn request(
    kind: u16,
    flags: u16,
    number: u32,
    resource: u16,
    attributes: &[(u16, &[u8])],
) -> Vec<u8> {
    let mut request = vec![0; NETLINK_HEADER + NFGENMSG];
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request[8..12].copy_from_slice(&number.to_ne_bytes());
    request[NETLINK_HEADER + 2..].copy_from_slice(&resource.to_be_bytes());
    for (attribute, value) in attributes {
        // A few bytes, so the length fits.
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(0);
        request.extend(length.to_ne_bytes());
        request.extend(attribute.to_ne_bytes());
        request.extend(*value);
        request.resize(align(request.len()), 0);
    }
    let length = u32::try_from(request.len()).unwrap_or(0);
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request
}

/// One message of a datagram.
#[derive(Clone, Copy)]
pub(super) struct Message<'d> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    /// In a reply, the number of the request.
    number: u32,
    /// The whole message, header included.
    pub(super) bytes: &'d [u8],
}

impl<'d> Message<'d> {
    /// Splits the first message off a datagram. `None` if the header's length is impossible: then nothing
    /// after it can be found.
    pub(super) fn split_off(datagram: &'d [u8]) -> Option<(Self, &'d [u8])> {
        let header: &[u8; NETLINK_HEADER] = datagram.first_chunk()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < NETLINK_HEADER {
            return None;
        }
        let message = Self {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            number: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            bytes: datagram.get(..length)?,
        };
        Some((message, datagram.get(align(length)..).unwrap_or(&[])))
    }

    /// What follows `nlmsghdr`.
    pub(super) fn body(&self) -> &'d [u8] {
        self.bytes.get(NETLINK_HEADER..).unwrap_or(&[])
    }

    /// In a reply ([`NLMSG_ERROR`]): 0 or a negative errno.
    pub(super) fn errno(&self) -> Option<i32> {
        Some(i32::from_ne_bytes(*self.body().first_chunk()?))
    }
}

/// The result that a reply's errno stands for.
pub(super) fn result_of(errno: i32) -> io::Result<()> {
    match errno {
        0 => Ok(()),
        _ => Err(io::Error::from_raw_os_error(errno.wrapping_neg())),
    }
}

/// If a datagram is not packets but the reply to a request: the request's number and its result.
pub(crate) fn reply(datagram: &[u8]) -> Option<(u32, io::Result<()>)> {
    let (message, _) = Message::split_off(datagram)?;
    if message.kind != NLMSG_ERROR {
        return None;
    }
    Some((message.number, result_of(message.errno()?)))
}

/// The attributes of `bytes` from `at` on: the type of each, and where its value is. After bytes that are
/// no attribute (`None`) nothing follows.
pub(super) fn attributes(
    bytes: &[u8],
    mut at: usize,
) -> impl Iterator<Item = Option<(u16, Range<usize>)>> {
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let found = rest.first_chunk().and_then(|header| {
            let [l, h, ..]: [u8; ATTRIBUTE_HEADER] = *header;
            let length = usize::from(u16::from_ne_bytes([l, h]));
            let kind = u16::from_ne_bytes([header[2], header[3]]) & ATTRIBUTE_TYPE_MASK;
            let value = at + ATTRIBUTE_HEADER..at + length;
            bytes.get(value.clone()).map(|_| (kind, value))
        });
        at = found
            .as_ref()
            .map_or(bytes.len(), |(_, value)| align(value.end));
        Some(found)
    })
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`.
#[inline]
pub(super) fn align(length: usize) -> usize {
    (length + 3) & !3
}
