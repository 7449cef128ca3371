//! How interfaces change packets and their lengths.

use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::interface_facts::InterfaceFacts;
use crate::rules::devices::patterns_overlap;
use crate::rules::interfaces::BRIDGE_CALLS;
use crate::rules::ruleset::condition::{Key, Test, Value};
use crate::rules::ruleset::log_rule::LogRule;
use crate::rules::ruleset::model::Hook;

/// The kernel's default of all size limits: no packet is larger than the length field of its header allows.
const LARGEST: u32 = 65_536;
/// If these two change and are not above the default, the kernel also sets the limits of IPv4. So this works for both
/// families, even with an `ip` (before 6.3) that does not know the limits of IPv4.
const CURE: &str = "gso_max_size 65535 gro_max_size 65535";

pub(super) fn findings(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(big_tcp(config, &facts.links));
    all.extend(bridged(config, facts));
    all.extend(not_bridged(config, facts));
    all.extend(offloads(&facts.links));
    all.extend(tunnels(&facts.links));
    all.extend(vrfs(config, facts));
    all
}

/// A packet above 64 KiB has no length in its header, so its bytes are not counted.
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

fn offloads(facts: &InterfaceFacts) -> Option<Finding> {
    let on = facts.offloads.iter().filter(|(_, on)| !on.is_empty());
    let on: Vec<String> = on
        .map(|(name, on)| format!("{name} ({})", on.join(", ")))
        .collect();
    (!on.is_empty()).then(|| Finding {
        severity: Severity::Note,
        id: "offloads",
        what: format!(
            "offloads on {}: one counted packet may be several packets on the wire, and only its own headers are counted",
            on.join(", ")
        ),
        cure: "nothing, unless you bill packets or bytes on the wire: then --crosscheck-wire, or see docs/rules.md, 'Packets and offloads'".into(),
    })
}

/// Packets that a bridge switches between its ports, and that are counted as if they were received or forwarded.
fn bridged(config: &Config, facts: &Facts) -> Option<Finding> {
    let ruleset = facts.ruleset.as_ref().ok()?;
    let is_own = |rule: &&LogRule| {
        let mut groups = config.groups.iter();
        groups.any(|group| {
            let family = group.prefix_length.family();
            group.group.0 == rule.group
                && rule.families.contains(&family.version())
                && facts.links.bridged_families.contains(&family)
        })
    };
    let mut found: Vec<(&str, u16)> = Vec::new();
    for bridge in facts.links.links.iter().filter(|it| it.kind == "bridge") {
        let ports = facts.interfaces.iter();
        let ports = ports.filter(|it| it.is_up && it.master("bridge") == Some(&bridge.name));
        // A bridge with one port switches nothing.
        if ports.count() < 2 {
            continue;
        }
        let rules = ruleset.log_rules.iter().filter(is_own);
        let seen = rules.filter(|rule| {
            !rule.is_bridge && BRIDGED.contains(&rule.hook) && sees(rule, &bridge.name)
        });
        found.extend(seen.map(|rule| (bridge.name.as_str(), rule.group)));
    }
    found.sort_unstable();
    found.dedup();
    let (bridge, _) = *found.first()?;
    let mut groups: Vec<u16> = found.iter().map(|(_, group)| *group).collect();
    groups.sort_unstable();
    groups.dedup();
    let groups: Vec<String> = groups.iter().map(u16::to_string).collect();
    let names = BRIDGE_CALLS.iter().filter(|(family, _)| {
        let mut groups = config.groups.iter();
        facts.links.bridged_families.contains(family)
            && groups.any(|group| group.prefix_length.family() == *family)
    });
    let names: Vec<&str> = names.map(|(_, name)| *name).collect();
    let settings = names.iter().map(|name| format!(" net.bridge.{name}=0"));
    Some(Finding {
        severity: Severity::Warning,
        id: "bridge-nf-call",
        what: format!(
            "{} is 1: packets from port to port of {bridge} also pass the IP rules, and are counted (group {})",
            names.join(" and "),
            groups.join(", ")
        ),
        cure: format!(
            "sysctl -w{}, and the same in /etc/sysctl.d; Docker and Kubernetes require 1: see docs/rules.md",
            settings.collect::<String>()
        ),
    })
}

