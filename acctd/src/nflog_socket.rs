//! The edge to `libnetfilter_log` and the kernel: opens a group through the nflog crate, receives
//! its datagrams, and lets go of it without losing what the kernel still holds.
//!
//! What nflog 0.9.0 and the C libraries below it do that this file works around:
//! - `Queue::open` and `Queue::bind_group` hide failure in a null pointer, on which the next call
//!   panics. So a socket of the same kind is tried first, and errno is read behind the bind.
//! - A packet that arrives between a request and the kernel's answer confuses the library: it may
//!   report failure, without an errno, for a bind that has succeeded. So a filter on the socket keeps
//!   packets away until all is configured. They were logged before acctd counts.
//! - Its setters drop C's result. The kernel applies a setting while it is being sent, so only a
//!   wrong value could fail; the result is read back from `/proc/net/netfilter/nfnetlink_log`.
//! - `nflog_set_nlbufsiz` sets the socket's receive buffer as well, to ten times its value. So the
//!   buffer is set behind it.
//! - `run_loop` panics on any error, ENOBUFS included, and never ends. It is not used.
//! - `Queue` holds raw C pointers and so belongs to its thread. Only the socket is needed from
//!   here on: it is duplicated, and the queue closed.
//!
//! `nflog_bind_pf` is not called: it redirects the kernel's *own* log lines (conntrack's invalid
//! packets) to group 0 and has no part in NFLOG rules, which find their logger by type
//! (`nf_log_packet` in `net/netfilter/nf_log.c`).

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use errno::{Errno, errno, set_errno};
use nflog::{CfgFlags, CopyMode, Queue};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::decode::{MESSAGE_CONFIG, NETLINK_HEADER, NFGENMSG};
use crate::prefix::Family;

/// The kernel builds no larger datagram: it refuses a larger `nlbufsiz` (and says it took it).
const KERNEL_BUFFER: u32 = 128 * 1024;
/// The longest datagram. The allocation of a batch is rounded up to whole page orders, and some
/// kernels fill what they got instead of what they asked for.
pub const MAX_DATAGRAM: usize = 2 * KERNEL_BUFFER as usize;
/// Packets in a batch, unless the rule's own threshold is lower or the buffer fills before.
const THRESHOLD: u32 = 16_383;
/// What may wait for the reader, in bytes; the kernel doubles it for its own overhead.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// What the kernel should have granted then, in bytes of its memory.
pub const WANTED_RECEIVE_BUFFER: usize = 2 * RECEIVE_BUFFER;
/// On the netdev egress hook a packet begins with its Ethernet header and up to two VLAN tags, and
/// the group's copy range would cut the IP header off behind them. A rule's own snaplen saves
/// these bytes on all other hooks.
const LINK_LAYER_ROOM: usize = 14 + 2 * 4;

/// Its netlink port id.
const KERNEL: u32 = 0;

/// An NFLOG group: 1 to 65535. 0 is the kernel's own, and "off" on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NflogGroup(pub u16);

impl fmt::Display for NflogGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A socket that the kernel sends the packets of one group to.
#[derive(Debug)]
pub struct NflogSocket {
    fd: OwnedFd,
    group: NflogGroup,
    receive_buffer: usize,
}

/// What a receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A datagram of this many bytes, at the front of the buffer.
    Datagram(usize),
    /// Nothing is waiting.
    Nothing,
    /// ENOBUFS: the socket was full and the kernel has dropped datagrams.
    Overrun,
}

impl NflogSocket {
    /// Binds and configures `group`, to be given the [`copy_range`] of this family's packets.
    pub fn open(group: NflogGroup, family: Family, flush_timeout: Duration) -> io::Result<Self> {
        try_netlink()?;
        let mut queue = Queue::new();
        queue.open();
        let opened = Self::configure(&mut queue, group, family, flush_timeout);
        // Closes the library's descriptor; ours goes on.
        queue.close();
        opened
    }

