//! The Ethernet addresses for which an interface takes frames besides its own: macvlan devices, be they here or in
//! another network namespace, and VLAN devices with an address of their own have them put on its list. To TC on the
//! interface their frames are for another host; behind it they are not.

use std::io;

use acctd_common::contract::AddressKey;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::tc_netlink;

/// `struct ndmsg` of `linux/neighbour.h`: where its fields are.
const NDMSG_BYTES: usize = 12;
const INDEX_AT: usize = 4;
const FLAGS_AT: usize = 10;
/// The entry is the interface's own, and not its bridge's.
const NTF_SELF: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

/// Those of the interface with this index, as the programs' map has them.
pub fn read(index: u32) -> io::Result<Vec<(AddressKey, u32)>> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    let request = RouteNetlinkMessage::GetNeighbour(message);
    let entries = tc_netlink::ask_strictly(request, NLM_F_REQUEST | NLM_F_DUMP, entry)?;
    let entries = entries.into_iter().flatten();
    let own = entries.filter(|key| key.device == index);
    Ok(own.map(|key| (key, 1)).collect())
}

/// A unicast address on the interface's own list. Tunnels list what is behind them, with where that is.
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
        // Of its bridge, multicast, and behind a tunnel.
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
            // Whatever it is, no panic.
            let _lenient = entry(&one[..length]);
        }
        assert_eq!(read(1).unwrap(), [], "loopback has none");
    }
}
