//! setsockopt(2) and getsockopt(2), for options that the libraries do not have.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// The value of a socket option.
///
/// # Safety
///
/// If the value has pointers, what they point to must live as long as the value.
pub(crate) unsafe trait OptionValue {}

// SAFETY: no pointers.
unsafe impl OptionValue for c_int {}

/// A classic BPF program: `struct sock_fprog`, and the instructions that it points to.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Filter<'a> {
    program: libc::sock_fprog,
    _instructions: std::marker::PhantomData<&'a mut [libc::sock_filter]>,
}

// SAFETY: the instructions are borrowed for the lifetime of the filter.
unsafe impl OptionValue for Filter<'_> {}

impl<'a> Filter<'a> {
    /// A program of up to 255 instructions.
    pub(crate) fn new(instructions: &'a mut [libc::sock_filter]) -> io::Result<Self> {
        let length = u8::try_from(instructions.len()).map_err(io::Error::other)?;
        Ok(Self {
            program: libc::sock_fprog {
                len: length.into(),
                filter: instructions.as_mut_ptr(),
            },
            _instructions: std::marker::PhantomData,
        })
    }
}

/// An IPv4 socket to set options of: it neither sends nor receives.
pub(crate) fn udp_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(socket_with(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Sets an option of the level `SOL_SOCKET`.
pub(crate) fn set<T: OptionValue>(socket: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open. The kernel reads `size` bytes from `value` and what that points to;
    // both live until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What to read of a table of iptables-legacy.
#[derive(Clone, Copy)]
pub(crate) enum Iptables {
    /// `IPT_SO_GET_INFO`: what follows the name in `struct ipt_getinfo`.
    Info,
    /// `IPT_SO_GET_ENTRIES`: all entries, which have this many bytes.
    Entries(u32),
}

/// `struct ipt_get_entries`. The entries are aligned like the counters in them.
#[repr(C)]
struct GetEntries {
    name: [u8; NAME],
    size: u32,
    entries: [u64; 0],
}

/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;

/// Reads a table of the socket's family, IPv4 or IPv6. Requires `CAP_NET_ADMIN` in the socket's network
/// namespace. If the table does not exist, the kernel creates it.
pub(crate) fn iptables(socket: &OwnedFd, what: Iptables, table: &str) -> io::Result<Vec<u8>> {
    /// `struct ipt_getinfo`: the name and 13 numbers.
    const INFO: usize = NAME + 13 * size_of::<u32>();
    let (option, begin, length) = match what {
        Iptables::Info => (64, NAME, INFO),
        Iptables::Entries(size) => {
            let begin = size_of::<GetEntries>();
            (65, begin, begin + size as usize)
        }
    };
    let mut buffer = vec![0; length];
    if table.len() >= NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    buffer[..table.len()].copy_from_slice(table.as_bytes());
    if let Iptables::Entries(size) = what {
        buffer[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    }
    let level = match rustix::net::sockopt::socket_domain(socket)? {
        AddressFamily::INET6 => libc::SOL_IPV6,
        _ => libc::SOL_IP,
    };
    let mut given = libc::socklen_t::try_from(length).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open. The kernel writes at most `given` bytes to the buffer: both options
    // check that it is as long as what they write.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut given,
        )
    };
    match result {
        0 => Ok(buffer.split_off(begin)),
        _ => Err(io::Error::last_os_error()),
    }
}
