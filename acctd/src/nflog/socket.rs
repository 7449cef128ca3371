//! The interface to `libnetfilter_log` and the kernel: opens a group through the nflog crate, receives its
//! datagrams, and unbinds it without losing what the kernel still holds.
//!
//! This file works around the following in nflog 0.9.0 and the C libraries below it:
//! - If `Queue::open` or `Queue::bind_group` fails, it stores a null pointer, and the next call panics. So
//!   acctd first opens a socket of the same kind, and reads errno after the bind.
//! - If a packet arrives between a request and the kernel's reply, the library may report failure, without
//!   an errno, for a bind that has succeeded. So a filter on the socket holds packets back until the group
//!   is configured. These packets were logged before acctd counts.
//! - Its setters drop C's result. The kernel applies a setting during the send, so only a wrong value could
//!   fail. acctd reads the result back from `/proc/net/netfilter/nfnetlink_log`.
//! - `nflog_set_nlbufsiz` also sets the socket's receive buffer, to ten times its value. So acctd sets the
//!   buffer afterwards.
//! - `run_loop` panics on any error, even ENOBUFS, and never ends. It is not used.
//! - `Queue` holds raw C pointers, so it belongs to its thread. Afterwards only the socket is needed: acctd
//!   duplicates it and closes the queue.
//!
//! `nflog_bind_pf` is not called: it redirects log lines of the kernel itself (conntrack's invalid packets)
//! to group 0. NFLOG rules do not need it: they find their logger by type (`nf_log_packet` in
//! `net/netfilter/nf_log.c`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use errno::{Errno, errno, set_errno};
use nflog::{CfgFlags, CopyMode, Queue};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::model::group::NflogGroup;
use crate::model::interval::UnixNanos;
use crate::model::prefix::Family;
use crate::nflog::decode::{Record, Records};
use crate::nflog::message::{self, MESSAGE_CONFIG, NLM_F_ACK, NLM_F_REQUEST, result_of};
use crate::nflog::table::COPY_PACKET;

/// The kernel builds no larger datagram: it ignores a larger `nlbufsiz` without an error.
const KERNEL_BUFFER: u32 = 128 * 1024;
/// The longest datagram, in bytes. The kernel rounds the allocation of a batch up to whole page orders, and
/// some kernels fill all of it.
pub const MAX_DATAGRAM: usize = 2 * KERNEL_BUFFER as usize;
/// Packets in a batch, unless the rule's own threshold is lower or the buffer fills before.
const THRESHOLD: u32 = 16_383;
/// The receive buffer that acctd requests, in bytes; the kernel doubles it for its overhead.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
/// The receive buffer that the kernel then grants, in bytes of its memory.
pub(crate) const WANTED_RECEIVE_BUFFER: usize = 2 * RECEIVE_BUFFER;
/// On the netdev egress hook a packet begins with its Ethernet header and up to two VLAN tags, and a shorter
/// copy range would cut the IP header off. On all other hooks the snaplen of a rule saves these bytes.
const LINK_LAYER_ROOM: usize = 14 + 2 * 4;

/// The kernel's netlink port id.
const KERNEL: u32 = 0;

/// A socket to which the kernel sends the packets of one group.
#[derive(Debug)]
pub struct NflogSocket {
    fd: OwnedFd,
    group: NflogGroup,
    receive_buffer: usize,
}

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// A datagram of this many bytes is at the front of the buffer.
    Datagram(usize),
    /// The socket is empty.
    Nothing,
    /// ENOBUFS: the socket was full, and the kernel has dropped datagrams.
    Overrun,
}

/// What waited in a socket that was taken over.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// When the first packet was logged; `None` if no packet waits, or it has no time stamp.
    pub since: Option<UnixNanos>,
    /// The kernel has reported that the socket was full. It reports this once.
    pub overran: bool,
}

