//! Packets that match two rules of one direction: each is counted twice. Reported only if it is certain.

use std::sync::Arc;

use super::causes::group_list;
use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::Findings;
use crate::model::group::GroupConfig;
use crate::model::prefix::{Family, Side};
use crate::rules::devices::patterns_overlap;
use crate::rules::ruleset::condition::{Conditions, Key};
use crate::rules::ruleset::log_rule::{LogRule, Reach, Ruleset};
use crate::rules::ruleset::model::Hook;

pub(super) fn duplicates(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    // What is wrong, the cure, and the groups.
    let mut found: Vec<(String, String, Vec<GroupConfig>)> = Vec::new();
    for side in [Side::Source, Side::Dest] {
        for family in [Family::Ip4, Family::Ip6] {
            let is_of =
                |group: &&GroupConfig| group.side == side && group.prefix_length.family() == family;
            let groups: Vec<GroupConfig> = config.groups.iter().filter(is_of).copied().collect();
            let Some((first, second)) = pair(family, &groups, facts, ruleset) else {
                continue;
            };
            let (what, cure) = if Arc::ptr_eq(&first.quote, &second.quote) {
                let what = format!("packets reach {} twice", first.quote);
                (what, "remove one of the jumps to its chain".to_owned())
            } else {
                let what = format!("packets match {} and then {}", first.quote, second.quote);
                let removal = second.quote.removal();
                let cure = removal.unwrap_or_else(|| "remove one of the rules".into());
                (what, cure)
            };
            let numbers = [first.group, second.group];
            let met = groups.iter().filter(|it| numbers.contains(&it.group.0));
            match found.iter_mut().find(|(other, ..)| *other == what) {
                Some((.., known)) => known.extend(met),
                None => found.push((what, cure, met.copied().collect())),
            }
        }
    }
    for (what, cure, groups) in found {
        let numbers: Vec<u16> = groups.iter().map(|it| it.group.0).collect();
        let what = format!("{}: {what}: each is counted twice", group_list(&numbers));
        all.error("logged-twice", what, cure);
    }
}

/// Two rules that one packet matches, in the order of its path.
fn pair<'r>(
    family: Family,
    groups: &[GroupConfig],
    facts: &Facts,
    ruleset: &'r Ruleset,
) -> Option<(&'r LogRule, &'r LogRule)> {
    let version = family.version();
    let is_of = |rule: &&LogRule| {
        groups.iter().any(|it| it.group.0 == rule.group)
            && rule.families.contains(&version)
            && !matches!(
                rule.reach(family),
                Reach::NeverMatches(_) | Reach::AllStopped(_)
            )
    };
    // `log_rules` is in the order of hooks and priorities.
    let rules: Vec<&LogRule> = ruleset.log_rules.iter().filter(is_of).collect();
    rules.iter().enumerate().find_map(|(at, second)| {
        let first = rules[..at]
            .iter()
            .find(|first| match_same_packet(first, second, family, facts))?;
        Some((*first, *second))
    })
}

fn match_same_packet(first: &LogRule, second: &LogRule, family: Family, facts: &Facts) -> bool {
    if first.is_bridge != second.is_bridge {
        let (bridge, ip) = if first.is_bridge {
            (first, second)
        } else {
            (second, first)
        };
        return match_over_bridge(bridge, ip, facts);
    }
    let one = first.conditions.of(family);
    let other = second.conditions.of(family);
    first.hook.shares_path_with(second.hook)
        && one.overlap(&other)
        && (one.are_within(&other)
            || other.are_within(&one)
            || (are_of_interfaces(&one) && are_of_interfaces(&other)))
        && !is_stopped_between(&one.and(&other), second)
}

/// Whether a verdict stops all packets of both rules before the second, as `log group 5 accept` does.
fn is_stopped_between(both: &Conditions, second: &LogRule) -> bool {
    let mut obstacles = second.obstacles.iter();
    obstacles.any(|it| both.are_within(&it.conditions) && second.hook.paths().are_within(it.paths))
}

fn are_of_interfaces(conditions: &Conditions) -> bool {
    let mut keys = conditions.matches.iter().map(|it| &it.key);
    keys.all(|key| matches!(key, Key::InInterface | Key::OutInterface))
}

/// A packet that arrives on a port and goes up to IP passes the hooks of the bridge and of IP.
fn match_over_bridge(bridge: &LogRule, ip: &LogRule, facts: &Facts) -> bool {
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let key = match (bridge.hook, ip.hook) {
        (Prerouting | Input, Prerouting | Input | Forward) => Key::InInterface,
        (Output | Postrouting, Output | Forward | Postrouting) => Key::OutInterface,
        _ => return false,
    };
    let allows = |rule: &LogRule, name: &str| {
        let mut matches = rule.conditions.matches.iter();
        matches.all(|it| {
            it.key == key
                && it
                    .words()
                    .is_some_and(|words| words.iter().any(|it| patterns_overlap(it, name)))
        })
    };
    let mut ports = facts.interfaces.iter();
    ports.any(|port| {
        port.master("bridge")
            .is_some_and(|name| allows(bridge, &port.name) && allows(ip, name))
    })
}
