//! A map by which the programs know of devices, and what it holds.

use std::collections::HashMap;
use std::hash::Hash;

use anyhow::Result;
use aya::Pod;
use aya::maps::{Map, MapData};

/// The programs' map from `K` to a device.
#[derive(Debug)]
pub struct DeviceMap<K> {
    /// It, to be pinned.
    pub map: Map,
    devices: HashMap<K, u32>,
}

impl<K: Pod + Eq + Hash> DeviceMap<K> {
    /// One that is empty.
    #[must_use]
    pub fn new(map: Map) -> Self {
        Self {
            map,
            devices: HashMap::new(),
        }
    }

    /// Has it hold these; returns whether that is a change.
    pub fn refresh(&mut self, devices: impl IntoIterator<Item = (K, u32)>) -> Result<bool> {
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
