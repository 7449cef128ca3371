//! Receive time stamps. With them, each packet has a time stamp before it reaches TC, and NFLOG reports the
//! same one. The kernel takes them as long as any socket requests them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use log::warn;

use crate::nflog::socket_option;
use crate::process::kernel::kernel_version;
use crate::restart::handover::RECEIVE_STAMPS;
use crate::restart::systemd;

/// `linux/net_tstamp.h`.
const RX_SOFTWARE: libc::c_int = 1 << 3;
const SOFTWARE: libc::c_int = 1 << 4;

/// It gives each packet that it logs before the output hook a time stamp (`nfnetlink_log.c`). Older ones leave it out
/// if the packet has none, and then the packet counts for the interval in which acctd reads it.
const STAMPS_WHAT_IT_LOGS: (u32, u32) = (6, 6);

/// A socket for which the kernel stamps all packets that the machine receives, until it is closed.
#[derive(Debug)]
pub(crate) struct ReceiveStamps {
    socket: OwnedFd,
}

impl ReceiveStamps {
    /// For NFLOG alone: `None` where the kernel stamps what it logs, or where there is no such socket.
    pub(crate) fn for_nflog() -> Option<Self> {
        if kernel_version() >= STAMPS_WHAT_IT_LOGS {
            return None;
        }
        let enabled = Self::enable().inspect_err(|error| {
            warn!("cannot enable receive time stamps: {error}; packets count for the interval in which acctd reads them");
        });
        enabled.ok()
    }

    /// Has the service manager store a copy, so that what is logged while no acctd runs has a time stamp, too.
    pub(crate) fn keep(&self) {
        // That of an earlier process.
        systemd::remove_stored(RECEIVE_STAMPS);
        systemd::store(RECEIVE_STAMPS, self.socket.as_fd());
    }

    /// The socket never receives anything. It is of IPv4, because the kernel takes no stamps for a UNIX socket
    /// (`sock_needs_netstamp`).
    pub(crate) fn enable() -> io::Result<Self> {
        let socket = socket_option::udp_socket()?;
        socket_option::set(&socket, libc::SO_TIMESTAMPING, &(RX_SOFTWARE | SOFTWARE))?;
        Ok(Self { socket })
    }
}
