//! Whether packets come to the rules that log, and which of them these leave out.

use std::sync::Arc;

use super::causes::{Causes, Cure};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Severity;
use crate::model::group::GroupConfig;
use crate::model::prefix::{Family, Side};
use crate::rules::ruleset::condition::{Key, Match};
use crate::rules::ruleset::log_rule::{LogRule, Obstacle, Reach};
use crate::rules::ruleset::model::{Hook, Verdict};

/// Whether no packet comes to any of them.
pub(super) fn reach(
    group: &GroupConfig,
    facts: &Facts,
    rules: &[&LogRule],
    causes: &mut Causes,
) -> bool {
    let family = group.prefix_length.family();
    let is_dead =
        |rule: &&LogRule| matches!(rule.reach(family), Reach::Never(_) | Reach::Nothing(_));
    let are_dead = rules.iter().all(is_dead);
    let severity = if are_dead {
        Severity::Error
    } else {
        Severity::Warning
    };
    // What it stops is in the group already.
    let is_logged = |obstacle: &Obstacle| rules.iter().any(|it| is_logged_by(it, obstacle, family));
    for rule in rules {
        match rule.reach(family) {
            Reach::Nothing(obstacle) if is_logged(obstacle) => {}
            Reach::Never(found) => never(group, rule, found, severity, causes),
            Reach::Nothing(obstacle) => causes.add(
                (severity, "never-reached"),
                group,
                Some(rule),
                format!("no packet comes to the rule, {}", stops(obstacle, "all")),
                cure(rule, obstacle),
            ),
            Reach::Some(mut obstacles) => {
                obstacles.retain(|it| !is_logged(it) && !is_for_others(it, rule, facts));
                behind(group, family, rule, &obstacles, causes);
            }
            Reach::All => {}
        }
    }
    if !are_dead {
        let alive: Vec<&LogRule> = rules.iter().filter(|it| !is_dead(it)).copied().collect();
        left_out(group, &alive, causes);
    }
    are_dead
}

/// Whether all that it stops has met this rule before, as with `log group 5 accept`.
fn is_logged_by(rule: &LogRule, obstacle: &Obstacle, family: Family) -> bool {
    let mut before = rule.obstacles.iter();
    let is_before = before.any(|it| Arc::ptr_eq(&it.quote, &obstacle.quote));
    !is_before
        && rule.never().is_none()
        && obstacle
            .conditions
            .of(family)
            .are_within(&rule.conditions.of(family))
}

/// Whether it stops what does not come to input anyhow: packets to other hosts.
fn is_for_others(obstacle: &Obstacle, rule: &LogRule, facts: &Facts) -> bool {
    let mut matches = obstacle.conditions.matches.iter();
    rule.hook == Hook::Input
        && matches.any(|it| {
            let nets = it.nets();
            it.key == Key::Dest && nets.is_some_and(|nets| facts.are_of_others(&nets))
        })
}

fn never(
    group: &GroupConfig,
    rule: &LogRule,
    found: &Match,
    severity: Severity,
    causes: &mut Causes,
) {
    let hook = rule.hook.name();
    let text = &found.text;
    match &found.set {
        Some(set) if set.is_empty => causes.add(
            (severity, "empty-set"),
            group,
            Some(rule),
            format!(
                "set {} is empty, and the rule logs what is in it alone",
                set.name
            ),
            Cure::Text(format!(
                "add to set {}, or take '{text}' out of the rule",
                set.name
            )),
        ),
        _ => causes.add(
            (severity, "matches-nothing"),
            group,
            Some(rule),
            format!(
                "no packet on {hook} at priority {} meets '{text}'",
                rule.priority
            ),
            Cure::Text(format!(
                "take '{text}' out of the rule, or log on another hook: acctd rules"
            )),
        ),
    }
}

fn behind(
    group: &GroupConfig,
    family: Family,
    rule: &LogRule,
    obstacles: &[&Obstacle],
    causes: &mut Causes,
) {
    let own = rule.conditions.of(family);
    let severity = |it: &Obstacle| {
        let is_dropped = it.verdict.ends_all();
        // What is wrong, and what is dropped on its way out, is sent to nobody.
        let is_expected = is_dropped && (group.side == Side::Dest || has(it, &Key::Excess))
            || (is_dropped && it.elsewhere.is_some() && it.is_for_sanity(&own));
        if is_expected {
            Severity::Note
        } else {
            Severity::Warning
        }
    };
    let worst = obstacles
        .iter()
        .min_by_key(|it| (severity(it), it.rarity(&own)));
    let Some(worst) = worst else {
        return;
    };
    let mut limits = worst.conditions.matches.iter();
    let which = if worst.verdict == Verdict::Unknown {
        "some packets may not come to the rule".to_owned()
    } else if worst.is_of_established(&own) {
        "packets of established connections do not come to the rule".to_owned()
    } else if let Some(limit) = limits.find(|it| it.is_by_chance()) {
        format!("packets that meet '{}' do not come to the rule", limit.text)
    } else {
        "some packets do not come to the rule".to_owned()
    };
    let others = match obstacles.len() - 1 {
        0 => String::new(),
        _ => "; others stand behind it".to_owned(),
    };
    causes.add(
        (severity(worst), "behind-verdict"),
        group,
        Some(rule),
        format!("{which}, {}{others}", stops(worst, "them")),
        cure(rule, worst),
    );
}

