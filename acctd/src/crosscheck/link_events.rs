//! Tells of interfaces that have left this network namespace, and may be back before anybody looks: under the
//! same name, and with the same index.

use std::io;

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;

use super::tc_netlink;

/// `linux/rtnetlink.h`.
const RTNLGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;
/// Where `struct ifinfomsg` has the index, and the family, which a bridge's own messages set.
const INDEX_AT: usize = 4;

/// For some thousand messages between two looks.
const BUFFER: libc::c_int = 4 << 20;

/// A socket that the kernel tells of them.
#[derive(Debug)]
pub struct LinkEvents(Socket);

impl LinkEvents {
    /// From now on.
    pub fn listen() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.set_non_blocking(true)?;
        // As much of it as we may have.
        let _less = socket.set_rx_buf_sz(BUFFER);
        socket.add_membership(RTNLGRP_LINK)?;
        Ok(Self(socket))
    }

    /// The indices of those that have left since the last time. Where there were more messages than there
    /// was room for, what is left of them.
    pub fn gone(&mut self) -> Vec<u32> {
        let mut gone = Vec::new();
        loop {
            match self.0.recv_from_full() {
                Ok((datagram, _)) => gone.extend(departures(&datagram)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(_) => return gone,
            }
        }
    }
}

fn departures(datagram: &[u8]) -> Vec<u32> {
    let mut gone = Vec::new();
    let mut rest = datagram;
    while let Ok(message) = NetlinkBuffer::new_checked(&rest) {
        let payload = message.payload();
        // A bridge's port leaves the bridge by the same message, with another family.
        let is_of_any_family = payload.first() == Some(&0);
        if message.message_type() == RTM_DELLINK && is_of_any_family {
            gone.extend(payload.get(INDEX_AT..).and_then(tc_netlink::number));
        }
        let length = (message.length() as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    gone
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
    fn only_devices_that_leave_are_gone() {
        const RTM_NEWLINK: u16 = 16;
        let all = [
            message(RTM_DELLINK, 0, 7),
            message(RTM_NEWLINK, 0, 8),
            // A port that leaves its bridge.
            message(RTM_DELLINK, 7, 9),
            message(RTM_DELLINK, 0, 10),
        ]
        .concat();
        assert_eq!(departures(&all), [7, 10]);
        for length in 0..all.len() {
            // Whatever it is, no panic.
            let _lenient = departures(&all[..length]);
        }
    }
}
