//! Which packets the groups see, printed if there is no finding; and forwarded packets that no rule sees.

use super::causes::{flags, group_list, group_numbers};
use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::Findings;
use crate::model::group::GroupConfig;
use crate::model::prefix::{Family, Side};
use crate::rules::ruleset::log_rule::{LogRule, Reach, Ruleset};
use crate::rules::ruleset::model::Hook;

pub(super) fn forwarded(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    // Forwarding takes two interfaces.
    let others = facts.interfaces.iter().filter(|it| it.name != "lo");
    if others.count() < 2 {
        return;
    }
    let mut groups: Vec<GroupConfig> = Vec::new();
    for side in [Side::Source, Side::Dest] {
        for family in [Family::Ip4, Family::Ip6] {
            let of = config
                .groups
                .iter()
                .filter(|group| group.side == side && group.prefix_length.family() == family);
            let mut rules = of
                .clone()
                .flat_map(|group| effective_rules(group, ruleset))
                .peekable();
            if facts.forwards(family) && rules.peek().is_some() && !rules.any(sees_forwarded) {
                groups.extend(of);
            }
        }
    }
    if groups.is_empty() {
        return;
    }
    let is_of = |family: Family| {
        let mut families = groups.iter().map(|group| group.prefix_length.family());
        families.any(|it| it == family)
    };
    let shown: Vec<&GroupConfig> = groups.iter().collect();
    let sysctls = [
        (Family::Ip4, "net.ipv4.ip_forward"),
        (Family::Ip6, "net.ipv6.conf.all.forwarding"),
    ];
    let sysctls: Vec<&str> = sysctls
        .into_iter()
        .filter(|(family, _)| is_of(*family))
        .map(|(_, name)| name)
        .collect();
    all.warning(
        "forwarded-not-counted",
        format!(
            "{}: this host forwards ({} is 1), and no rule sees forwarded packets",
            group_numbers(&shown),
            sysctls.join(" and ")
        ),
        format!(
            "acctd rules router --lan … --apply{}, with the interfaces on the side of the accounted addresses; nothing, if only this host's own traffic should be counted",
            flags(&groups)
        ),
    );
}

/// The rules of the group that packets of its family reach.
fn effective_rules<'r>(
    group: &GroupConfig,
    ruleset: &'r Ruleset,
) -> impl Iterator<Item = &'r LogRule> {
    let family = group.prefix_length.family();
    let number = group.group.0;
    ruleset.log_rules.iter().filter(move |rule| {
        rule.group == number
            && rule.families.contains(&family.version())
            && !matches!(
                rule.reach(family),
                Reach::NeverMatches(_) | Reach::AllStopped(_)
            )
    })
}

fn sees_forwarded(rule: &LogRule) -> bool {
    !matches!(rule.hook, Hook::Input | Hook::Output)
}

/// `groups 4-7 see what this host receives and sends; forwarded packets are not in them`.
pub(crate) fn coverage(config: &Config, facts: &Facts) -> String {
    let Ok(ruleset) = &facts.ruleset else {
        return String::new();
    };
    // A description, the groups that it fits, and whether they see forwarded packets.
    let mut kinds: Vec<(String, Vec<GroupConfig>, bool)> = Vec::new();
    for group in &config.groups {
        let seen: Vec<&LogRule> = effective_rules(group, ruleset).collect();
        let words = describe(group, &seen);
        let sees_forwarded = seen.iter().any(|it| sees_forwarded(it));
        match kinds.iter_mut().find(|(other, ..)| *other == words) {
            Some((_, groups, _)) => groups.push(*group),
            None => kinds.push((words, vec![*group], sees_forwarded)),
        }
    }
    let all_groups: Vec<u16> = config.groups.iter().map(|it| it.group.0).collect();
    let is_host = |words: &str| words == RECEIVED || words == SENT;
    let mut parts: Vec<String> = Vec::new();
    if kinds.len() == 2 && kinds.iter().all(|(words, ..)| is_host(words)) {
        let groups = group_list(&all_groups);
        parts.push(format!("{groups} see what this host receives and sends"));
    } else {
        for (words, groups, _) in &kinds {
            let numbers: Vec<u16> = groups.iter().map(|it| it.group.0).collect();
            let see = if numbers.len() == 1 { "sees" } else { "see" };
            parts.push(format!("{} {see} {words}", group_list(&numbers)));
        }
    }
    if !kinds.iter().any(|(.., sees_forwarded)| *sees_forwarded) {
        parts.push("forwarded packets are not in them".into());
    }
    parts.join("; ")
}

const RECEIVED: &str = "what this host receives";
const SENT: &str = "what this host sends";

fn describe(group: &GroupConfig, rules: &[&LogRule]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut has_all = false;
    let mut hooks: Vec<Hook> = Vec::new();
    for rule in rules {
        let mut asked = rule.interfaces().flat_map(|(_, names)| names).peekable();
        has_all |= asked.peek().is_none();
        for name in asked {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        if !hooks.contains(&rule.hook) {
            hooks.push(rule.hook);
        }
    }
    let has = |hook: Hook| hooks.contains(&hook);
    let interfaces = if has_all || names.is_empty() {
        String::new()
    } else if group.side == Side::Source {
        format!(" from {}", names.join(","))
    } else {
        format!(" to {}", names.join(","))
    };
    let passing = if rules.iter().any(|it| it.is_bridge) {
        "is bridged"
    } else {
        "is forwarded"
    };
    match group.side {
        Side::Source if has(Hook::Prerouting) || has(Hook::Ingress) => {
            format!("what comes in{interfaces}")
        }
        Side::Dest if has(Hook::Postrouting) || has(Hook::Egress) => {
            format!("what goes out{interfaces}")
        }
        Side::Source if has(Hook::Input) && has(Hook::Forward) => {
            format!("what comes in{interfaces}")
        }
        Side::Dest if has(Hook::Output) && has(Hook::Forward) => {
            format!("what goes out{interfaces}")
        }
        _ if has(Hook::Forward) => format!("what {passing}{interfaces}"),
        Side::Source => format!("{RECEIVED}{interfaces}"),
        Side::Dest => format!("{SENT}{interfaces}"),
    }
}
