//! What doctor knows of interfaces beside what `ip` prints.

use std::fs;

use crate::config::Config;
use crate::doctor::links::{self, Link};
use crate::model::prefix::Family;

#[derive(Clone, Debug, Default)]
pub(crate) struct InterfaceFacts {
    /// All interfaces; empty if the kernel does not answer.
    pub(crate) links: Vec<Link>,
    /// Per interface that is up, the offloads that are on. Only with `--verbose` and ethtool.
    pub(crate) offloads: Vec<(String, Vec<&'static str>)>,
    /// The families whose bridged packets also pass the IP rules (`bridge-nf-call-iptables`).
    pub(crate) bridged_families: Vec<Family>,
}

impl InterfaceFacts {
    pub(crate) fn gather(config: &Config) -> Self {
        let links = links::read().unwrap_or_default();
        let up = links.iter().filter(|link| link.is_up && !link.is_loopback);
        let offloads = up.filter(|_| config.verbose).filter_map(|link| {
            let on = links::offloads(&link.name)?;
            Some((link.name.clone(), on))
        });
        let is_set = |name: &str| {
            fs::read_to_string(format!("/proc/sys/net/bridge/{name}"))
                .is_ok_and(|value| value.trim() != "0")
        };
        let calls = BRIDGE_CALLS.iter().filter(|(_, name)| is_set(name));
        Self {
            offloads: offloads.collect(),
            bridged_families: calls.map(|(family, _)| *family).collect(),
            links,
        }
    }
}

/// The settings of `br_netfilter`, below `net.bridge`.
pub(super) const BRIDGE_CALLS: [(Family, &str); 2] = [
    (Family::Ip4, "bridge-nf-call-iptables"),
    (Family::Ip6, "bridge-nf-call-ip6tables"),
];
