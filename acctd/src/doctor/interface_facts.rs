//! What doctor knows of interfaces beside what `ip` prints.

use crate::config::Config;
use crate::doctor::links::{self, Link};
use crate::model::prefix::Family;
use crate::rules::interfaces;

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
        Self {
            offloads: offloads.collect(),
            bridged_families: interfaces::bridged_families(),
            links,
        }
    }
}
