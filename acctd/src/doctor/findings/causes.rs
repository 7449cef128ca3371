//! One cause is one finding, however many groups and rules it concerns.

use std::sync::Arc;

use crate::doctor::finding::{Findings, Severity};
use crate::model::group::GroupConfig;
use crate::model::prefix::{Family, Side};
use crate::rules::ruleset::log_rule::LogRule;
use crate::rules::ruleset::model::{Hook, Quote};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    Text(String),
    /// Replace the rules with those of `acctd rules`.
    Apply,
}

/// Findings about rules, merged by cause.
#[derive(Default)]
pub(super) struct Causes(Vec<Cause>);

struct Cause {
    severity: Severity,
    id: &'static str,
    what: String,
    cure: Cure,
    groups: Vec<GroupConfig>,
    rules: Vec<LogRule>,
}

impl Causes {
    /// If the cause is known already, adds the group and the rule to it.
    pub(super) fn add(
        &mut self,
        (severity, id): (Severity, &'static str),
        group: &GroupConfig,
        rule: Option<&LogRule>,
        what: String,
        cure: Cure,
    ) {
        let known = self.0.iter_mut().find(|it| {
            (it.severity, it.id) == (severity, id) && it.what == what && it.cure == cure
        });
        if let Some(known) = known {
            if known.groups.iter().all(|it| it.group != group.group) {
                known.groups.push(*group);
            }
            if let Some(rule) = rule
                && known
                    .rules
                    .iter()
                    .all(|it| !Arc::ptr_eq(&it.quote, &rule.quote))
            {
                known.rules.push(rule.clone());
            }
            return;
        }
        self.0.push(Cause {
            severity,
            id,
            what,
            cure,
            groups: vec![*group],
            rules: rule.into_iter().cloned().collect(),
        });
    }

    pub(super) fn report(self, all: &mut Findings) {
        for cause in self.0 {
            let numbers: Vec<u16> = cause.groups.iter().map(|it| it.group.0).collect();
            let quotes: Vec<&Quote> = cause.rules.iter().map(|it| &*it.quote).collect();
            let rules = match quotes[..] {
                [] => String::new(),
                _ => format!(": {}", quoted(&quotes)),
            };
            let what = format!("{}: {}{rules}", group_list(&numbers), cause.what);
            let cure = match cause.cure {
                Cure::Text(text) => text,
                Cure::Apply => apply(&cause.groups, &cause.rules),
            };
            all.add(cause.severity, cause.id, what, cure);
        }
    }
}

/// The first quotes, and how many more there are.
pub(super) fn quoted(quotes: &[&Quote]) -> String {
    const SHOWN: usize = 2;
    let shown: Vec<String> = quotes.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = quotes.len().saturating_sub(SHOWN);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", shown.join(", "))
}

/// `group 5`, `groups 4-7`, `groups 4,6`.
pub(super) fn group_list(groups: &[u16]) -> String {
    let mut sorted = groups.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for group in sorted.iter().copied() {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(group) => *last = group,
            _ => runs.push((group, group)),
        }
    }
    let texts = runs.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first},{last}"),
        _ => format!("{first}-{last}"),
    });
    let texts: Vec<String> = texts.collect();
    let word = if sorted.len() == 1 { "group" } else { "groups" };
    format!("{word} {}", texts.join(","))
}

/// acctd's flags for these groups.
pub(super) fn flags(groups: &[GroupConfig]) -> String {
    let mut flags: Vec<String> = Vec::new();
    for (side, name) in [(Side::Dest, "dst"), (Side::Source, "src")] {
        for (family, version) in [(Family::Ip4, 4), (Family::Ip6, 6)] {
            let of = groups
                .iter()
                .filter(|it| it.side == side && it.prefix_length.family() == family);
            let numbers: Vec<String> = of.map(|it| it.group.to_string()).collect();
            if !numbers.is_empty() {
                flags.push(format!(" -ip{version}-{name}-group={}", numbers.join(",")));
            }
        }
    }
    flags.concat()
}

/// The command that loads acctd's rules. It removes the operator's rules first, or packets would be counted twice.
pub(super) fn apply(groups: &[GroupConfig], rules: &[LogRule]) -> String {
    const SHOWN: usize = 4;
    let of_others: Vec<&LogRule> = rules
        .iter()
        .filter(|it| !it.quote.place.is_ours())
        .collect();
    let removals: Vec<String> = of_others
        .iter()
        .filter_map(|it| it.quote.removal())
        .collect();
    let is_router = |rule: &LogRule| !matches!(rule.hook, Hook::Input | Hook::Output);
    let scenario = if rules.iter().any(|it| it.is_bridge) {
        " bridge --lan …"
    } else if rules.iter().any(is_router) {
        " router --lan …"
    } else {
        ""
    };
    let load = format!("acctd rules{scenario} --apply{}", flags(groups));
    if removals.is_empty() || removals.len() > SHOWN {
        let first = if removals.is_empty() {
            ""
        } else {
            "remove the named rules; "
        };
        return format!("{first}{load}");
    }
    format!("{}; {load}", removals.join("; "))
}

pub(super) fn group_numbers(groups: &[&GroupConfig]) -> String {
    let numbers: Vec<u16> = groups.iter().map(|it| it.group.0).collect();
    group_list(&numbers)
}

#[cfg(test)]
mod tests {
    use super::group_list;

    #[test]
    fn groups_in_a_row_are_a_range() {
        assert_eq!(group_list(&[5]), "group 5");
        assert_eq!(group_list(&[7, 4, 5, 6]), "groups 4-7");
        assert_eq!(group_list(&[4, 6, 7]), "groups 4,6,7");
    }
}