    /// A socket that another process has opened and configured for `group`. The caller makes sure
    /// that it is bound to it.
    pub fn take_over(fd: OwnedFd, group: NflogGroup) -> io::Result<Self> {
        let is_netfilter = sockopt::socket_domain(&fd)? == AddressFamily::NETLINK
            && sockopt::socket_protocol(&fd)? == Some(NETFILTER);
        if !is_netfilter {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        rustix::net::connect(&fd, &SocketAddrNetlink::new(KERNEL, 0))?;
        let receive_buffer = set_receive_buffer(&fd)?;
        Ok(Self {
            fd,
            group,
            receive_buffer,
        })
    }

    fn configure(
        queue: &mut Queue,
        group: NflogGroup,
        family: Family,
        flush_timeout: Duration,
    ) -> io::Result<Self> {
        let fd = duplicate(queue)?;
        packet_filter::attach(&fd)?;
        set_errno(Errno(0));
        queue.bind_group(group.0);
        // A call that was interrupted has been made again.
        if !matches!(errno(), Errno(0 | libc::EINTR)) {
            return Err(errno().into());
        }
        queue.set_flags(CfgFlags::CfgFlagsSeq);
        queue.set_nlbufsiz(KERNEL_BUFFER);
        queue.set_qthresh(THRESHOLD);
        queue.set_timeout(centiseconds(flush_timeout));
        queue.set_mode(CopyMode::CopyPacket, copy_range(family));
        let receive_buffer = set_receive_buffer(&fd)?;
        // From here on nobody but the kernel can send to it: any other process with CAP_NET_ADMIN could
        // make up packets.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(KERNEL, 0))?;
        packet_filter::detach(&fd)?;
        Ok(Self {
            fd,
            group,
            receive_buffer,
        })
    }

    /// Lets the runtime that this is called in say when the socket is readable, until what this
    /// returns is dropped.
    pub fn watch(socket: &Arc<Self>) -> io::Result<AsyncFd<Arc<Self>>> {
        let socket = Arc::clone(socket);
        // SAFETY: `as_raw_fd` gives the same descriptor each time, which the `OwnedFd` in the socket
        // keeps open for as long as the `AsyncFd` holds its `Arc`, and that is until it has
        // deregistered.
        Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
    }

    /// The group it is bound to.
    #[must_use]
    pub fn group(&self) -> NflogGroup {
        self.group
    }

    /// Bytes of kernel memory that may wait for the reader, as the kernel granted them.
    #[must_use]
    pub fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// The kernel's name for this socket, as `/proc` shows it beside the group.
    pub fn port_id(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        let address = SocketAddrNetlink::try_from(address)?;
        Ok(address.pid())
    }

    /// Receives what is there, without waiting.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            match rustix::net::recv(&self.fd, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(Received::Datagram(length)),
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
                Err(rustix::io::Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Unbinds the group: the kernel flushes its batch into this socket before it returns, and
    /// logs nothing more here. Asks for no answer, so that nothing is read here but packets.
    pub fn unbind(&self) -> io::Result<()> {
        rustix::net::send(&self.fd, &unbind_request(self.group), SendFlags::empty())?;
        Ok(())
    }
}

impl AsFd for NflogSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for NflogSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A flush timeout in the unit of the kernel's interface.
#[must_use]
pub fn centiseconds(flush_timeout: Duration) -> u32 {
    u32::try_from(flush_timeout.as_millis() / 10).unwrap_or(u32::MAX)
}

/// Bytes that the kernel is to copy of each packet, unless its rule says less.
#[must_use]
pub fn copy_range(family: Family) -> u32 {
    // At most 62.
    u32::try_from(family.header_length() + LINK_LAYER_ROOM).unwrap_or(0)
}

/// The kernel has no netfilter netlink, or this process no descriptor left: `Queue::open` could
/// only panic at that.
fn try_netlink() -> io::Result<()> {
    rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?;
    Ok(())
}

fn duplicate(queue: &Queue) -> io::Result<OwnedFd> {
    // SAFETY: the queue is open for the length of this borrow, so the descriptor is valid;
    // `Queue::fd` has asserted that it is open.
    let library_fd = unsafe { BorrowedFd::borrow_raw(queue.fd()) };
    // Close-on-exec.
    library_fd.try_clone_to_owned()
}

/// Asks for the buffer past `net.core.rmem_max`, which `CAP_NET_ADMIN` of the first user
/// namespace may; without it, for as much as that limit gives. Returns what was granted.
fn set_receive_buffer(fd: &OwnedFd) -> io::Result<usize> {
    if sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER)?;
    }
    Ok(sockopt::socket_recv_buffer_size(fd)?)
}