impl NflogSocket {
    /// Binds and configures `group`, which receives the first bytes of each packet, as many as the headers
    /// of `family` need.
    pub fn open(group: NflogGroup, family: Family, flush_timeout: Duration) -> io::Result<Self> {
        // If the kernel has no netfilter netlink, or this process no descriptor left, `Queue::open` could only
        // panic.
        netfilter_socket()?;
        let mut queue = Queue::new();
        queue.open();
        let opened = Self::configure(&mut queue, group, family, flush_timeout);
        // Closes the library's descriptor, not the duplicate.
        queue.close();
        opened
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
        // The library repeats a call that was interrupted.
        if !matches!(errno(), Errno(0 | libc::EINTR)) {
            return Err(errno().into());
        }
        queue.set_flags(CfgFlags::CfgFlagsSeq);
        queue.set_nlbufsiz(KERNEL_BUFFER);
        queue.set_qthresh(THRESHOLD);
        queue.set_timeout(centiseconds(flush_timeout));
        queue.set_mode(CopyMode::CopyPacket, copy_range(family));
        let receive_buffer = set_receive_buffer(&fd)?;
        // From now on only the kernel can send to it. Otherwise any process with CAP_NET_ADMIN could forge
        // packets.
        rustix::net::connect(&fd, &SocketAddrNetlink::new(KERNEL, 0))?;
        packet_filter::detach(&fd)?;
        Ok(Self {
            fd,
            group,
            receive_buffer,
        })
    }

    /// Takes over a socket that an earlier process bound to `group`, and configures it as
    /// [`NflogSocket::open`] does. Whoever kept the socket may be wrong, so a socket that is not verifiably
    /// bound to the group is rejected.
    pub fn take_over(
        fd: OwnedFd,
        group: NflogGroup,
        family: Family,
        flush_timeout: Duration,
    ) -> io::Result<(Self, Waiting)> {
        let is_netfilter = sockopt::socket_domain(&fd).is_ok_and(|is| is == AddressFamily::NETLINK)
            && sockopt::socket_protocol(&fd).is_ok_and(|is| is == Some(NETFILTER));
        if !is_netfilter {
            return Err(io::Error::other("it is not a netfilter socket"));
        }
        rustix::net::connect(&fd, &SocketAddrNetlink::new(KERNEL, 0))?;
        rustix::net::send(
            &fd,
            &settings_request(group, family, flush_timeout),
            SendFlags::empty(),
        )?;
        let receive_buffer = set_receive_buffer(&fd)?;
        let socket = Self {
            fd,
            group,
            receive_buffer,
        };
        let waiting = socket.waiting()?;
        Ok((socket, waiting))
    }

    /// Looks at what waits, and leaves it there. The kernel replies at once, and to the settings request only
    /// if the group is not bound to the socket. So unless an error is first in the socket, the group is bound,
    /// or was until the last packet in the socket.
    fn waiting(&self) -> io::Result<Waiting> {
        /// Room for the first message, with all that the kernel may add to a packet's header.
        const FIRST_MESSAGE: usize = 8 * 1024;
        let mut buffer = vec![0; FIRST_MESSAGE];
        let is_yes = |(_, result): (u32, io::Result<()>)| result.is_ok();
        let mut overran = false;
        let length = loop {
            match self.receive_with(&mut buffer, RecvFlags::PEEK)? {
                // The previous process asked whether the group is bound.
                Received::Datagram(length)
                    if message::reply(&buffer[..length]).is_some_and(is_yes) =>
                {
                    self.receive(&mut buffer)?;
                }
                Received::Datagram(length) => break length,
                Received::Nothing => break 0,
                Received::Overrun => overran = true,
            }
        };
        let since = match Records::of(&buffer[..length]).next() {
            Some(Record::Packet(packet)) => match packet.group() {
                Some(group) if group == self.group.0 => packet.stamp(),
                _ => return Err(io::Error::other("it holds packets of another group")),
            },
            Some(Record::Reply(errno)) => {
                result_of(errno)?;
                None
            }
            Some(Record::Malformed) | None => None,
        };
        Ok(Waiting { since, overran })
    }

    /// Registers the socket with the current runtime, until the result is dropped.
    pub(crate) fn watch(socket: &Arc<Self>) -> io::Result<AsyncFd<Arc<Self>>> {
        let socket = Arc::clone(socket);
        // SAFETY: `as_raw_fd` returns the same descriptor each time. The `OwnedFd` in the socket keeps it
        // open while the `AsyncFd` holds its `Arc`, that is until it has deregistered.
        Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
    }

