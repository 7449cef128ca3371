//! Reports interfaces that left this network namespace. Such an interface may be back before the next check,
//! with the same name and the same index.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::tc_netlink;

/// `linux/rtnetlink.h`.
const RTNLGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;
/// `struct ifinfomsg`: the offset of its index.
const INDEX_AT: usize = 4;

/// Room for some thousand messages between two checks.
const BUFFER: libc::c_int = 4 << 20;

/// A socket that receives the kernel's link events.
#[derive(Debug)]
pub(crate) struct LinkEvents(Socket);

impl LinkEvents {
    pub(crate) fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // Without CAP_NET_ADMIN the buffer is smaller.
        let _less = socket.set_rx_buf_sz(BUFFER);
        socket.add_membership(RTNLGRP_LINK)?;
        Ok(Self(socket))
    }

    /// The indices of the interfaces that left since the last call. If the buffer overflowed, some may be
    /// missing.
    pub(crate) fn removed(&mut self) -> Vec<u32> {
        let mut removed = Vec::new();
        loop {
            match self.0.recv_from_full() {
                Ok((datagram, _)) => removed.extend(removed_indices(&datagram)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return removed,
            }
        }
    }
}

fn removed_indices(datagram: &[u8]) -> Vec<u32> {
    let mut removed = Vec::new();
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(&rest) {
        let payload = message.payload();
        // If a port leaves its bridge, the message is the same with the bridge's family.
        let is_of_any_family = payload.first() == Some(&0);
        if message.message_type() == RTM_DELLINK && is_of_any_family {
            removed.extend(payload.get(INDEX_AT..).and_then(tc_netlink::number));
        }
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32) -> Vec<u8> {
        let mut bytes = 32_u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(16, 0);
        bytes.push(family);
        bytes.resize(20, 0);
        bytes.extend(index.to_ne_bytes());
        bytes.resize(32, 0);
        bytes
    }

    #[test]
    fn only_interfaces_that_leave_are_reported() {
        const RTM_NEWLINK: u16 = 16;
        let all = [
            message(RTM_DELLINK, 0, 7),
            message(RTM_NEWLINK, 0, 8),
            // A port that leaves its bridge.
            message(RTM_DELLINK, 7, 9),
            message(RTM_DELLINK, 0, 10),
        ]
        .concat();
        assert_eq!(removed_indices(&all), [7, 10]);
        for length in 0..all.len() {
            // No input causes a panic.
            let _lenient = removed_indices(&all[..length]);
        }
    }
}
