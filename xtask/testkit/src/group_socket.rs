//! What somebody can do to the NFLOG group of a running process behind its back: copy its socket, and
//! send requests of one's own over it.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{SendFlags, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Copies of all sockets that a process has to netfilter, but for those that listen to notifications.
pub fn copies_of_sockets(pid: u32) -> Result<Vec<OwnedFd>> {
    let mut copies = Vec::new();
    let pid_number = i32::try_from(pid)?;
    let pid = Pid::from_raw(pid_number).context("a pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{pid_number}/fd"))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        // It may be closed by now.
        let Ok(copy) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let is_netfilter = sockopt::socket_protocol(&copy).is_ok_and(|it| it == Some(NETFILTER));
        let listens = rustix::net::getsockname(&copy)
            .and_then(SocketAddrNetlink::try_from)
            .is_ok_and(|address| address.groups() != 0);
        if is_netfilter && !listens {
            copies.push(copy);
        }
    }
    Ok(copies)
}

/// Unbinds a group, which the kernel does over its own socket alone.
pub fn unbind(socket: &OwnedFd, group: u16) -> Result<()> {
    const NFULA_CFG_CMD: u16 = 1;
    const NFULNL_CFG_CMD_UNBIND: u8 = 2;
    request(
        socket,
        group,
        0,
        (5, NFULA_CFG_CMD),
        [NFULNL_CFG_CMD_UNBIND, 0, 0, 0],
    )
}

/// Binds a group to a socket, as acctd's are: its packets are numbered, from 0 on.
pub fn bind(socket: &OwnedFd, group: u16) -> Result<()> {
    const NFULA_CFG_CMD: u16 = 1;
    const NFULNL_CFG_CMD_BIND: u8 = 1;
    const NFULA_CFG_FLAGS: u16 = 6;
    const NFULNL_CFG_F_SEQ: [u8; 4] = [0, 1, 0, 0];
    let bind = [NFULNL_CFG_CMD_BIND, 0, 0, 0];
    request(socket, group, 0, (5, NFULA_CFG_CMD), bind)?;
    request(socket, group, 0, (6, NFULA_CFG_FLAGS), NFULNL_CFG_F_SEQ)
}

/// Sets a group's threshold and asks for an answer, which waits in the socket then.
pub fn set_threshold(socket: &OwnedFd, group: u16, threshold: u32) -> Result<()> {
    const NLM_F_ACK: u16 = 4;
    const NFULA_CFG_QTHRESH: u16 = 5;
    request(
        socket,
        group,
        NLM_F_ACK,
        (8, NFULA_CFG_QTHRESH),
        threshold.to_be_bytes(),
    )
}

/// `nlmsghdr`, `nfgenmsg` and one attribute with its length (`linux/netfilter/nfnetlink_log.h`).
fn request(
    socket: &OwnedFd,
    group: u16,
    flags: u16,
    (length, attribute): (u16, u16),
    value: [u8; 4],
) -> Result<()> {
    const LENGTH: u32 = 28;
    /// `NFNL_SUBSYS_ULOG << 8 | NFULNL_MSG_CONFIG`.
    const CONFIG: u16 = 0x0401;
    const NLM_F_REQUEST: u16 = 1;
    let mut request = Vec::new();
    request.extend(LENGTH.to_ne_bytes());
    request.extend(CONFIG.to_ne_bytes());
    request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    request.extend([0; 10]);
    request.extend(group.to_be_bytes());
    request.extend(length.to_ne_bytes());
    request.extend(attribute.to_ne_bytes());
    request.extend(value);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    Ok(())
}
