//! Tun devices: what a process writes into one arrives on it as a packet,
//! without an Ethernet header.

use std::{fs::File, io, mem, os::fd::AsRawFd as _, ptr};

/// Makes a tun device, down as yet and gone when the file is closed. Each
/// write to the file is one IP packet, whose first 4 bits tell IPv4 from IPv6; if `is_vnet`, behind a `virtio_net_hdr`
/// (`linux/virtio_net.h`), as of a virtual machine.
pub(super) fn create(name: &str, is_vnet: bool) -> io::Result<File> {
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: if is_vnet {
            WITHOUT_HEADER | VNET_HEADER
        } else {
            WITHOUT_HEADER
        },
        rest: [0; REST],
    };
    // The last byte stays 0 and ends the name.
    match request.name.get_mut(..name.len()) {
        Some(start) if name.len() < libc::IFNAMSIZ => start.copy_from_slice(name.as_bytes()),
        _ => {
            return Err(io::Error::other(
                "a device name of at most 15 bytes is needed",
            ));
        }
    }
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    // SAFETY: the kernel reads and writes one `ifreq`, which `Request` has the
    // size and layout of, and which lives across the call.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            libc::TUNSETIFF,
            ptr::from_mut(&mut request),
        )
    };
    if result == 0 {
        Ok(file)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Packets as they are, with nothing of the device's in front of them.
#[expect(clippy::cast_possible_truncation, reason = "these flags have 16 bits")]
const WITHOUT_HEADER: libc::c_short = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;

#[expect(clippy::cast_possible_truncation, reason = "these flags have 16 bits")]
const VNET_HEADER: libc::c_short = libc::IFF_VNET_HDR as libc::c_short;

/// An `ifreq` of the C interface with the one member of its union that is
/// used here, so that no byte of it is left undefined.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; REST],
}

const REST: usize =
    mem::size_of::<libc::ifreq>() - libc::IFNAMSIZ - mem::size_of::<libc::c_short>();
