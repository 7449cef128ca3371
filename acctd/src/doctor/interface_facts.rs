//! What is to be known of one interface.

use std::fs;

use crate::config::Config;
use crate::doctor::links;
use crate::doctor::links::Link;
use crate::model::prefix::Family;

/// What is to be known of interfaces beside what `ip` says.
#[derive(Clone, Debug, Default)]
pub struct InterfaceFacts {
    /// All interfaces; none where the kernel does not say.
    pub links: Vec<Link>,
    /// The offloads that are on at those interfaces that are up, where ethtool says it; only with `--verbose`.
    pub offloads: Vec<(String, Vec<&'static str>)>,
    /// The families whose bridged packets pass the rules of IP too (`bridge-nf-call-iptables`).
    pub bridged_families: Vec<Family>,
}

impl InterfaceFacts {
    /// Looks around.
    #[must_use]
    pub fn gather(config: &Config) -> Self {
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
