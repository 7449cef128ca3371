//! Which packets reach the rules that log, and which of these the rules exclude.

use std::sync::Arc;

use super::causes::{Causes, Cure};
use crate::doctor::facts::Facts;
use crate::doctor::finding::Severity;
use crate::model::group::GroupConfig;
use crate::model::prefix::{Family, Side};
use crate::rules::ruleset::condition::{Key, Match};
use crate::rules::ruleset::log_rule::{LogRule, Obstacle, Reach};
use crate::rules::ruleset::model::{Hook, Verdict};

/// Whether no packet reaches any of the rules.
pub(super) fn reach(
    group: &GroupConfig,
    facts: &Facts,
    rules: &[&LogRule],
    causes: &mut Causes,
) -> bool {
    let family = group.prefix_length.family();
    let is_unreached = |rule: &&LogRule| {
        matches!(
            rule.reach(family),
            Reach::NeverMatches(_) | Reach::AllStopped(_)
        )
    };
    let are_unreached = rules.iter().all(is_unreached);
    let severity = if are_unreached {
        Severity::Error
    } else {
        Severity::Warning
    };
    // A rule may log packets before an obstacle stops them.
    let is_logged = |obstacle: &Obstacle| rules.iter().any(|it| is_logged_by(it, obstacle, family));
    for rule in rules {
        match rule.reach(family) {
            Reach::AllStopped(obstacle) if is_logged(obstacle) => {}
            Reach::NeverMatches(found) => never_matches(group, rule, found, severity, causes),
            Reach::AllStopped(obstacle) => causes.add(
                (severity, "never-reached"),
                group,
                Some(rule),
                format!(
                    "no packet reaches the rule, because {}",
                    stops(obstacle, "all of them")
                ),
                cure(rule, obstacle),
            ),
            Reach::SomeStopped(mut obstacles) => {
                obstacles.retain(|it| !is_logged(it) && !is_for_others(it, rule, facts));
                partly_stopped(group, family, rule, &obstacles, causes);
            }
            Reach::All => {}
        }
    }
    if !are_unreached {
        let reached: Vec<&LogRule> = rules
            .iter()
            .filter(|it| !is_unreached(it))
            .copied()
            .collect();
        excluded_packets(group, &reached, causes);
    }
    are_unreached
}

/// Whether the rule logs all packets that the obstacle stops, before it stops them, as with `log group 5 accept`.
fn is_logged_by(rule: &LogRule, obstacle: &Obstacle, family: Family) -> bool {
    let mut before = rule.obstacles.iter();
    let is_before = before.any(|it| Arc::ptr_eq(&it.quote, &obstacle.quote));
    !is_before
        && rule.impossible_condition().is_none()
        && obstacle
            .conditions
            .of(family)
            .are_within(&rule.conditions.of(family))
}

/// Whether it stops only packets to other hosts, which never reach input.
fn is_for_others(obstacle: &Obstacle, rule: &LogRule, facts: &Facts) -> bool {
    let mut matches = obstacle.conditions.matches.iter();
    rule.hook == Hook::Input
        && matches.any(|it| {
            let nets = it.nets();
            it.key == Key::Dest && nets.is_some_and(|nets| facts.are_foreign(&nets))
        })
}

fn never_matches(
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
                "set {} is empty, and the rule logs only what is in it",
                set.name
            ),
            Cure::Text(format!(
                "add elements to set {}, or remove '{text}' from the rule",
                set.name
            )),
        ),
        _ => causes.add(
            (severity, "matches-nothing"),
            group,
            Some(rule),
            format!(
                "no packet on {hook} at priority {} matches '{text}'",
                rule.priority
            ),
            Cure::Text(format!(
                "remove '{text}' from the rule, or log on another hook: acctd rules"
            )),
        ),
    }
}

