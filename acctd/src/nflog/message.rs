//! The frame of a message to and from `nfnetlink_log` (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`).

/// `struct nlmsghdr`.
pub const NETLINK_HEADER: usize = 16;
/// `struct nfgenmsg`.
pub const NFGENMSG: usize = 4;
/// `NLMSG_ERROR`: a reply to a request of ours, an errno in it (0: done).
pub(super) const NLMSG_ERROR: u16 = 2;
/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_PACKET`.
pub const MESSAGE_PACKET: u16 = 4 << 8;
/// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG`.
pub const MESSAGE_CONFIG: u16 = 4 << 8 | 1;

/// If a datagram is no packets but the kernel's answer to a request: the request's number, and 0 or a
/// negative errno.
#[inline]
#[must_use]
pub fn answer(datagram: &[u8]) -> Option<(u32, i32)> {
    let (header, payload) = datagram.split_first_chunk::<NETLINK_HEADER>()?;
    if u16::from_ne_bytes([header[4], header[5]]) != NLMSG_ERROR {
        return None;
    }
    let number = u32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
    Some((number, i32::from_ne_bytes(*payload.first_chunk()?)))
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`.
#[inline]
pub(super) fn align(length: usize) -> usize {
    (length + 3) & !3
}
