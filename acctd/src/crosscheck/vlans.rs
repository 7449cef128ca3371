//! The VLAN devices of this network namespace. Tagged frames for any other VLAN are discarded by
//! the kernel, behind TC, so the program has to know.

use std::fs;
use std::io;

use acctd_common::contract::VlanKey;

/// Made by the kernel's VLAN module; without it there are no VLAN devices.
const TABLE: &str = "/proc/net/vlan/config";

/// The VLAN devices that there are: their names, and the device and id below.
pub fn read() -> io::Result<Vec<VlanDevice>> {
    match fs::read_to_string(TABLE) {
        Ok(table) => Ok(table.lines().filter_map(VlanDevice::parse).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// One VLAN device, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VlanDevice {
    name: String,
    vlan: u32,
    below: String,
}

impl VlanDevice {
    /// A line such as `eth0.5         | 5  | eth0`; others are headings.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split('|').map(str::trim);
        let (name, vlan, below) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self {
            name: name.to_owned(),
            vlan: vlan.parse().ok()?,
            below: below.to_owned(),
        })
    }

    /// The entry of the program's map, if both devices are still there.
    pub fn entry(&self, index_of: impl Fn(&str) -> Option<u32>) -> Option<(VlanKey, u32)> {
        let key = VlanKey {
            device: index_of(&self.below)?,
            vlan: self.vlan,
        };
        Some((key, index_of(&self.name)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read_without_its_headings() {
        let table = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                     eth0.5         | 5  | eth0\nuplink         | 4094  | eth0.5\n";
        let devices: Vec<VlanDevice> = table.lines().filter_map(VlanDevice::parse).collect();
        let indexes = |name: &str| match name {
            "eth0" => Some(2),
            "eth0.5" => Some(7),
            _ => None,
        };
        let key = VlanKey { device: 2, vlan: 5 };
        assert_eq!(devices.len(), 2);
        assert_eq!(devices[0].entry(indexes), Some((key, 7)));
        assert_eq!(devices[1].entry(indexes), None);
    }
}
