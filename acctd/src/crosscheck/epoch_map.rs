//! New maps for epochs, as the object defines them.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use acctd_common::contract::{self, EpochKey, EpochValue};
use anyhow::{Context, Result, anyhow};
use aya::maps::{HashMap, Map, MapData, MapError};

use super::bpf_syscall::{self, EpochMap};
use crate::config::crosscheck::n_entries;
use crate::model::kernel_counts::reason_keys;
use crate::process::kernel::memlock_limit;

/// If the kernel has no memory at hand: how often to try again, and after which pause.
const MEMORY_TRIES: u32 = 100;
const MEMORY_PAUSE: Duration = Duration::from_millis(5);

/// The inner map of [`contract::EPOCHS`], with the types (BTF) that describe its keys and values.
///
/// New maps have the same types: Linux 5.15 to 6.1 accepts no other (`bpf_map_meta_equal`), and `bpftool map dump`
/// shows their entries by field.
#[derive(Debug)]
pub(crate) struct EpochDefinition {
    map: aya_obj::Map,
    types: Option<OwnedFd>,
    /// The program counts [`contract::reason::SEGMENTS`].
    has_segments: bool,
}

impl EpochDefinition {
    /// Of an object that was checked.
    pub(super) fn of(mut object: aya_obj::Object, has_segments: bool) -> Result<Self> {
        let inner = object.maps.get(contract::EPOCHS);
        let inner = inner.and_then(aya_obj::Map::inner);
        let map = inner.context("the object has no definition of an epoch's map")?;
        // As aya does it for the object's own maps.
        let types = match aya::features().btf() {
            Some(features) => object.fixup_and_sanitize_btf(features)?,
            None => None,
        };
        let types = types
            .map(|types| bpf_syscall::load_btf(&types.to_bytes()))
            .transpose()
            .context("the kernel rejects the types of the object's maps (BTF)")?;
        Ok(Self {
            map,
            types,
            has_segments,
        })
    }

    /// A map for `capacity` prefixes and sides. It has an entry for each reason already, so that reasons can be
    /// counted even when the map is full.
    pub(super) fn new_map(&self, capacity: u32) -> Result<EpochMap> {
        let mut definition = self.map.clone();
        definition.set_max_entries(n_entries(capacity));
        let types = self.types.as_ref().map(|types| types.as_fd());
        let created = MapData::create(definition, "acctd_epoch", types);
        let data = created.map_err(|error| {
            let cause = anyhow::Error::from(error).root_cause().to_string();
            let cure = match memlock_limit() {
                Some(limit) => limit.to_string(),
                None => "lower --crosscheck-max-prefixes if memory is short".to_owned(),
            };
            anyhow!("cannot create a map for the cross-check: {cause}; {cure}")
        })?;
        let mut map = Map::HashMap(data);
        let mut epoch: HashMap<&mut MapData, EpochKey, EpochValue> = (&mut map).try_into()?;
        let counts = |key: &EpochKey| self.has_segments || key.reason != contract::reason::SEGMENTS;
        for key in reason_keys().into_iter().filter(counts) {
            insert_zero(&mut epoch, key)
                .context("cannot add an entry to a map of the cross-check")?;
        }
        EpochMap::new(map)
    }
}

/// Tries again if there is no memory: the kernel takes it from a small reserve that it refills in the
/// background.
fn insert_zero(
    epoch: &mut HashMap<&mut MapData, EpochKey, EpochValue>,
    key: EpochKey,
) -> Result<()> {
    for _ in 0..MEMORY_TRIES {
        match epoch.insert(key, EpochValue::default(), 0) {
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOMEM) =>
            {
                std::thread::sleep(MEMORY_PAUSE);
            }
            inserted => return Ok(inserted?),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENOMEM).into())
}
