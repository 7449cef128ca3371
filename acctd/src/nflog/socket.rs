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

/// What has waited in a socket that is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// When the packet at the front was logged; `None` if none waits, or it has no time stamp.
    pub since: Option<UnixNanos>,
    /// The kernel has said that the socket was full. It says so once.
    pub overran: bool,
}

impl NflogSocket {
    /// Binds and configures `group`, to be given the [`copy_range`] of this family's packets.
    pub fn open(group: NflogGroup, family: Family, flush_timeout: Duration) -> io::Result<Self> {
        // If the kernel has no netfilter netlink, or this process no descriptor left, `Queue::open` could only
        // panic.
        netfilter_socket()?;
        let mut queue = Queue::new();
        queue.open();
        let opened = Self::configure(&mut queue, group, family, flush_timeout);
        // Closes the library's descriptor; ours goes on.
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

    /// Takes over a socket that was bound to `group` by an earlier process, and sets it as
    /// [`NflogSocket::open`] would. Whoever has kept it may be wrong, so what cannot be shown to be that is
    /// refused.
    pub fn take_over(
        fd: OwnedFd,
        group: NflogGroup,
        family: Family,
        flush_timeout: Duration,
    ) -> io::Result<(Self, Waiting)> {
        let is_netfilter = sockopt::socket_domain(&fd).is_ok_and(|is| is == AddressFamily::NETLINK)
            && sockopt::socket_protocol(&fd).is_ok_and(|is| is == Some(NETFILTER));
        if !is_netfilter {
            return Err(io::Error::other("it is no netfilter socket"));
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

    /// Looks at what waits, and leaves it there. The kernel answers a request at once, and this one only
    /// where the group is not bound to the socket: so unless its answer stands at the front, it is
    /// bound, or was until the last packet in it.
    fn waiting(&self) -> io::Result<Waiting> {
        /// The first message, with all that the kernel may add to a packet's header.
        const ENOUGH: usize = 8 * 1024;
        let mut buffer = vec![0; ENOUGH];
        let is_yes = |(_, result): (u32, io::Result<()>)| result.is_ok();
        let mut overran = false;
        let length = loop {
            match self.receive_with(&mut buffer, RecvFlags::PEEK)? {
                // Of the process before, which has asked whether the group is bound.
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
                _ => return Err(io::Error::other("packets of another group wait in it")),
            },
            Some(Record::Reply(errno)) => {
                result_of(errno)?;
                None
            }
            Some(Record::Malformed) | None => None,
        };
        Ok(Waiting { since, overran })
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

    /// Unbinds the group: the kernel flushes its batch into this socket before it returns, and
    /// logs nothing more here. Asks for no answer, so that nothing is read here but packets.
    pub fn unbind(&self) -> io::Result<()> {
        // By its name, should somebody have connected the socket to another.
        let kernel = SocketAddrNetlink::new(KERNEL, 0);
        let request = unbind_request(self.group);
        rustix::net::sendto(&self.fd, &request, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    /// Asks the kernel whether the group is still bound to this socket. When this returns, the answer
    /// waits behind the packets in it: 0 for yes, `ENODEV` if it is bound to none, `EPERM` if to
    /// another, with this number.
    pub fn ask_whether_bound(&self, number: u32) -> io::Result<()> {
        let question = question(self.group, number);
        rustix::net::send(&self.fd, &question, SendFlags::empty())?;
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
    // SAFETY: the queue is open for the length of this borrow, so the descriptor is valid;
    // `Queue::fd` has asserted that it is open.
    let library_fd = unsafe { BorrowedFd::borrow_raw(queue.fd()) };
    // Close-on-exec.
    library_fd.try_clone_to_owned()
}

/// Asks for the buffer past `net.core.rmem_max`, which `CAP_NET_ADMIN` of the first user
/// namespace may; without it, for as much as that limit gives. Returns what was granted.
pub fn set_receive_buffer(fd: &OwnedFd) -> io::Result<usize> {
    if sockopt::set_socket_recv_buffer_size_force(fd, RECEIVE_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(fd, RECEIVE_BUFFER)?;
    }
    Ok(sockopt::socket_recv_buffer_size(fd)?)
}

/// A filter that lets replies through and no packet. The socket drops what it filters in silence.
mod packet_filter {
    use std::io;
    use std::os::fd::OwnedFd;

    use crate::nflog::message::MESSAGE_PACKET;
    use crate::nflog::socket_option::{self, Filter};

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

/// All that a bound group can be told.
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

/// A request that changes nothing, to be answered in any case. Without an attribute, only newer kernels
/// would miss the group.
fn question(group: NflogGroup, number: u32) -> Vec<u8> {
    let flags = NLM_F_REQUEST | NLM_F_ACK;
    let attributes: &[(u16, &[u8])] = &[(attribute::THRESHOLD, &THRESHOLD.to_be_bytes())];
    message::request(MESSAGE_CONFIG, flags, number, group.0, attributes)
}

/// Asks for no reply, which would come between the packets.
fn configure(group: NflogGroup, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    message::request(MESSAGE_CONFIG, NLM_F_REQUEST, 0, group.0, attributes)
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
        assert_eq!(request, expected);
    }

    #[test]
    fn the_question_whether_the_group_is_bound_changes_nothing_and_has_a_number() {
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
        assert_eq!(question(NflogGroup(0x0105), 9), expected);
    }

    #[test]
    fn the_settings_request_is_what_the_kernel_reads() {
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
        // 42 bytes of each packet, in the mode 2.
        add(10, 2, &[0, 0, 0, 42, 2, 0, 0, 0]);
        assert_eq!(request, expected);
    }
}
