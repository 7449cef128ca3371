//! The rules that log to acctd's groups.

use super::causes::{Causes, Cure};
use super::{coverage, duplicates, place, reach};
use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::{Findings, Severity};
use crate::model::group::GroupConfig;
use crate::model::prefix::Family;
use crate::nflog::socket::copy_range;
use crate::rules::ruleset::log_rule::{LogRule, Ruleset};

/// With smaller batches, acctd wakes up too often to be cheap.
const SMALL_THRESHOLD: u32 = 10;

pub(super) fn rules(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    for unreadable in &ruleset.unreadable {
        let what = &unreadable.what;
        all.warning(
            "rules-unreadable",
            format!("some rules cannot be read: {what}"),
            unreadable.cure.clone(),
        );
    }
    let mut causes = Causes::default();
    for group in &config.groups {
        rules_of_group(group, facts, ruleset, &mut causes);
    }
    causes.report(all);
    duplicates::duplicates(config, facts, ruleset, all);
    coverage::forwarded(config, facts, ruleset, all);
    bypasses(config, facts, ruleset, all);
    unread_groups(config, facts, ruleset, all);
}

/// nft and iptables-save require `CAP_NET_ADMIN`.
pub(super) fn cure_of_unreadable(facts: &Facts) -> String {
    let is_admin = facts
        .capabilities
        .contains(rustix::thread::CapabilitySet::NET_ADMIN);
    if is_admin {
        "follow the message; 'nft -j list ruleset' must work".into()
    } else {
        "run acctd doctor as root".into()
    }
}

/// Packets that no rule can log, and a family that no group counts.
fn bypasses(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    for name in &ruleset.flowtables {
        all.warning(
            "flowtable",
            format!("flowtable {name}: after the first few packets, a flow passes no rule"),
            "remove the rule with 'flow add', or log on the netdev egress hook: acctd rules --egress-hook".into(),
        );
    }
    for interface in facts.interfaces.iter().filter(|it| it.offloads_flows) {
        let name = &interface.name;
        all.warning(
            "hardware-offload",
            format!("{name} may forward flows in hardware, past all rules (hw-tc-offload)"),
            format!("ethtool -K {name} hw-tc-offload off"),
        );
    }
    let has_ip6 = config
        .groups
        .iter()
        .any(|group| group.prefix_length.family() == Family::Ip6);
    if facts.has_global_ip6 && !has_ip6 {
        all.warning(
            "ip6-not-counted",
            "this machine has global IPv6 addresses, and no group is read for IPv6".into(),
            "give acctd --ip6-src-group and --ip6-dst-group, and rules for them: acctd rules"
                .into(),
        );
    }
}

fn unread_groups(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    let Some(bound) = &facts.bound_groups else {
        return;
    };
    let is_ours = |group: u16| config.groups.iter().any(|other| other.group.0 == group);
    let mut unread: Vec<u16> = Vec::new();
    for rule in &ruleset.log_rules {
        let group = rule.group;
        let is_read = bound.iter().any(|(other, _)| *other == group);
        if !is_read && !is_ours(group) && !unread.contains(&group) {
            unread.push(group);
            let quote = &rule.quote;
            all.note(
                "group-unread",
                format!("no process reads group {group}, to which {quote} logs"),
                format!(
                    "nothing, if the group is for another program; else give acctd a flag for group {group}"
                ),
            );
        }
    }
}

fn rules_of_group(group: &GroupConfig, facts: &Facts, ruleset: &Ruleset, causes: &mut Causes) {
    let family = group.prefix_length.family();
    let version = family.version();
    let logs = |rule: &&LogRule| rule.group == group.group.0;
    let rules: Vec<&LogRule> = ruleset.log_rules.iter().filter(logs).collect();
    if rules.is_empty() {
        no_rule(group, facts, ruleset, causes);
        return;
    }
    let of_family: Vec<&LogRule> = rules
        .iter()
        .filter(|rule| rule.families.contains(&version))
        .copied()
        .collect();
    if of_family.is_empty() {
        for rule in rules {
            causes.add(
                (Severity::Error, "wrong-family"),
                group,
                Some(rule),
                format!("read for IPv{version}, but its rules match no IPv{version} packet"),
                Cure::Text(format!("write 'meta nfproto ipv{version}' in the rule")),
            );
        }
        return;
    }
    if reach::reach(group, facts, &of_family, causes) {
        return;
    }
    for rule in of_family {
        place::wrong_place(group, facts, ruleset, rule, causes);
        wrong_settings(group, rule, causes);
    }
}

