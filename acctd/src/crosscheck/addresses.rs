//! Further Ethernet addresses for which an interface accepts frames: those of its macvlan devices, in any
//! network namespace, and of its VLAN devices. At TC on the interface, their frames count as frames for another
//! host; the kernel delivers them afterwards.

use std::io;

use acctd_common::contract::AddressKey;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::tc_netlink;

/// `struct ndmsg` of `linux/neighbour.h`: its size and the offsets of its fields.
const NDMSG_BYTES: usize = 12;
const INDEX_AT: usize = 4;
const FLAGS_AT: usize = 10;
/// The entry belongs to the interface and not to its bridge.
const NTF_SELF: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// The addresses of the interface with this index, as the programs' map has them.
pub(crate) fn read(index: u32) -> io::Result<Vec<(AddressKey, u32)>> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    let request = RouteNetlinkMessage::GetNeighbour(message);
    let entries = tc_netlink::request_strict(request, NLM_F_REQUEST | NLM_F_DUMP, entry)?;
    let entries = entries.into_iter().flatten();
    let own = entries.filter(|key| key.device == index);
    Ok(own.map(|key| (key, 1)).collect())
}

/// A unicast address of the interface. A tunnel also lists remote addresses, each with its destination.
fn entry(message: &[u8]) -> io::Result<Option<AddressKey>> {
    let index = message.get(INDEX_AT..).and_then(tc_netlink::number);
    let is_own = message
        .get(FLAGS_AT)
        .is_some_and(|flags| flags & NTF_SELF != 0);
    let (Some(index), true) = (index, is_own) else {
        return Ok(None);
    };
    let mut address = None;
    for attribute in tc_netlink::attributes(message.get(NDMSG_BYTES..).unwrap_or_default()) {
        match attribute? {
            (NDA_DST, _) => return Ok(None),
            (NDA_LLADDR, value) => address = value.try_into().ok(),
            _ => {}
        }
    }
    let is_unicast = |address: &[u8; 6]| address[0] & 1 == 0;
    Ok(address.filter(is_unicast).map(|address| AddressKey {
        device: index,
        address,
        padding: [0; 2],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flags: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; NDMSG_BYTES];
        message[INDEX_AT] = 7;
        message[FLAGS_AT] = flags;
        for (kind, value) in attributes {
            let length = u16::try_from(4 + value.len()).unwrap();
            message.extend(length.to_ne_bytes());
            message.extend(kind.to_ne_bytes());
            message.extend(*value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        message
    }

    #[test]
    fn unicast_addresses_of_the_interface_itself_count() {
        let address = [2, 0, 0, 0, 0, 9];
        let wanted = AddressKey {
            device: u32::from_ne_bytes([7, 0, 0, 0]),
            address,
            padding: [0; 2],
        };
        let one = message(NTF_SELF, &[(NDA_LLADDR, &address)]);
        assert_eq!(entry(&one).unwrap(), Some(wanted));
        // Of the bridge, multicast, and of a tunnel's remote end.
        let others = [
            message(0, &[(NDA_LLADDR, &address)]),
            message(NTF_SELF, &[(NDA_LLADDR, &[0x33, 0x33, 0, 0, 0, 1])]),
            message(
                NTF_SELF,
                &[(NDA_LLADDR, &address), (NDA_DST, &[192, 0, 2, 1])],
            ),
        ];
        for other in others {
            assert_eq!(entry(&other).unwrap(), None);
        }
        for length in 0..one.len() {
            // No input causes a panic.
            let _lenient = entry(&one[..length]);
        }
        assert_eq!(read(1).unwrap(), [], "loopback has none");
    }
}
