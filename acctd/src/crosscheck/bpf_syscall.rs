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
    // SAFETY: the kernel reads and writes `attr` within the size that is given; what its addresses
    // point to is up to the callers below, who keep it alive through the call.
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

/// About this much of values is read at a time.
const BATCH_BYTES: usize = 1024 * 1024;

/// Reads a whole `PERCPU_HASH` of the contract that nothing writes to, and gives each key with the
/// sum of its values over all CPUs. `n_cpus` are the possible ones: the kernel copies a value for each.
pub fn for_each(
    map: BorrowedFd<'_>,
    n_cpus: usize,
    mut visit: impl FnMut(&EpochKey, &EpochValue),
) -> io::Result<()> {
    let mut n_batch = (BATCH_BYTES / (n_cpus * size_of::<EpochValue>())).max(256);
    let mut keys = vec![EpochKey::default(); n_batch];
    let mut values = vec![EpochValue::default(); n_batch * n_cpus];
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
            count: u32::try_from(n_batch).unwrap_or(u32::MAX),
            map_fd: descriptor(map),
            ..BatchAttr::default()
        };
        let result = bpf(BPF_MAP_LOOKUP_BATCH, &mut attr);
        let is_last = match &result {
            Ok(()) => false,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            // A hash bucket with more entries than fit in a batch.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                n_batch *= 2;
                keys.resize(n_batch, EpochKey::default());
                values.resize(n_batch * n_cpus, EpochValue::default());
                continue;
            }
            Err(_) => return result,
        };
        for (key, values) in keys
            .iter()
            .zip(values.chunks_exact(n_cpus))
            .take(attr.count as usize)
        {
            let mut sum = EpochValue::default();
            for value in values {
                sum.add(value);
            }
            visit(key, &sum);
        }
        if is_last {
            return Ok(());
        }
        position = next;
        is_first = false;
    }
}
