//! The two commands of bpf(2) that aya 0.14 lacks: reading a map in batches, and removing an
//! element of an array of maps.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use acctd_common::contract::{EpochKey, EpochValue};

/// `enum bpf_cmd` of `linux/bpf.h`.
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The part of `union bpf_attr` that the batch commands use.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that the commands for an element use.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<()> {
    // SAFETY: the kernel reads and writes `attr` within the size that is given. What its addresses
    // point to is up to the callers below: it lives through the call, and has room for `count` keys
    // and values of the contract, whose types every map has that acctd makes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn descriptor(map: BorrowedFd<'_>) -> u32 {
    // An open descriptor is not negative.
    u32::try_from(map.as_raw_fd()).unwrap_or(u32::MAX)
}

/// Takes the element out of an array of maps and waits until no program uses it any more; that it
/// is not there is no error.
pub fn delete_element(map: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: descriptor(map),
        padding: 0,
        key: std::ptr::from_ref(&index).addr() as u64,
        value: 0,
        flags: 0,
    };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attr) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Entries that are read at a time.
const BATCH: usize = 8_192;

/// Reads a whole epoch's map, which nothing writes to any more.
pub fn for_each(
    map: BorrowedFd<'_>,
    mut visit: impl FnMut(&EpochKey, &EpochValue),
) -> io::Result<()> {
    let mut keys = vec![EpochKey::default(); BATCH];
    let mut values = vec![EpochValue::default(); BATCH];
    // Opaque to us, and at most as long as a key.
    let mut position = [0_u64; 8];
    let mut is_first = true;
    loop {
        let mut next = position;
        let mut attr = BatchAttr {
            in_batch: if is_first {
                0
            } else {
                position.as_ptr().addr() as u64
            },
            out_batch: next.as_mut_ptr().addr() as u64,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            map_fd: descriptor(map),
            ..BatchAttr::default()
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        let is_last = match &result {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            // A hash bucket with more entries than fit.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                keys.resize(2 * keys.len(), EpochKey::default());
                values.resize(keys.len(), EpochValue::default());
                continue;
            }
            Err(_) => return result,
        };
        for (key, value) in keys.iter().zip(&values).take(attr.count as usize) {
            visit(key, value);
        }
        if is_last {
            return Ok(());
        }
        position = next;
        is_first = false;
    }
}
