//! The interfaces of this network namespace, by netlink, because `ip` of Debian 12 does not print all GSO and GRO
//! sizes.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};

use crate::crosscheck::tc_netlink::{self, attributes, number, text};
use crate::model::prefix::Family;
use crate::rules::external;

/// `struct ifinfomsg`, and the offset of its flags.
const IFINFOMSG_BYTES: usize = 16;
const FLAGS_AT: usize = 8;
/// `linux/if.h`.
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
/// `linux/if_link.h`.
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_GRO_MAX_SIZE: u16 = 58;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;
const IFLA_INFO_KIND: u16 = 1;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) name: String,
    /// Administratively up.
    pub(crate) is_up: bool,
    pub(crate) is_loopback: bool,
    /// The kernel's name of the link type (`veth`, `vxlan`, `bridge`); empty for hardware.
    pub(crate) kind: String,
    /// Limits of the packet size in bytes, as far as this kernel has them.
    pub(crate) max_sizes: Vec<(MaxSize, u32)>,
}

/// A setting of `ip link`: how large a packet may be that the kernel merges (GRO) or has yet to split (GSO).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MaxSize {
    /// As in `ip link set`.
    pub(crate) name: &'static str,
    pub(crate) family: Family,
}

/// By netlink attribute.
const MAX_SIZES: [(u16, MaxSize); 4] = [
    (IFLA_GSO_MAX_SIZE, max_size("gso_max_size", Family::Ip6)),
    (IFLA_GRO_MAX_SIZE, max_size("gro_max_size", Family::Ip6)),
    (
        IFLA_GSO_IPV4_MAX_SIZE,
        max_size("gso_ipv4_max_size", Family::Ip4),
    ),
    (
        IFLA_GRO_IPV4_MAX_SIZE,
        max_size("gro_ipv4_max_size", Family::Ip4),
    ),
];

const fn max_size(name: &'static str, family: Family) -> MaxSize {
    MaxSize { name, family }
}

pub(crate) fn read() -> io::Result<Vec<Link>> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let request = RouteNetlinkMessage::GetLink(message);
    tc_netlink::request(request, NLM_F_REQUEST | NLM_F_DUMP, link)
}

fn link(message: &[u8]) -> io::Result<Link> {
    let flags = message.get(FLAGS_AT..).and_then(number).unwrap_or(0);
    let mut link = Link {
        is_up: flags & IFF_UP != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        ..Link::default()
    };
    for attribute in attributes(message.get(IFINFOMSG_BYTES..).unwrap_or_default()) {
        let (kind, value) = attribute?;
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINKINFO => {
                for info in attributes(value) {
                    if let (IFLA_INFO_KIND, kind) = info? {
                        link.kind = text(kind);
                    }
                }
            }
            _ => {
                let known = MAX_SIZES.iter().find(|(attribute, _)| *attribute == kind);
                if let Some(((_, setting), size)) = known.zip(number(value)) {
                    link.max_sizes.push((*setting, size));
                }
            }
        }
    }
    Ok(link)
}

/// The active offloads that merge or split packets; `None` if ethtool does not say.
pub(crate) fn offloads(name: &str) -> Option<Vec<&'static str>> {
    /// ethtool's name, and the usual one.
    const OFFLOADS: [(&str, &str); 4] = [
        ("tcp-segmentation-offload", "TSO"),
        ("generic-segmentation-offload", "GSO"),
        ("generic-receive-offload", "GRO"),
        ("large-receive-offload", "LRO"),
    ];
    let text = external::run("ethtool", &["-k", name], "").ok()?;
    let is_on = |offload: &str| {
        let mut settings = text.lines().filter_map(|line| line.trim().split_once(": "));
        settings.any(|(name, value)| name == offload && value.starts_with("on"))
    };
    let on = OFFLOADS.iter().filter(|(name, _)| is_on(name));
    Some(on.map(|(_, short)| *short).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_loopback_and_its_sizes() {
        let links = read().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.is_loopback && lo.kind.is_empty(), "{lo:?}");
        let sizes = lo.max_sizes.iter().map(|(setting, _)| setting.name);
        assert!(sizes.clone().any(|name| name == "gso_max_size"), "{lo:?}");
        assert_eq!(link(&[]).unwrap(), Link::default());
    }
}