fn partly_stopped(
    group: &GroupConfig,
    family: Family,
    rule: &LogRule,
    obstacles: &[&Obstacle],
    causes: &mut Causes,
) {
    let own = rule.conditions.of(family);
    let severity = |it: &Obstacle| {
        let is_dropped = it.verdict.ends_all();
        // Dropped packets are not billable if they are invalid, excessive, or on their way out.
        let is_expected = is_dropped && (group.side == Side::Dest || has(it, &Key::Excess))
            || (is_dropped && it.earlier_base.is_some() && it.stops_invalid(&own));
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
        "some packets may not reach the rule".to_owned()
    } else if worst.is_of_established(&own) {
        "packets of established connections do not reach the rule".to_owned()
    } else if let Some(limit) = limits.find(|it| it.is_by_chance()) {
        format!("packets that match '{}' do not reach the rule", limit.text)
    } else {
        "some packets do not reach the rule".to_owned()
    };
    let others = match obstacles.len() - 1 {
        0 => String::new(),
        _ => "; and so do other rules".to_owned(),
    };
    causes.add(
        (severity(worst), "behind-verdict"),
        group,
        Some(rule),
        format!("{which}, because {}{others}", stops(worst, "them")),
        cure(rule, worst),
    );
}

fn has(obstacle: &Obstacle, key: &Key) -> bool {
    let mut matches = obstacle.conditions.matches.iter();
    matches.any(|it| it.key == *key)
}

/// `'drop' (chain c of table inet t, handle 3) drops them earlier, on input at priority 0`.
fn stops(obstacle: &Obstacle, what: &str) -> String {
    let (verb, place) = (obstacle.verb(), obstacle.place());
    format!("{} {verb} {what} earlier{place}", obstacle.quote)
}

fn cure(rule: &LogRule, obstacle: &Obstacle) -> Cure {
    /// The priority of the chains that `acctd rules` loads.
    const OWN_PRIORITY: i64 = -300;
    match obstacle.earlier_base {
        // On this hook, acctd's own rules would be behind the obstacle, too.
        Some((hook, priority)) if hook != rule.hook || priority <= OWN_PRIORITY => {
            Cure::Text(format!(
                "nothing, if these packets should not be counted; else log before it, in a chain 'type filter hook {} priority {}'",
                hook.name(),
                priority - 1
            ))
        }
        _ => Cure::Apply,
    }
}

/// Packets that all rules of a group exclude by their own conditions.
fn excluded_packets(group: &GroupConfig, rules: &[&LogRule], causes: &mut Causes) {
    for rule in rules {
        for found in &rule.conditions.matches {
            one_condition(group, rule, found, causes);
        }
    }
    if let Some(words) = all_words(rules, &Key::State) {
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
                "remove the state from the rule",
                causes,
            );
        }
    }
    if let Some(words) = all_words(rules, &Key::Protocol) {
        add_all(
            (Severity::Warning, "some-protocols"),
            group,
            rules,
            &format!("only {} is logged", words.join(",")),
            "remove the protocol from the rule, or log the other protocols, too",
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
        // If each rule has a different condition, together they may see all packets.
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
            "only packets that match the rule's conditions are logged",
            "nothing, if only these packets should be counted",
            causes,
        );
    }
}

fn one_condition(group: &GroupConfig, rule: &LogRule, found: &Match, causes: &mut Causes) {
    let text = &found.text;
    if found.is_by_chance() {
        causes.add(
            (Severity::Error, "limited"),
            group,
            Some(rule),
            format!("only some of the packets are logged: '{text}'"),
            Cure::Text(format!("remove '{text}' from the rule")),
        );
    }
    match &found.set {
        Some(set) if set.is_dynamic => causes.add(
            (Severity::Warning, "dynamic-set"),
            group,
            Some(rule),
            format!(
                "only what is in set {} is logged, and its elements change",
                set.name
            ),
            Cure::Text(format!("remove '{text}' from the rule")),
        ),
        _ => {}
    }
}

/// All words that the rules match for this key; `None` if a rule matches anything.
fn all_words(rules: &[&LogRule], key: &Key) -> Option<Vec<String>> {
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
