//! A packet socket for sending whole Ethernet frames in batches.

use std::{
    io::{self, IoSlice},
    mem,
    os::fd::{AsRawFd as _, OwnedFd},
    ptr,
};

use rustix::net::{
    AddressFamily, MMsgHdr, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
    netdevice::name_to_index,
};

use crate::mac::MacAddr;

/// A socket bound to one device. It receives nothing.
#[derive(Debug)]
pub(crate) struct PacketSocket {
    fd: OwnedFd,
    address: MacAddr,
}

impl PacketSocket {
    /// Opens a socket on `device`, in the network namespace of this process.
    pub(crate) fn open(device: &str) -> io::Result<Self> {
        let socket = Self::open_with_hooks(device)?;
        bypass_queue(&socket.fd)?;
        Ok(socket)
    }

    /// The same, for frames that pass the device's egress hooks, as those of
    /// any other socket do.
    pub(crate) fn open_with_hooks(device: &str) -> io::Result<Self> {
        // Protocol 0: such a socket sends, and no frame is ever queued on it.
        let fd = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let index = name_to_index(&fd, device)?;
        let index = index.try_into().map_err(io::Error::other)?;
        rustix::net::bind(&fd, &LinkAddress::of_device(index))?;
        let address = own_address(&fd)?;
        Ok(Self { fd, address })
    }

    pub(crate) fn address(&self) -> MacAddr {
        self.address
    }

    /// Hands frames to the device, and says how many of them it took. An
    /// error means that it took none.
    pub(crate) fn send(&self, frames: &[impl AsRef<[u8]>]) -> io::Result<usize> {
        let slices: Vec<[IoSlice<'_>; 1]> = frames
            .iter()
            .map(|frame| [IoSlice::new(frame.as_ref())])
            .collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> = frames
            .iter()
            .map(|_| SendAncillaryBuffer::default())
            .collect();
        let mut messages: Vec<MMsgHdr<'_>> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| MMsgHdr::new(slice, control))
            .collect();
        let n_sent = rustix::net::sendmmsg(&self.fd, &mut messages, SendFlags::empty())?;
        Ok(n_sent)
    }
}

/// Lets frames pass the device's queueing discipline by: less work a frame,
/// and a device that cannot take one says so by ENOBUFS.
fn bypass_queue(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is one int, which lives across the call and
    // whose size is given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            ptr::from_ref(&on).cast(),
            size_of_u32::<libc::c_int>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A bound packet socket's name holds the address of its device.
fn own_address(fd: &OwnedFd) -> io::Result<MacAddr> {
    let mut name = LinkAddress::of_device(0).0;
    let mut length = size_of_u32::<libc::sockaddr_ll>();
    // SAFETY: the kernel writes at most `length` bytes, the size of `name`;
    // every bit pattern is a valid sockaddr_ll, whose fields are integers.
    let result = unsafe {
        libc::getsockname(
            fd.as_raw_fd(),
            ptr::from_mut(&mut name).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let ethernet = name.sll_hatype == libc::ARPHRD_ETHER && name.sll_halen == 6;
    let address = name.sll_addr.first_chunk().copied().map(MacAddr);
    address
        .filter(|_| ethernet)
        .ok_or_else(|| io::Error::other("not an Ethernet device"))
}

/// The address of a device as the kernel takes it.
struct LinkAddress(libc::sockaddr_ll);

impl LinkAddress {
    fn of_device(index: libc::c_int) -> Self {
        Self(libc::sockaddr_ll {
            sll_family: AddressFamily::PACKET.as_raw(),
            sll_protocol: 0,
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        })
    }
}

// SAFETY: the pointer is to a sockaddr_ll, readable for its whole size, which
// is the length passed; `of_device` sets its family.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        f(
            ptr::from_ref(&self.0).cast(),
            size_of_u32::<libc::sockaddr_ll>(),
        )
    }
}

/// The size of a C type, as socket calls take it.
#[expect(clippy::cast_possible_truncation, reason = "C structs of a few bytes")]
const fn size_of_u32<T>() -> u32 {
    mem::size_of::<T>() as u32
}
