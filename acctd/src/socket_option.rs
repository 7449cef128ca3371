//! setsockopt(2) for the options that no library here has.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

/// A value that the kernel takes for an option of a socket.
///
/// # Safety
///
/// If it has pointers, what they point to must live as long as the value.
pub unsafe trait OptionValue {}

// SAFETY: no pointers.
unsafe impl OptionValue for c_int {}

/// A classic BPF program, as `struct sock_fprog` with what it points to.
#[repr(C)]
#[derive(Debug)]
pub struct Filter<'a> {
    program: libc::sock_fprog,
    _instructions: std::marker::PhantomData<&'a mut [libc::sock_filter]>,
}

// SAFETY: the instructions are borrowed for as long as it lives.
unsafe impl OptionValue for Filter<'_> {}

impl<'a> Filter<'a> {
    /// A program of up to 255 instructions.
    pub fn new(instructions: &'a mut [libc::sock_filter]) -> io::Result<Self> {
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

/// Sets an option of the level `SOL_SOCKET`.
pub fn set<T: OptionValue>(socket: &OwnedFd, option: c_int, value: &T) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and the kernel reads `size` bytes from `value` and what that
    // points to, both of which live through the call.
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
