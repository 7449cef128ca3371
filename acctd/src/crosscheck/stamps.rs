//! Receive time stamps. With them, each packet has a time stamp before it reaches TC, and NFLOG reports the
//! same one. The kernel takes them as long as any socket requests them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::nflog::socket_option;

/// `linux/net_tstamp.h`.
const RX_SOFTWARE: libc::c_int = 1 << 3;
const SOFTWARE: libc::c_int = 1 << 4;

/// A socket for which the kernel stamps all packets that the machine receives, until it is closed.
#[derive(Debug)]
pub(crate) struct ReceiveStamps {
    _socket: OwnedFd,
}

impl ReceiveStamps {
    /// The socket never receives anything. It is of IPv4, because the kernel takes no stamps for a UNIX socket
    /// (`sock_needs_netstamp`).
    pub(crate) fn enable() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        socket_option::set(&socket, libc::SO_TIMESTAMPING, &(RX_SOFTWARE | SOFTWARE))?;
        Ok(Self { _socket: socket })
    }
}
