//! The commands of bpf(2) that aya 0.14 lacks or keeps to itself: load types, read a map in batches, remove an element of
//! an array of maps, and list the ids of an interface's programs (aya's function opens each program, which requires
//! `CAP_SYS_ADMIN`).
//!
//! At the given address, the kernel reads or writes as many bytes as the map's keys and values have. So these
//! functions accept only a map whose sizes were compared with the types.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use acctd_common::contract::{EpochKey, EpochValue};
use anyhow::{Context as _, Result, bail};
use aya::maps::{Map, MapData, MapType};
use aya::programs::TcAttachType;

/// `enum bpf_cmd` of `linux/bpf.h`.
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_BTF_LOAD: libc::c_long = 18;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// `enum bpf_attach_type`.
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;

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

/// The part of `union bpf_attr` that `BPF_PROG_QUERY` uses.
#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The part of `union bpf_attr` that `BPF_BTF_LOAD` uses.
#[repr(C)]
#[derive(Default)]
struct BtfAttr {
    btf: u64,
    log_buffer: u64,
    btf_bytes: u32,
    log_bytes: u32,
    log_level: u32,
    /// Written by Linux 6.4 and later; older ones want zero here.
    log_true_bytes: u32,
}

/// # Safety
///
/// `attr` must be the part of `union bpf_attr` that `command` uses. Each address in it must be 0, or of memory
/// that is valid during the call and has room for all that the kernel reads or writes there.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes `attr` within the given size. The caller guarantees the rest.
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
    Ok(result)
}

/// Gives the kernel an object's types, in the format of `linux/btf.h`.
pub(crate) fn load_btf(types: &[u8]) -> io::Result<OwnedFd> {
    let mut attr = BtfAttr {
        btf: address_of(types),
        btf_bytes: u32::try_from(types.len()).map_err(io::Error::other)?,
        ..BtfAttr::default()
    };
    // SAFETY: `BPF_BTF_LOAD` uses this part. The kernel reads `btf_bytes` at `btf`, and writes no log.
    let result = unsafe { bpf(BPF_BTF_LOAD, &mut attr) }?;
    let descriptor = RawFd::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, for this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn descriptor(map: BorrowedFd<'_>) -> u32 {
    // An open descriptor is not negative.
    u32::try_from(map.as_raw_fd()).unwrap_or(u32::MAX)
}

/// The kernel reads from there.
fn address_of<T>(values: &[T]) -> u64 {
    values.as_ptr().expose_provenance() as u64
}

/// The kernel writes to there.
fn address_of_mut<T>(values: &mut [T]) -> u64 {
    values.as_mut_ptr().expose_provenance() as u64
}

fn map_data(map: &Map) -> Result<&MapData> {
    match map {
        Map::ArrayOfMaps(data) | Map::HashMap(data) => Ok(data),
        other => bail!("{other:?} is not a map of epochs"),
    }
}

/// Compares with the kernel's map itself, not with an object's definition.
fn require(map: &MapData, kind: MapType, key_bytes: usize, value_bytes: usize) -> Result<()> {
    let info = map.info().context("cannot read a map's type and sizes")?;
    let found = (info.key_size() as usize, info.value_size() as usize);
    if info.map_type()? != kind || found != (key_bytes, value_bytes) {
        bail!(
            "a map has type {:?} with keys and values of {} and {} bytes, instead of {kind:?} with {key_bytes} and {value_bytes}",
            info.map_type()?,
            found.0,
            found.1
        );
    }
    Ok(())
}

/// A hash map of [`EpochKey`] to [`EpochValue`].
#[derive(Debug)]
pub(crate) struct EpochMap(Map);

impl EpochMap {
    /// Fails if the kernel's map has keys or values of another size.
    pub(crate) fn new(map: Map) -> Result<Self> {
        let data = map_data(&map)?;
        require(
            data,
            MapType::Hash,
            size_of::<EpochKey>(),
            size_of::<EpochValue>(),
        )?;
        Ok(Self(map))
    }

    pub(crate) fn data(&self) -> Result<&MapData> {
        map_data(&self.0)
    }

    /// Calls `visit` for each entry. No program may write to the map any more.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&EpochKey, &EpochValue)) -> Result<()> {
        let map_fd = descriptor(self.data()?.fd().as_fd());
        let mut keys = vec![EpochKey::default(); BATCH];
        let mut values = vec![EpochValue::default(); BATCH];
        // Opaque, and at most as long as a key.
        let mut position = [0_u64; 8];
        let mut is_first = true;
        loop {
            let mut next = position;
            let in_batch = if is_first { 0 } else { address_of(&position) };
            let mut attr = BatchAttr {
                in_batch,
                out_batch: address_of_mut(&mut next),
                keys: address_of_mut(&mut keys),
                values: address_of_mut(&mut values),
                count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
                map_fd,
                ..BatchAttr::default()
            };
            // SAFETY: a batch command uses this part. Both positions have 64 bytes, and the kernel uses
            // as many as a key has, at the most, and at least four. `keys` and `values` have `count` elements
            // of the types whose sizes were compared with the map's when this was made.
            let result = unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) };
            let is_last = match result {
                Ok(_) => false,
                Err(error) if error.kind() == io::ErrorKind::NotFound => true,
                // A hash bucket has more entries than fit.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    keys.resize(2 * keys.len(), EpochKey::default());
                    values.resize(keys.len(), EpochValue::default());
                    continue;
                }
                Err(error) => return Err(error.into()),
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
}

