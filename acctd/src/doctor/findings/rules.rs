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
use crate::rules::ruleset::model::Hook;

/// Batches of fewer packets wake acctd too often to be cheap.
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
    causes.say(all);
    duplicates::duplicates(config, facts, ruleset, all);
    coverage::forwarded(config, facts, ruleset, all);
    beside(config, facts, ruleset, all);
}

/// The programs that show rules want the privileges of root.
pub(super) fn cure_of_unreadable(facts: &Facts) -> String {
    let is_admin = facts
        .capabilities
        .contains(rustix::thread::CapabilitySet::NET_ADMIN);
    if is_admin {
        "see what it says; nft -j list ruleset must work".into()
    } else {
        "run acctd doctor as root".into()
    }
}

fn beside(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    for name in &ruleset.flowtables {
        all.warning(
            "flowtable",
            format!("flowtable {name}: packets of its flows pass no rule behind the first few"),
            "take the rule with 'flow add' out, or log on the netdev egress hook: acctd rules --egress-hook".into(),
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
    let Some(taken) = &facts.taken else {
        return;
    };
    let is_ours = |group: u16| config.groups.iter().any(|other| other.group.0 == group);
    let mut unread: Vec<u16> = Vec::new();
    for rule in &ruleset.log_rules {
        let group = rule.group;
        let is_read = taken.iter().any(|(other, _)| *other == group);
        if !is_read && !is_ours(group) && !unread.contains(&group) {
            unread.push(group);
            let quote = &rule.quote;
            all.note(
                "group-unread",
                format!("nobody reads group {group}, to which {quote} logs"),
                format!(
                    "nothing, if it is another program's; else give acctd a flag for group {group}"
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
                format!("read for IPv{version}, and no rule matches such a packet"),
                Cure::Text(format!("'meta nfproto ipv{version}' in the rule")),
            );
        }
        return;
    }
    if reach::reach(group, facts, &of_family, causes) {
        return;
    }
    for rule in of_family {
        place::wrong_place(group, facts, ruleset, rule, causes);
        badly_set(group, rule, causes);
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
                format!("the table is dormant, and no packet comes to {quote}"),
                Cure::Text("load the table without 'flags dormant'".into()),
            );
            return;
        }
        causes.add(
            (Severity::Error, "chain-not-hooked"),
            group,
            None,
            format!("no packet comes to {quote}"),
            Cure::Text("give the chain a hook, or jump to it from one that has".into()),
        );
    } else if !ruleset.unreadable.is_empty() {
        // Said already: nobody knows whether there is one.
    } else if facts.lacks_nft {
        causes.add(
            (Severity::Warning, "rules-unreadable"),
            group,
            None,
            "no rule that can be seen without nft logs to it".into(),
            Cure::Text("apt-get install nftables, then acctd doctor again".into()),
        );
    } else {
        causes.add(
            (Severity::Error, "no-rule"),
            group,
            None,
            "no rule of this network namespace logs to it".into(),
            Cure::Apply,
        );
    }
}

/// What a rule copies, when it hands it over, and what it lets pass.
fn badly_set(group: &GroupConfig, rule: &LogRule, causes: &mut Causes) {
    let family = group.prefix_length.family();
    let version = family.version();
    let link_layer = match rule.hook {
        // On ingress the payload begins with the IP header.
        Hook::Egress => 14,
        _ => 0,
    };
    let needed = family.header_length() + link_layer;
    let size = Cure::Text(format!(
        "'snaplen {needed}' (--nflog-size {needed}) in the rule"
    ));
    let mut add = |severity, id, what: String, cure: Cure| {
        causes.add((severity, id), group, Some(rule), what, cure);
    };
    if let Some(snaplen) = rule.snaplen.filter(|it| (*it as usize) < needed) {
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
            format!("read for IPv{version}, and IPv{other} is logged to it too: not counted"),
            Cure::Text(format!(
                "'meta nfproto ipv{version}' in the rule, and a group of its own for IPv{other}"
            )),
        );
    }
    if let Some(threshold) = rule.threshold.filter(|it| *it < SMALL_THRESHOLD) {
        add(
            Severity::Warning,
            "small-threshold",
            format!("{threshold} packets are handed over at a time: much CPU time for each"),
            Cure::Text("'queue-threshold 50' (--nflog-threshold 50) in the rule".into()),
        );
    }
    if rule.snaplen.is_none() {
        let range = copy_range(family);
        let what = if rule.has_range {
            format!("--nflog-range, which does nothing: {range} bytes are copied of each packet")
        } else {
            format!("no snaplen: {range} bytes are copied of each packet, more than is read")
        };
        add(Severity::Warning, "no-snaplen", what, size);
    }
}
