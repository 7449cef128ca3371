//! The least that a receiver of an NFLOG group can do: the floor of `cargo xtask bench`. It counts
//! the messages of each datagram and looks at nothing in them (`headers`), or lets `libnetfilter_log`
//! walk them and call back for each packet, as a C program would (`library`).
//!
//! `null_receiver headers|library GROUP` runs until SIGTERM, then prints what it has received as
//! one line of JSON.
#![expect(
    unsafe_code,
    reason = "libnetfilter_log's own receive path, which the nflog crate hides"
)]

use std::env;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use acctd::model::group::NflogGroup;
use acctd::model::prefix::Family;
use acctd::nflog::socket::{MAX_DATAGRAM, NflogSocket};
use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::net::{RecvFlags, sockopt};
use signal_hook::consts::SIGTERM;

/// How often to see whether to stop while nothing comes.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// As acctd's.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> Result<()> {
    let words: Vec<String> = env::args().skip(1).collect();
    let [way, group] = words.as_slice() else {
        bail!("null_receiver headers|library GROUP");
    };
    let group = NflogGroup(group.parse()?);
    let received = match way.as_str() {
        "headers" => {
            let socket = NflogSocket::open(group, Family::Ip6, FLUSH_TIMEOUT)?;
            receive(&socket, count_headers)?
        }
        "library" => library::receive_group(group)?,
        _ => bail!("{way}: neither `headers` nor `library`"),
    };
    writeln!(
        io::stdout(),
        r#"{{"packets": {}, "datagrams": {}}}"#,
        received.packets,
        received.datagrams
    )?;
    Ok(())
}

#[derive(Default)]
struct Received {
    packets: u64,
    datagrams: u64,
}

/// Receives until SIGTERM; `walk` says how many packets are in a datagram.
fn receive(
    socket: impl std::os::fd::AsFd,
    mut walk: impl FnMut(&mut [u8]) -> u64,
) -> Result<Received> {
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stop))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LOOK_AROUND))?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut received = Received::default();
    while !stop.load(Ordering::Relaxed) {
        match rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                received.datagrams += 1;
                received.packets += walk(&mut buffer[..length]);
            }
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(received)
}

/// Walks the netlink headers alone, and counts those of packets.
fn count_headers(datagram: &mut [u8]) -> u64 {
    let mut rest = &*datagram;
    let mut packets = 0;
    while let (Some(length), Some(kind)) = (rest.first_chunk(), rest.get(4..6)) {
        let length = u32::from_ne_bytes(*length) as usize;
        packets += u64::from(kind == acctd::nflog::message::MESSAGE_PACKET.to_ne_bytes());
        rest = rest.get(length.max(8).next_multiple_of(4)..).unwrap_or(&[]);
    }
    packets
}

/// `libnetfilter_log/libnetfilter_log.h`, which the nflog crate links.
mod library {
    use std::ffi::{c_char, c_int, c_void};
    use std::ptr;

    use super::{BorrowedFd, NflogGroup, RECEIVE_BUFFER, Received, Result, bail, sockopt};

    type Callback = extern "C" fn(*mut c_void, *mut c_void, *mut c_void, *mut c_void) -> c_int;

    unsafe extern "C" {
        fn nflog_open() -> *mut c_void;
        fn nflog_bind_group(handle: *mut c_void, group: u16) -> *mut c_void;
        fn nflog_set_mode(group: *mut c_void, mode: u8, range: u32) -> c_int;
        fn nflog_set_nlbufsiz(group: *mut c_void, size: u32) -> c_int;
        fn nflog_set_qthresh(group: *mut c_void, threshold: u32) -> c_int;
        fn nflog_callback_register(group: *mut c_void, call: Callback, data: *mut c_void) -> c_int;
        fn nflog_fd(handle: *mut c_void) -> c_int;
        fn nflog_handle_packet(handle: *mut c_void, datagram: *mut c_char, length: c_int) -> c_int;
    }

    /// `NFULNL_COPY_PACKET`.
    const COPY_PACKET: u8 = 2;

    extern "C" fn count_one(
        _group: *mut c_void,
        _message: *mut c_void,
        _packet: *mut c_void,
        count: *mut c_void,
    ) -> c_int {
        let count = count.cast::<u64>();
        // SAFETY: what was registered: a counter that outlives the receiving, on one thread.
        unsafe { *count += 1 };
        0
    }

    pub(super) fn receive_group(group: NflogGroup) -> Result<Received> {
        let mut count = 0_u64;
        let count = &raw mut count;
        // SAFETY: no arguments; the handle is checked.
        let handle = unsafe { nflog_open() };
        if handle.is_null() {
            bail!("nflog_open failed");
        }
        // SAFETY: the handle is open, and stays so until the process ends.
        let bound = unsafe { nflog_bind_group(handle, group.0) };
        if bound.is_null() {
            bail!("nflog_bind_group failed: is group {group} taken?");
        }
        // SAFETY: the group is bound, and stays so until the process ends.
        unsafe { nflog_callback_register(bound, count_one, count.cast()) };
        // SAFETY: as above.
        unsafe { nflog_set_mode(bound, COPY_PACKET, 62) };
        // SAFETY: as above.
        unsafe { nflog_set_nlbufsiz(bound, 128 * 1024) };
        // SAFETY: as above.
        unsafe { nflog_set_qthresh(bound, 16_383) };
        // SAFETY: the handle is open.
        let fd = unsafe { nflog_fd(handle) };
        // SAFETY: the descriptor of the handle, which nobody closes.
        let socket = unsafe { BorrowedFd::borrow_raw(fd) };
        sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER)?;
        let received = super::receive(socket, |datagram| {
            let length = c_int::try_from(datagram.len()).unwrap_or(0);
            // SAFETY: the buffer is readable for this length.
            unsafe { ptr::write(count, 0) };
            // SAFETY: the library reads the buffer within this length and calls `count_one` alone.
            unsafe { nflog_handle_packet(handle, datagram.as_mut_ptr().cast(), length) };
            // SAFETY: the counter outlives this.
            unsafe { ptr::read(count) }
        })?;
        Ok(received)
    }
}
