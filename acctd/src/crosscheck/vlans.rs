//! The VLAN devices of this network namespace. The kernel discards tagged frames for any other VLAN, after TC
//! has seen them. So the program must know the devices.
//!
//! They are read over netlink, because only root can read the kernel's table in `/proc`.

use std::io;
use std::path::Path;

use acctd_common::contract::VlanKey;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};

use super::tc_netlink::{self, attributes, number};

/// The kernel's VLAN module creates it; without it there are no VLAN devices.
const TABLES: &str = "/proc/thread-self/net/vlan";

/// The size of `struct ifinfomsg`, and the offset of its index.
const IFINFOMSG_BYTES: usize = 16;
const INDEX_AT: usize = 4;
/// `linux/if_link.h`.
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;

/// The index of each VLAN device, by the device below and the VLAN id, as the programs' map has them.
pub(crate) fn read() -> io::Result<Vec<(VlanKey, u32)>> {
    if !Path::new(TABLES).exists() {
        return Ok(Vec::new());
    }
    let mut message = LinkMessage::default();
    // A router may have ten thousand other devices. An old kernel lists all of them.
    let kind = LinkInfo::Kind(InfoKind::Vlan);
    message.attributes = vec![
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        LinkAttribute::LinkInfo(vec![kind]),
    ];
    let request = RouteNetlinkMessage::GetLink(message);
    let devices = tc_netlink::request(request, NLM_F_REQUEST | NLM_F_DUMP, entry)?;
    Ok(devices.into_iter().flatten().collect())
}

/// The VLAN device of a link message, if the device below is in the same network namespace.
fn entry(message: &[u8]) -> io::Result<Option<(VlanKey, u32)>> {
    let index = message.get(INDEX_AT..).and_then(number);
    let (mut below, mut vlan) = (None, None);
    for attribute in attributes(message.get(IFINFOMSG_BYTES..).unwrap_or_default()) {
        match attribute? {
            (IFLA_LINK, value) => below = number(value),
            (IFLA_LINKINFO, info) => vlan = vlan_id(info)?,
            (IFLA_LINK_NETNSID, _) => return Ok(None),
            _ => {}
        }
    }
    let key = below.zip(vlan).map(|(device, vlan)| VlanKey {
        device,
        vlan: vlan.into(),
    });
    Ok(key.zip(index))
}

fn vlan_id(info: &[u8]) -> io::Result<Option<u16>> {
    let (mut is_vlan, mut id) = (false, None);
    for attribute in attributes(info) {
        match attribute? {
            (IFLA_INFO_KIND, kind) => is_vlan = kind.starts_with(b"vlan\0"),
            (IFLA_INFO_DATA, data) if is_vlan => {
                for attribute in attributes(data) {
                    if let (IFLA_VLAN_ID, value) = attribute? {
                        id = value.first_chunk().copied();
                    }
                }
            }
            _ => {}
        }
    }
    Ok(id.map(u16::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn link(index: u32, kind: &[u8], more: &[u8]) -> Vec<u8> {
        let mut message = vec![0; IFINFOMSG_BYTES];
        message[INDEX_AT..INDEX_AT + 4].copy_from_slice(&index.to_ne_bytes());
        // IFLA_IFNAME.
        message.extend(attribute(3, b"eth0.5\0"));
        message.extend(attribute(IFLA_LINK, &2_u32.to_ne_bytes()));
        let data = attribute(IFLA_VLAN_ID, &4094_u16.to_ne_bytes());
        let info = [
            attribute(IFLA_INFO_KIND, kind),
            attribute(IFLA_INFO_DATA, &data),
        ];
        message.extend(attribute(IFLA_LINKINFO, &info.concat()));
        message.extend(more);
        message
    }

    #[test]
    fn a_vlan_device_is_known_by_the_device_below_and_its_id() {
        let key = VlanKey {
            device: 2,
            vlan: 4094,
        };
        let vlan = link(7, b"vlan\0", &[]);
        assert_eq!(entry(&vlan).unwrap(), Some((key, 7)));
        // In another kind of device the attribute means something else.
        assert_eq!(entry(&link(7, b"macvlan\0", &[])).unwrap(), None);
        // The index is of another namespace.
        let elsewhere = attribute(IFLA_LINK_NETNSID, &0_u32.to_ne_bytes());
        assert_eq!(entry(&link(7, b"vlan\0", &elsewhere)).unwrap(), None);
        for length in 0..vlan.len() {
            // No input causes a panic.
            let _lenient = entry(&vlan[..length]);
        }
    }

    #[test]
    fn an_ordinary_user_can_read_them() {
        assert_eq!(read().unwrap().len(), n_vlan_devices());
    }

    /// From the kernel's table, which begins with two lines of headings.
    fn n_vlan_devices() -> usize {
        let table = std::fs::read_to_string("/proc/net/vlan/config").unwrap_or_default();
        table.lines().count().saturating_sub(2)
    }
}