/// A filter that lets replies through and no packet. The socket drops what it filters in silence.
mod packet_filter {
    use std::io;
    use std::os::fd::OwnedFd;

    use crate::decode::MESSAGE_PACKET;
    use crate::socket_option::{self, Filter};

    /// `linux/filter.h`: load a half-word, jump if equal, return.
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// `nlmsghdr.nlmsg_type`, in bytes from the front.
    const TYPE_AT: u32 = 4;

    pub(super) fn attach(socket: &OwnedFd) -> io::Result<()> {
        let instruction = |code, k| libc::sock_filter {
            code,
            jt: 0,
            jf: u8::from(code == JUMP_IF_EQUAL),
            k,
        };
        // A load reads network order, the kernel has written the type in host order.
        let packet_type = u16::from_be_bytes(MESSAGE_PACKET.to_ne_bytes());
        let mut program = [
            instruction(LOAD_HALF, TYPE_AT),
            instruction(JUMP_IF_EQUAL, u32::from(packet_type)),
            instruction(RETURN, 0),
            instruction(RETURN, u32::MAX),
        ];
        let filter = Filter::new(&mut program)?;
        socket_option::set(socket, libc::SO_ATTACH_FILTER, &filter)
    }

    pub(super) fn detach(socket: &OwnedFd) -> io::Result<()> {
        socket_option::set(socket, libc::SO_DETACH_FILTER, &0_i32)
    }
}

/// `nlmsghdr`, `nfgenmsg`, and the attribute `NFULA_CFG_CMD` with `NFULNL_CFG_CMD_UNBIND`.
fn unbind_request(group: NflogGroup) -> [u8; 28] {
    const NLM_F_REQUEST: u16 = 1;
    const NFULA_CFG_CMD: u16 = 1;
    const NFULNL_CFG_CMD_UNBIND: u8 = 2;
    const COMMAND_LENGTH: u16 = 5;
    let mut request = [0; 28];
    let (header, rest) = request.split_at_mut(NETLINK_HEADER);
    header[0..4].copy_from_slice(&28_u32.to_ne_bytes());
    header[4..6].copy_from_slice(&MESSAGE_CONFIG.to_ne_bytes());
    header[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    let (nfgenmsg, attribute) = rest.split_at_mut(NFGENMSG);
    nfgenmsg[2..4].copy_from_slice(&group.0.to_be_bytes());
    attribute[0..2].copy_from_slice(&COMMAND_LENGTH.to_ne_bytes());
    attribute[2..4].copy_from_slice(&NFULA_CFG_CMD.to_ne_bytes());
    attribute[4] = NFULNL_CFG_CMD_UNBIND;
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unbind_request_is_what_the_kernel_reads() {
        let request = unbind_request(NflogGroup(0x0105));
        let mut expected = Vec::new();
        expected.extend(28_u32.to_ne_bytes());
        expected.extend(0x0401_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend([0; 8]);
        expected.extend([0, 0, 0x01, 0x05]);
        expected.extend(5_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend([2, 0, 0, 0]);
        assert_eq!(request.as_slice(), expected);
    }
}
