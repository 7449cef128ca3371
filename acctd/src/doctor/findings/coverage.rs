//! Which packets the groups see, said where all is well, and forwarded ones that none sees.

use super::causes::{flags, group_list, numbers};
use crate::config::Config;
use crate::doctor::facts::Facts;
use crate::doctor::finding::Findings;
use crate::model::group::GroupConfig;
use crate::model::prefix::{Family, Side};
use crate::rules::ruleset::log_rule::{LogRule, Reach, Ruleset};
use crate::rules::ruleset::model::Hook;

/// The host forwards, and no rule sees it.
pub(super) fn forwarded(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    // From one to another.
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
                .flat_map(|group| alive(group, ruleset))
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
            numbers(&shown),
            sysctls.join(" and ")
        ),
        format!(
            "acctd rules router --lan … --apply{}, with the interfaces behind which the accounted addresses are; nothing, if only the host itself is to be counted",
            flags(&groups)
        ),
    );
}

fn alive<'r>(group: &GroupConfig, ruleset: &'r Ruleset) -> impl Iterator<Item = &'r LogRule> {
    let family = group.prefix_length.family();
    let number = group.group.0;
    ruleset.log_rules.iter().filter(move |rule| {
        rule.group == number
            && rule.families.contains(&family.version())
            && !matches!(rule.reach(family), Reach::Never(_) | Reach::Nothing(_))
    })
}

fn sees_forwarded(rule: &LogRule) -> bool {
    !matches!(rule.hook, Hook::Input | Hook::Output)
}

/// What the groups see, in words: `groups 4-7 see what this host receives and sends; forwarded packets are
/// not in them`.
#[must_use]
pub fn coverage(config: &Config, facts: &Facts) -> String {
    let Ok(ruleset) = &facts.ruleset else {
        return String::new();
    };
    // Groups that see alike, with the direction of each.
    let mut kinds: Vec<(String, Vec<GroupConfig>, bool)> = Vec::new();
    for group in &config.groups {
        let seen: Vec<&LogRule> = alive(group, ruleset).collect();
        let words = words(group, &seen);
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

fn words(group: &GroupConfig, rules: &[&LogRule]) -> String {
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