/// Entries per read.
const BATCH: usize = 8_192;

/// Removes an element of an array of maps and waits until no program uses it any more. A missing element is no
/// error.
pub(crate) fn delete_element(array_of_maps: &Map, index: u32) -> Result<()> {
    let map = map_data(array_of_maps)?;
    require(
        map,
        MapType::ArrayOfMaps,
        size_of::<u32>(),
        size_of::<u32>(),
    )?;
    let key = [index];
    let mut attr = ElementAttr {
        map_fd: descriptor(map.fd().as_fd()),
        padding: 0,
        key: address_of(&key),
        value: 0,
        flags: 0,
    };
    // SAFETY: a command for an element uses this part. The kernel reads a key, which has four bytes in
    // this map and lives until the call is over.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &mut attr) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The ids of an interface's TCX programs, in the order in which they run; none if the kernel has no TCX.
/// Requires `CAP_NET_ADMIN`.
pub(crate) fn tcx_programs(index: u32, hook: TcAttachType) -> io::Result<Vec<u32>> {
    let attach_type = match hook {
        TcAttachType::Ingress => BPF_TCX_INGRESS,
        TcAttachType::Egress => BPF_TCX_EGRESS,
        TcAttachType::Custom(_) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    // The kernel's limit (`BPF_MPROG_MAX`).
    let mut ids = [0_u32; 64];
    let mut attr = QueryAttr {
        target_ifindex: index,
        attach_type,
        prog_ids: address_of_mut(&mut ids),
        count: u32::try_from(ids.len()).unwrap_or(0),
        ..QueryAttr::default()
    };
    // SAFETY: `BPF_PROG_QUERY` uses this part. The kernel writes at most `count` ids; the other addresses
    // are 0.
    match unsafe { bpf(BPF_PROG_QUERY, &mut attr) } {
        Ok(_) => Ok(ids.into_iter().take(attr.count as usize).collect()),
        Err(error) => match error.raw_os_error() {
            // No program was ever attached, or the kernel has no TCX.
            Some(libc::ENOENT | libc::EINVAL) => Ok(Vec::new()),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use aya::maps::MapData;

    use super::*;

    /// `None` without root, which creating a map requires.
    fn map(kind: u32, key_bytes: usize, value_bytes: usize) -> Option<Map> {
        let small = |size| u32::try_from(size).unwrap();
        let (key, value) = (small(key_bytes), small(value_bytes));
        let definition = aya_obj::Map::new_from_params(kind, key, value, 8, 0);
        match MapData::create(definition, "acctd_test", None) {
            Ok(data) => Some(Map::HashMap(data)),
            Err(_) if !rustix::process::geteuid().is_root() => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn a_map_of_other_sizes_is_never_read() {
        const HASH: u32 = 1;
        let (key, value) = (size_of::<EpochKey>(), size_of::<EpochValue>());
        for (key_bytes, value_bytes, is_right) in [
            (key, value, true),
            (key, value + 8, false),
            (key, 4096, false),
            (key + 4, value, false),
            (key - 4, value, false),
        ] {
            let Some(map) = map(HASH, key_bytes, value_bytes) else {
                return;
            };
            assert_eq!(EpochMap::new(map).is_ok(), is_right);
        }
        // Nor is a hash map taken for an array of maps.
        if let Some(map) = map(HASH, 4, 4) {
            assert!(delete_element(&map, 0).is_err());
        }
    }
}
