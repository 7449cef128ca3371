//! Receive time stamps: with them each packet has its stamp before it reaches TC, and NFLOG reports
//! the same one. The kernel takes them while any socket asks for them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::nflog::socket_option;

/// `linux/net_tstamp.h`.
const RX_SOFTWARE: libc::c_int = 1 << 3;
const SOFTWARE: libc::c_int = 1 << 4;

/// A socket for which the kernel stamps all packets that the machine receives, until it is closed.
#[derive(Debug)]
pub struct ReceiveStamps {
    _socket: OwnedFd,
}

impl ReceiveStamps {
    /// Asks for them. Nothing is ever received on the socket, which is of IPv4 because the kernel
    /// does not stamp packets for a local one (`sock_needs_netstamp`).
    pub fn ask_for() -> io::Result<Self> {
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