fn no_rule(group: &GroupConfig, facts: &Facts, ruleset: &Ruleset, causes: &mut Causes) {
    let there = ruleset
        .unreachable
        .iter()
        .find(|it| it.group == group.group.0);
    if let Some(there) = there {
        let quote = &there.quote;
        if there.is_dormant {
            causes.add(
                (Severity::Error, "dormant-table"),
                group,
                None,
                format!("the table is dormant, so no packet reaches {quote}"),
                Cure::Text("load the table without 'flags dormant'".into()),
            );
            return;
        }
        causes.add(
            (Severity::Error, "chain-not-hooked"),
            group,
            None,
            format!("no packet reaches {quote}: no hook leads to its chain"),
            Cure::Text("give the chain a hook, or jump to it from a chain that has one".into()),
        );
    } else if !ruleset.unreadable.is_empty() {
        // Reported already. It is unknown whether there is a rule.
    } else if facts.is_nft_missing {
        causes.add(
            (Severity::Warning, "rules-unreadable"),
            group,
            None,
            "no rule that is visible without nft logs to it".into(),
            Cure::Text("apt-get install nftables, then acctd doctor again".into()),
        );
    } else {
        causes.add(
            (Severity::Error, "no-rule"),
            group,
            None,
            "no rule in this network namespace logs to it".into(),
            Cure::Apply,
        );
    }
}

/// Copy range, threshold, chain type and families of a rule.
fn wrong_settings(group: &GroupConfig, rule: &LogRule, causes: &mut Causes) {
    let family = group.prefix_length.family();
    let version = family.version();
    let needed = rule.needed_snaplen(family);
    let size = Cure::Text(format!(
        "write 'snaplen {needed}' (--nflog-size {needed}) in the rule"
    ));
    let mut add = |severity, id, what: String, cure: Cure| {
        causes.add((severity, id), group, Some(rule), what, cure);
    };
    if let Some(snaplen) = rule.snaplen.filter(|it| *it < needed) {
        add(
            Severity::Error,
            "snaplen-too-small",
            format!(
                "{snaplen} bytes are copied, less than an IPv{version} header: no packet can be counted"
            ),
            size.clone(),
        );
    }
    if rule.is_nat {
        add(
            Severity::Error,
            "nat-chain",
            "in a chain of type nat: only the first packet of each connection is logged".into(),
            Cure::Apply,
        );
    }
    if rule.families.len() > 1 {
        let other = if version == 4 { 6 } else { 4 };
        add(
            Severity::Warning,
            "other-family",
            format!("read for IPv{version}, but IPv{other} is also logged to it, and not counted"),
            Cure::Text(format!(
                "write 'meta nfproto ipv{version}' in the rule, and use another group for IPv{other}"
            )),
        );
    }
    if let Some(threshold) = rule.threshold.filter(|it| *it < SMALL_THRESHOLD) {
        add(
            Severity::Warning,
            "small-threshold",
            format!("the kernel sends {threshold} packets at a time: much CPU time per packet"),
            Cure::Text("write 'queue-threshold 50' (--nflog-threshold 50) in the rule".into()),
        );
    }
    if rule.snaplen.is_none() {
        let range = copy_range(family);
        let what = if rule.has_range {
            format!("--nflog-range has no effect: {range} bytes of each packet are copied")
        } else {
            format!("no snaplen: {range} bytes of each packet are copied, more than acctd reads")
        };
        add(Severity::Warning, "no-snaplen", what, size);
    }
}
