//! What interfaces do to packets and to their lengths.

use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Finding, Severity};
use crate::doctor::interface_facts::{BRIDGE_CALLS, InterfaceFacts};
use crate::rules::devices::match_alike;
use crate::rules::ruleset::condition::{Key, Test, Value};
use crate::rules::ruleset::log_rule::LogRule;
use crate::rules::ruleset::model::Hook;

/// The kernel's own default of all settings: no packet is larger than its header can say.
const LARGEST: u32 = 65_536;
/// The cure. The kernel sets the limits of IPv4 with these two, if they change and are no larger than the default: so
/// this cures both families, also with an `ip` (before 6.3) that does not know those of IPv4.
const CURE: &str = "gso_max_size 65535 gro_max_size 65535";

/// All that is wrong with them.
#[must_use]
pub(super) fn findings(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(big_tcp(config, &facts.links));
    all.extend(bridged(config, facts));
    all.extend(offloads(&facts.links));
    all.extend(tunnels(&facts.links));
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

/// What stays in a bridge and is counted as if it were forwarded, or came in.
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
        let ports = ports.filter(|it| it.is_up && it.bridge.as_ref() == Some(&bridge.name));
        // Between two ports at the least.
        if ports.count() < 2 {
            continue;
        }
        let rules = ruleset.log_rules.iter().filter(is_own);
        let seen = rules.filter(|rule| sees_bridged(rule, &bridge.name));
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
            "{} is 1: what goes from port to port of {bridge} passes the rules of IP too, and is counted (group {})",
            names.join(" and "),
            groups.join(", ")
        ),
        cure: format!(
            "sysctl -w{}, and the same in /etc/sysctl.d; Docker and Kubernetes want it to be 1: see docs/rules.md",
            settings.collect::<String>()
        ),
    })
}

/// Frames from port to port pass these hooks as what comes in by the bridge and goes out by it.
fn sees_bridged(rule: &LogRule, bridge: &str) -> bool {
    let is_on_the_way = matches!(
        rule.hook,
        Hook::Prerouting | Hook::Forward | Hook::Postrouting
    );
    let is_of_bridge = |value: &Value| match value {
        Value::Word(name) => match_alike(name, bridge),
        _ => false,
    };
    // Nothing that is not understood: it may be what leaves them out.
    is_on_the_way
        && !rule.is_bridge
        && rule.conditions.matches.iter().all(|it| match it.key {
            Key::InInterface | Key::OutInterface => match &it.test {
                Test::In(names) => names.iter().any(is_of_bridge),
                Test::NotIn(names) => !names.iter().any(is_of_bridge),
                Test::Opaque => false,
            },
            Key::Spread => true,
            _ => false,
        })
}

/// Kinds whose packets travel inside of others of IP, both of which pass rules.
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
            "what goes through {} is two packets, the inner one and the one that carries it: rules that name no interface log both",
            tunnels.join(", ")
        ),
        cure: "name the interface whose packets are billed in the rules: see docs/rules.md, 'Tunnels'".into(),
    })
}
