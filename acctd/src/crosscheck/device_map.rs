//! A map that tells the programs which devices exist.

use std::collections::HashMap;
use std::hash::Hash;

use anyhow::Result;
use aya::Pod;
use aya::maps::{Map, MapData};

/// The programs' map from `K` to a device.
#[derive(Debug)]
pub(crate) struct DeviceMap<K> {
    pub(crate) map: Map,
    /// A copy of the map's content.
    devices: HashMap<K, u32>,
}

impl<K: Pod + Eq + Hash> DeviceMap<K> {
    /// `map` must be empty.
    pub(crate) fn new(map: Map) -> Self {
        Self {
            map,
            devices: HashMap::new(),
        }
    }

    /// Replaces the map's content; returns whether it changed.
    pub(crate) fn refresh(&mut self, devices: impl IntoIterator<Item = (K, u32)>) -> Result<bool> {
        let devices: HashMap<K, u32> = devices.into_iter().collect();
        if devices == self.devices {
            return Ok(false);
        }
        let mut map: aya::maps::HashMap<&mut MapData, K, u32> = (&mut self.map).try_into()?;
        for (key, index) in &devices {
            map.insert(key, index, 0)?;
        }
        for key in self.devices.keys().filter(|key| !devices.contains_key(key)) {
            map.remove(key)?;
        }
        self.devices = devices;
        Ok(true)
    }
}
