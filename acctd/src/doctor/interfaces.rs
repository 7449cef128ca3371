//! What interfaces do to packets and to their lengths: facts, and findings, which are pure.

use super::findings::{Finding, Severity};
use super::links::{self, Link};
use crate::config::Config;

/// The kernel's own default of all settings: no packet is larger than its header can say.
const LARGEST: u32 = 65_536;
/// The cure. The kernel sets the limits of IPv4 with these two, if they change and are no larger than the default: so
/// this cures both families, also with an `ip` (before 6.3) that does not know those of IPv4.
const CURE: &str = "gso_max_size 65535 gro_max_size 65535";

/// What is to be known of interfaces beside what `ip` says.
#[derive(Clone, Debug, Default)]
pub struct InterfaceFacts {
    /// All interfaces; none where the kernel does not say.
    pub links: Vec<Link>,
    /// The offloads that are on at those interfaces that are up, where ethtool says it; only with `--verbose`.
    pub offloads: Vec<(String, Vec<&'static str>)>,
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
        Self {
            offloads: offloads.collect(),
            links,
        }
    }
}

/// All that is wrong with them.
#[must_use]
pub fn findings(config: &Config, facts: &InterfaceFacts) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(big_tcp(config, facts));
    all.extend(offloads(facts));
    all
}

/// Packets whose length no header gives.
fn big_tcp(config: &Config, facts: &InterfaceFacts) -> Option<Finding> {
    let is_counted = |family| {
        let mut groups = config.groups.iter();
        groups.any(|group| group.prefix_length.family() == family)
    };
    let mut found = Vec::new();
    let mut cures = Vec::new();
    for link in facts.links.iter().filter(|link| link.is_up) {
        let above = link
            .max_sizes
            .iter()
            .filter(|(setting, size)| *size > LARGEST && is_counted(setting.family));
        let above: Vec<_> = above.collect();
        if above.is_empty() {
            continue;
        }
        let settings = above.iter().map(|(it, size)| format!("{} {size}", it.name));
        let settings: Vec<String> = settings.collect();
        found.push(format!("{} ({})", link.name, settings.join(", ")));
        cures.push(format!("ip link set {} {CURE}", link.name));
    }
    (!found.is_empty()).then(|| Finding {
        severity: Severity::Warning,
        id: "big-tcp",
        what: format!(
            "BIG TCP: packets above 64 KiB on {} have no length in their header, and add 0 bytes to the rows",
            found.join(", ")
        ),
        cure: cures.join("; "),
    })
}

/// Not wrong: what a packet is.
fn offloads(facts: &InterfaceFacts) -> Option<Finding> {
    let on = facts.offloads.iter().filter(|(_, on)| !on.is_empty());
    let on: Vec<String> = on
        .map(|(name, on)| format!("{name} ({})", on.join(", ")))
        .collect();
    (!on.is_empty()).then(|| Finding {
        severity: Severity::Note,
        id: "offloads",
        what: format!(
            "offloads on {}: what is counted as one packet may be many on the wire, with the headers of one",
            on.join(", ")
        ),
        cure: "nothing, unless packets or bytes of the wire are billed: see docs/rules.md, 'Packets and offloads'".into(),
    })
}