/// A bridge's forward chain of the very priority of `br_netfilter` (`NF_BR_PRI_BRNF`): older kernels go on behind it.
/// Seen on Linux 5.10 and 6.1, and no more on 6.12.
fn not_bridged(config: &Config, facts: &Facts) -> Option<Finding> {
    const GOES_ON_WITH_IT: (u32, u32) = (6, 12);
    let ruleset = facts.ruleset.as_ref().ok()?;
    let is_own = |rule: &&LogRule| config.groups.iter().any(|it| it.group.0 == rule.group);
    let is_behind =
        |rule: &&LogRule| rule.is_bridge && rule.hook == Hook::Forward && rule.priority == 0;
    let mut rules = ruleset.log_rules.iter().filter(is_own);
    let rule = rules.find(is_behind)?;
    if facts.links.bridged_families.is_empty() || facts.kernel.version >= GOES_ON_WITH_IT {
        return None;
    }
    Some(Finding {
        severity: Severity::Warning,
        id: "bridge-priority",
        what: format!(
            "with br_netfilter this kernel calls no bridge chain of priority 0 on forward: {} may log nothing (group {})",
            rule.quote, rule.group
        ),
        cure: "give the chain another priority, such as -200 (filter)".into(),
    })
}

/// With `br_netfilter`, frames from port to port pass these hooks; their interface is the bridge.
const BRIDGED: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

/// Whether the rule logs all packets of this interface. A condition that doctor does not understand may exclude them.
fn sees(rule: &LogRule, interface: &str) -> bool {
    let is_it = |value: &Value| match value {
        Value::Word(name) => patterns_overlap(name, interface),
        _ => false,
    };
    rule.conditions.matches.iter().all(|it| match it.key {
        Key::InInterface | Key::OutInterface => match &it.test {
            Test::In(names) => names.iter().any(is_it),
            Test::NotIn(names) => !names.iter().any(is_it),
            Test::Opaque => false,
        },
        Key::Spread => true,
        _ => false,
    })
}

/// A packet that a port of a VRF receives passes prerouting as the port's, and again as the VRF's. One that the host
/// sends passes output and postrouting as the VRF's, and again as the port's.
fn vrfs(config: &Config, facts: &Facts) -> Option<Finding> {
    const TWICE: [Hook; 3] = [Hook::Prerouting, Hook::Output, Hook::Postrouting];
    let ruleset = facts.ruleset.as_ref().ok()?;
    let is_own = |rule: &&LogRule| {
        let mut groups = config.groups.iter();
        TWICE.contains(&rule.hook) && groups.any(|group| group.group.0 == rule.group)
    };
    let ports = facts.interfaces.iter();
    let ports = ports.filter_map(|port| Some((port.name.as_str(), port.master("vrf")?)));
    let (rule, port, vrf) = ports
        .flat_map(|(port, vrf)| {
            let rules = ruleset.log_rules.iter().filter(is_own);
            rules.map(move |rule| (rule, port, vrf))
        })
        .find(|(rule, port, vrf)| sees(rule, port) && sees(rule, vrf))?;
    let hook = rule.hook.name();
    let condition = match rule.hook {
        Hook::Prerouting => "iifname",
        _ => "oifname",
    };
    Some(Finding {
        severity: Severity::Warning,
        id: "vrf",
        what: format!(
            "a packet of {port} passes {hook} twice, as packet of {port} and of its VRF {vrf}, and is counted twice (group {})",
            rule.group
        ),
        cure: format!("add to the rule: {condition} != {vrf}"),
    })
}

/// Link types whose packets travel inside other IP packets. Both pass the rules.
const TUNNELS: [&str; 17] = [
    "bareudp",
    "erspan",
    "geneve",
    "gre",
    "gretap",
    "gtp",
    "ip6erspan",
    "ip6gre",
    "ip6gretap",
    "ip6tnl",
    "ipip",
    "sit",
    "vti",
    "vti6",
    "vxlan",
    "wireguard",
    "xfrm",
];

fn tunnels(facts: &InterfaceFacts) -> Option<Finding> {
    let up = facts.links.iter().filter(|link| link.is_up);
    let tunnels = up.filter(|link| TUNNELS.contains(&link.kind.as_str()));
    let tunnels: Vec<String> = tunnels
        .map(|link| format!("{} ({})", link.name, link.kind))
        .collect();
    (!tunnels.is_empty()).then(|| Finding {
        severity: Severity::Note,
        id: "tunnel",
        what: format!(
            "a packet through {} is two packets, the inner one and its carrier: rules without an interface log both",
            tunnels.join(", ")
        ),
        cure: "in the rules, name the interface whose packets you bill: see docs/rules.md, 'Tunnels'".into(),
    })
}
