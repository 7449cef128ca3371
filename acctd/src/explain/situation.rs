//! What `acctd explain` knows of the machine besides the packets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::prefix::Family;
use crate::rules::interfaces::Interface;
use crate::rules::ruleset::log_rule::Ruleset;

#[derive(Debug)]
pub(super) struct Situation {
    pub(super) ruleset: Ruleset,
    pub(super) interfaces: Vec<Interface>,
    /// IPv4 and IPv6.
    pub(super) forwarding: [bool; 2],
    /// The families whose bridged packets also pass the IP rules.
    pub(super) bridged_families: Vec<Family>,
    /// VLAN devices: the device below, the VLAN, the name.
    pub(super) vlans: Vec<(String, u16, String)>,
    /// The table of connection tracking, if there is a flowtable and the kernel shows the table.
    pub(super) connections: String,
    /// How many packets the IP stack discarded during the sample, by counter.
    pub(super) discarded: BTreeMap<String, u64>,
}

impl Situation {
    pub(super) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.name == name)
    }

    pub(super) fn forwards(&self, family: Family) -> bool {
        match family {
            Family::Ip4 => self.forwarding[0],
            Family::Ip6 => self.forwarding[1],
        }
    }

    /// Whether packets to this address are for this host.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        let mut own = self.interfaces.iter().flat_map(|it| &it.addresses);
        let is_broadcast = address == IpAddr::from([255, 255, 255, 255]);
        address.is_multicast()
            || is_broadcast
            || own.any(|own| own.addr() == address || own.broadcast() == address)
    }
}