    pub(crate) fn group(&self) -> NflogGroup {
        self.group
    }

    /// The receive buffer that the kernel granted, in bytes of its memory.
    pub(crate) fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// The netlink port id, which `/proc` shows beside the group.
    pub(super) fn port_id(&self) -> io::Result<u32> {
        let address = rustix::net::getsockname(&self.fd)?;
        let address = SocketAddrNetlink::try_from(address)?;
        Ok(address.pid())
    }

    /// Receives one datagram, without waiting.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        self.receive_with(buffer, RecvFlags::empty())
    }

    #[inline]
    fn receive_with(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Received> {
        loop {
            match rustix::net::recv(&self.fd, &mut *buffer, flags | RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(Received::Datagram(length)),
                Err(rustix::io::Errno::AGAIN) => return Ok(Received::Nothing),
                Err(rustix::io::Errno::NOBUFS) => return Ok(Received::Overrun),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Unbinds the group. Before this returns, the kernel flushes its batch into the socket; afterwards it
    /// logs nothing more here. Requests no reply, so the socket holds only packets.
    pub fn unbind(&self) -> io::Result<()> {
        // By port id, in case somebody has connected the socket to another one.
        let kernel = SocketAddrNetlink::new(KERNEL, 0);
        let request = unbind_request(self.group);
        rustix::net::sendto(&self.fd, &request, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Asks the kernel whether the group is still bound to this socket. When this returns, the reply is in
    /// the socket, after the packets. It has this number, and the errno 0 if the group is bound, `ENODEV` if
    /// it is not bound, `EPERM` if it is bound to another socket.
    pub(crate) fn ask_whether_bound(&self, number: u32) -> io::Result<()> {
        let request = probe_request(self.group, number);
        rustix::net::send(&self.fd, &request, SendFlags::empty())?;
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

/// The kernel's unit of flush timeouts.
pub(super) fn centiseconds(flush_timeout: Duration) -> u32 {
    u32::try_from(flush_timeout.as_millis() / 10).unwrap_or(u32::MAX)
}

/// How many bytes of each packet the kernel copies, unless the rule has a smaller snaplen.
pub(crate) fn copy_range(family: Family) -> u32 {
    // At most 62, so it fits.
    u32::try_from(family.header_length() + LINK_LAYER_ROOM).unwrap_or(0)
}

/// A socket of netfilter's netlink, in this thread's network namespace.
pub(super) fn netfilter_socket() -> io::Result<OwnedFd> {
    let (kind, flags) = (SocketType::RAW, SocketFlags::CLOEXEC);
    let family = AddressFamily::NETLINK;
    Ok(rustix::net::socket_with(
        family,
        kind,
        flags,
        Some(NETFILTER),
    )?)
}

fn duplicate(queue: &Queue) -> io::Result<OwnedFd> {
    // SAFETY: the queue is open during this borrow, so the descriptor is valid; `Queue::fd` has asserted
    // that it is open.
    let library_fd = unsafe { BorrowedFd::borrow_raw(queue.fd()) };
    library_fd.try_clone_to_owned()
}

/// Sets the receive buffer. With `CAP_NET_ADMIN` in the first user namespace, it may exceed
/// `net.core.rmem_max`; without, it is at most that. Returns what the kernel granted, in bytes.
pub(crate) fn set_receive_buffer(fd: &OwnedFd) -> io::Result<usize> {
    if sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER)?;
    }
    Ok(sockopt::socket_recv_buffer_size(fd)?)
}

/// A filter that drops packets and lets replies through. The kernel does not report what it drops.
mod packet_filter {
    use std::io;
    use std::os::fd::OwnedFd;

    use crate::nflog::message::MESSAGE_PACKET;
    use crate::nflog::socket_option::{self, Filter};

    /// `linux/filter.h`: load a half-word, jump if equal, return.
    const LOAD_HALF: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Offset of `nlmsghdr.nlmsg_type`.
    const TYPE_AT: u32 = 4;

    pub(super) fn attach(socket: &OwnedFd) -> io::Result<()> {
        let instruction = |code, k| libc::sock_filter {
            code,
            jt: 0,
            jf: u8::from(code == JUMP_IF_EQUAL),
            k,
        };
        // A load reads network order; the kernel writes the type in host order.
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

/// Attributes of `linux/netfilter/nfnetlink_log.h`, `NFULA_CFG_*`.
mod attribute {
    pub(super) const COMMAND: u16 = 1;
    pub(super) const MODE: u16 = 2;
    pub(super) const BUFFER: u16 = 3;
    pub(super) const FLUSH_TIMEOUT: u16 = 4;
    pub(super) const THRESHOLD: u16 = 5;
    pub(super) const FLAGS: u16 = 6;
}

fn unbind_request(group: NflogGroup) -> Vec<u8> {
    const NFULNL_CFG_CMD_UNBIND: u8 = 2;
    configure(group, &[(attribute::COMMAND, &[NFULNL_CFG_CMD_UNBIND])])
}

/// All settings that the kernel can change while the group is bound.
fn settings_request(group: NflogGroup, family: Family, flush_timeout: Duration) -> Vec<u8> {
    const NFULNL_CFG_F_SEQ: u16 = 1;
    let mut mode = [0; 6];
    mode[..4].copy_from_slice(&copy_range(family).to_be_bytes());
    mode[4] = COPY_PACKET;
    configure(
        group,
        &[
            (attribute::FLAGS, &NFULNL_CFG_F_SEQ.to_be_bytes()),
            (attribute::BUFFER, &KERNEL_BUFFER.to_be_bytes()),
            (attribute::THRESHOLD, &THRESHOLD.to_be_bytes()),
            (
                attribute::FLUSH_TIMEOUT,
                &centiseconds(flush_timeout).to_be_bytes(),
            ),
            (attribute::MODE, &mode),
        ],
    )
}

/// A request that changes nothing and always has a reply. It has an attribute because without one, older
/// kernels do not report that the group is not bound.
fn probe_request(group: NflogGroup, number: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let attributes: &[(u16, &[u8])] = &[(attribute::THRESHOLD, &THRESHOLD.to_be_bytes())];
    message::request(MESSAGE_CONFIG, flags, number, group.0, attributes)
}

/// Requests no reply, which would arrive between the packets.
fn configure(group: NflogGroup, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    message::request(MESSAGE_CONFIG, NLM_F_REQUEST, 0, group.0, attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unbind_request_has_the_kernels_layout() {
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
        assert_eq!(request, expected);
    }

    #[test]
    fn the_probe_changes_nothing_and_has_a_number() {
        let mut expected = Vec::new();
        expected.extend(28_u32.to_ne_bytes());
        expected.extend(0x0401_u16.to_ne_bytes());
        expected.extend(5_u16.to_ne_bytes());
        expected.extend(9_u32.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend([0, 0, 0x01, 0x05]);
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(5_u16.to_ne_bytes());
        expected.extend(16_383_u32.to_be_bytes());
        assert_eq!(probe_request(NflogGroup(0x0105), 9), expected);
    }

    #[test]
    fn the_settings_request_has_the_kernels_layout() {
        let request = settings_request(NflogGroup(5), Family::Ip4, Duration::from_secs(1));
        let mut expected = Vec::new();
        expected.extend(64_u32.to_ne_bytes());
        expected.extend(0x0401_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend([0; 8]);
        expected.extend([0, 0, 0, 5]);
        let mut add = |length: u16, attribute: u16, value: &[u8]| {
            expected.extend(length.to_ne_bytes());
            expected.extend(attribute.to_ne_bytes());
            expected.extend(value);
        };
        add(6, 6, &[0, 1, 0, 0]);
        add(8, 3, &(128 * 1024_u32).to_be_bytes());
        add(8, 5, &16_383_u32.to_be_bytes());
        add(8, 4, &100_u32.to_be_bytes());
        // 42 bytes of each packet, in mode 2 (`NFULNL_COPY_PACKET`).
        add(10, 2, &[0, 0, 0, 42, 2, 0, 0, 0]);
        assert_eq!(request, expected);
    }
}
