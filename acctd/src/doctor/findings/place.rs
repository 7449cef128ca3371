//! Rules on a hook where packets have another address than the accounted one, and rules for interfaces that have no
//! packets there.

use std::sync::Arc;

use super::causes::{Causes, Cure};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Severity;
use crate::model::group::GroupConfig;
use crate::model::prefix::Side;
use crate::rules::devices::patterns_overlap;
use crate::rules::interfaces::Master;
use crate::rules::ruleset::condition::{Conditions, Key};
use crate::rules::ruleset::log_rule::{LogRule, Nat, Ruleset};
use crate::rules::ruleset::model::Hook;

/// `NF_IP_PRI_NAT_DST` of `linux/netfilter_ipv4.h`.
const DEST_NAT: i64 = -100;
/// `NF_IP_PRI_NAT_SRC` of `linux/netfilter_ipv4.h`.
const SOURCE_NAT: i64 = 100;

pub(super) fn wrong_place(
    group: &GroupConfig,
    facts: &Facts,
    ruleset: &Ruleset,
    rule: &LogRule,
    causes: &mut Causes,
) {
    let hook = rule.hook.name();
    let mut warn = |id, what: String, cure: &str| {
        let cure = Cure::Text(cure.to_owned());
        causes.add((Severity::Warning, id), group, Some(rule), what, cure);
    };
    let nat = |is_met: &dyn Fn(&Nat) -> bool| ruleset.nats.iter().find(|nat| is_met(nat));
    match (group.side, rule.hook) {
        (Side::Source, Hook::Output) => warn(
            "wrong-hook",
            "the source is accounted, and the rule logs what this host sends: all packets are counted for its own addresses".into(),
            "read the group with --ip4-dst-group or --ip6-dst-group, or log on input",
        ),
        (Side::Dest, Hook::Input) => warn(
            "wrong-hook",
            "the destination is accounted, and the rule logs what this host receives: all packets are counted for its own addresses".into(),
            "read the group with --ip4-src-group or --ip6-src-group, or log on output",
        ),
        (Side::Source, Hook::Postrouting | Hook::Egress)
            if rule.hook == Hook::Egress || rule.priority >= SOURCE_NAT =>
        {
            let own = rule.conditions.interfaces();
            let is_met = |nat: &Nat| nat.is_source && nat.conditions.overlap(&own);
            if let Some(nat) = nat(&is_met) {
                let quote = &nat.quote;
                warn(
                    "address-after-nat",
                    format!("the source is accounted, and the rule logs on {hook} after {quote}: translated packets are counted for the router's address"),
                    "log on prerouting or forward: acctd rules router --lan …",
                );
            }
        }
        (Side::Dest, Hook::Prerouting | Hook::Ingress) if rule.priority < DEST_NAT => {
            let own = rule.conditions.interfaces();
            let is_met = |nat: &Nat| comes_back(nat, &own);
            if let Some(nat) = nat(&is_met) {
                let quote = &nat.quote;
                warn(
                    "address-before-nat",
                    format!("the destination is accounted, and the rule logs on {hook} before {quote} is applied or reversed: translated packets are counted for the router's address"),
                    "log on forward or on the egress hook: acctd rules router --lan …",
                );
            }
        }
        _ => {}
    }
    interfaces(group, facts, rule, causes);
}

/// Whether packets that `nat` translates on their way in arrive on the interfaces of `own`: for source NAT the replies,
/// for destination NAT the packets themselves.
fn comes_back(nat: &Nat, own: &Conditions) -> bool {
    if !nat.is_source {
        return nat.conditions.overlap(own);
    }
    let mut mirrored = own.clone();
    for found in &mut mirrored.matches {
        let mut other = (**found).clone();
        other.key = match other.key {
            Key::InInterface => Key::OutInterface,
            Key::OutInterface => Key::InInterface,
            key => key,
        };
        *found = Arc::new(other);
    }
    nat.conditions.overlap(&mirrored)
}

fn interfaces(group: &GroupConfig, facts: &Facts, rule: &LogRule, causes: &mut Causes) {
    // Without the program ip, no interface is known.
    if facts.interfaces.is_empty() {
        return;
    }
    for (key, names) in rule.interfaces() {
        let is_there = |name: &&str| {
            facts
                .interfaces
                .iter()
                .any(|it| patterns_overlap(&it.name, name))
        };
        if !names.iter().any(is_there) {
            let list = names.join(", ");
            // A pattern may be for interfaces that exist only at times.
            let severity = if names.iter().all(|name| name.ends_with('*')) {
                Severity::Note
            } else {
                Severity::Warning
            };
            causes.add(
                (severity, "no-such-interface"),
                group,
                Some(rule),
                format!("only packets of {list} are logged, and there is no such interface"),
                Cure::Text(
                    "name an interface that exists ('ip -br link' lists all): acctd rules router --lan …".into(),
                ),
            );
            continue;
        }
        for name in names {
            let Some(interface) = facts.interface(name) else {
                continue;
            };
            let Some(master) = &interface.port_of else {
                continue;
            };
            if rule.is_bridge || matches!(rule.hook, Hook::Ingress | Hook::Egress) {
                continue;
            }
            let Master { name: of, kind } = master;
            let (id, cure) = match kind.as_str() {
                "bridge" => (
                    "port-of-bridge",
                    format!(
                        "name {of} in the rule, or log bridged packets: acctd rules bridge --lan {name}"
                    ),
                ),
                "bond" | "team" => ("port-of-bond", format!("name {of} in the rule")),
                // Before and behind its own hooks a packet is the port's.
                "vrf"
                    if key.key == Key::InInterface
                        && matches!(rule.hook, Hook::Input | Hook::Forward) =>
                {
                    (
                        "port-of-vrf",
                        format!("log on prerouting, or name {of} in the rule"),
                    )
                }
                _ => continue,
            };
            causes.add(
                (Severity::Warning, id),
                group,
                Some(rule),
                format!("only packets of {name} are logged, but it is a port of {of}: IP rules on {hook} see only {of}", hook = rule.hook.name()),
                Cure::Text(cure),
            );
        }
    }
}