fn has(obstacle: &Obstacle, key: &Key) -> bool {
    let mut matches = obstacle.conditions.matches.iter();
    matches.any(|it| it.key == *key)
}

/// `which 'drop' (chain c of table inet t, handle 3) drops before`.
fn stops(obstacle: &Obstacle, what: &str) -> String {
    let verb = match obstacle.verdict {
        Verdict::Accept => "accepts",
        Verdict::Drop => "drops",
        Verdict::Reject => "rejects",
        Verdict::Queue => "hands over to a program",
        Verdict::Return => "sends back",
        Verdict::Unknown => "does what acctd does not know with",
    };
    let place = match obstacle.elsewhere {
        Some((hook, priority)) => format!(" on {} at priority {priority}", hook.name()),
        None => String::new(),
    };
    let what = if what == "all" { "all of them" } else { what };
    format!("as {} {verb} {what} before{place}", obstacle.quote)
}

fn cure(rule: &LogRule, obstacle: &Obstacle) -> Cure {
    /// Of the chains that acctd rules loads.
    const OURS: i64 = -300;
    match obstacle.elsewhere {
        // No rule of acctd's own on this hook would stand before it.
        Some((hook, priority)) if hook != rule.hook || priority <= OURS => Cure::Text(format!(
            "nothing, if they are not to be counted; else log before it, in a chain 'type filter hook {} priority {}'",
            hook.name(),
            priority - 1
        )),
        _ => Cure::Apply,
    }
}

/// What the rules of a group leave out, all of them together.
fn left_out(group: &GroupConfig, rules: &[&LogRule], causes: &mut Causes) {
    for rule in rules {
        for found in &rule.conditions.matches {
            of_one_rule(group, rule, found, causes);
        }
    }
    if let Some(words) = united(rules, &Key::State) {
        let has = |state: &str| words.iter().any(|it| it == state);
        if !(has("new") && has("established")) {
            let severity = if has("established") {
                Severity::Warning
            } else {
                Severity::Error
            };
            add_all(
                (severity, "some-states"),
                group,
                rules,
                &format!("only packets of state {} are logged", words.join(",")),
                "take the state out of the rule",
                causes,
            );
        }
    }
    if let Some(words) = united(rules, &Key::Protocol) {
        add_all(
            (Severity::Warning, "some-protocols"),
            group,
            rules,
            &format!("only {} is logged", words.join(",")),
            "take the protocol out of the rule, or log the others too",
            causes,
        );
    }
    let is_special = |it: &Arc<Match>| match &it.key {
        Key::Other(_) | Key::Source | Key::Dest | Key::Sanity => {
            it.set.as_ref().is_none_or(|set| !set.is_dynamic)
        }
        _ => false,
    };
    let are_special = |rule: &&LogRule| rule.conditions.matches.iter().any(is_special);
    if rules.iter().all(are_special) {
        // Where each has another one, all of them together may see all packets.
        let is_other = |it: &&Arc<Match>| matches!(it.key, Key::Other(_)) && is_special(it);
        let is_common = |it: &Arc<Match>| {
            rules
                .iter()
                .all(|rule| rule.conditions.matches.contains(it))
        };
        let first = rules.first().into_iter();
        let mut of_first = first.flat_map(|rule| rule.conditions.matches.iter().filter(is_other));
        let severity = if of_first.any(is_common) {
            Severity::Warning
        } else {
            Severity::Note
        };
        add_all(
            (severity, "some-packets"),
            group,
            rules,
            "only packets that the rule's conditions name are logged",
            "nothing, if that is what is to be counted",
            causes,
        );
    }
}

fn of_one_rule(group: &GroupConfig, rule: &LogRule, found: &Match, causes: &mut Causes) {
    let text = &found.text;
    if found.is_by_chance() {
        causes.add(
            (Severity::Error, "limited"),
            group,
            Some(rule),
            format!("only a part of the packets is logged: '{text}'"),
            Cure::Text(format!("take '{text}' out of the rule")),
        );
    }
    match &found.set {
        Some(set) if set.is_dynamic => causes.add(
            (Severity::Warning, "dynamic-set"),
            group,
            Some(rule),
            format!(
                "only what is in set {} is logged, whose elements come and go",
                set.name
            ),
            Cure::Text(format!("take '{text}' out of the rule")),
        ),
        _ => {}
    }
}

/// The words that one or another of the rules asks for, if each asks.
fn united(rules: &[&LogRule], key: &Key) -> Option<Vec<String>> {
    let mut all: Vec<String> = Vec::new();
    for rule in rules {
        let matches = rule.conditions.matches.iter();
        let mut of_key = matches.filter(|it| it.key == *key);
        let words = of_key.next()?.words()?;
        for word in words {
            if !all.iter().any(|it| it == word) {
                all.push(word.to_owned());
            }
        }
    }
    Some(all)
}

fn add_all(
    kind: (Severity, &'static str),
    group: &GroupConfig,
    rules: &[&LogRule],
    what: &str,
    cure: &str,
    causes: &mut Causes,
) {
    for rule in rules {
        causes.add(
            kind,
            group,
            Some(rule),
            what.to_owned(),
            Cure::Text(cure.to_owned()),
        );
    }
}
