//! What keeps a flow from a rule. Pure.

use super::view::{Answer, View};
use crate::rules::ruleset::condition::{Key, Match};
use crate::rules::ruleset::log_rule::{LogRule, Obstacle};
use crate::rules::ruleset::model::Paths;

/// What keeps a flow from a rule, by how close to the rule the flow comes.
#[derive(Clone, Debug)]
pub(super) enum Barrier<'a> {
    Bridge,
    Hook,
    /// No packet matches it.
    Never(&'a Match),
    Condition(&'a Match),
    Verdict(&'a Obstacle),
    Mark(&'a Match),
    /// Conditions of which nothing is known.
    Unknown(Vec<&'a Match>),
    Nat,
    /// With its conditions of which nothing is known.
    MaybeVerdict(&'a Obstacle, Vec<&'a Match>),
    None,
}

impl Barrier<'_> {
    pub(super) fn closeness(&self) -> u8 {
        match self {
            Self::Bridge => 0,
            Self::Hook => 1,
            Self::Never(_) => 2,
            Self::Condition(_) => 3,
            Self::Verdict(_) => 4,
            Self::Mark(_) => 5,
            Self::Unknown(_) => 6,
            Self::Nat => 7,
            Self::MaybeVerdict(..) => 8,
            Self::None => 9,
        }
    }

    /// The rule may have logged the flow, as far as is known.
    pub(super) fn is_uncertain(&self) -> bool {
        self.closeness() > 5
    }
}

/// The first thing that keeps the flow from the rule, as far as that is known.
pub(super) fn barrier<'r>(rule: &'r LogRule, view: &View<'_>) -> Barrier<'r> {
    if rule.is_bridge && view.bridge.is_none() {
        return Barrier::Bridge;
    }
    if rule.hook.paths().and(view.paths) == Paths::NONE {
        return Barrier::Hook;
    }
    if let Some(found) = rule.impossible_condition() {
        return Barrier::Never(found);
    }
    let conditions = || rule.conditions.matches.iter().map(|it| &**it);
    let first = |wanted: Answer| conditions().find(|it| view.matches(it, rule) == wanted);
    if let Some(found) = first(Answer::No) {
        return Barrier::Condition(found);
    }
    let answers = |obstacle: &Obstacle| -> Vec<Answer> {
        let matches = obstacle.conditions.matches.iter();
        matches.map(|it| view.matches(it, rule)).collect()
    };
    // A verdict on a hook that is only on another path is passed by others.
    let obstacles = rule.obstacles.iter().filter(|it| {
        it.conditions.families.contains(view.family) && it.paths.and(view.paths) != Paths::NONE
    });
    let obstacles: Vec<(&Obstacle, Vec<Answer>)> = obstacles.map(|it| (it, answers(it))).collect();
    let surely = obstacles
        .iter()
        .find(|(_, answers)| answers.iter().all(|it| *it == Answer::Yes));
    if let Some((obstacle, _)) = surely {
        return Barrier::Verdict(obstacle);
    }
    if let Some(found) = first(Answer::ProbablyNot) {
        return Barrier::Mark(found);
    }
    let unknown: Vec<&Match> = conditions()
        .filter(|it| view.matches(it, rule) == Answer::Unknown)
        .filter(|it| !is_of_the_other_end(it, view) && it.key != Key::Spread)
        .collect();
    if !unknown.is_empty() {
        return Barrier::Unknown(unknown);
    }
    if rule.is_nat {
        return Barrier::Nat;
    }
    let is_possible = |answers: &[Answer]| {
        !answers.contains(&Answer::No) && !answers.contains(&Answer::ProbablyNot)
    };
    let possible = obstacles
        .iter()
        .filter(|(_, answers)| is_possible(answers))
        // The one that stops most.
        .min_by_key(|(obstacle, _)| obstacle.rarity(&rule.conditions));
    match possible {
        Some((obstacle, answers)) => {
            let matches = obstacle.conditions.matches.iter().zip(answers);
            let unknown = matches.filter(|(_, answer)| **answer == Answer::Unknown);
            Barrier::MaybeVerdict(obstacle, unknown.map(|(it, _)| &**it).collect())
        }
        None => Barrier::None,
    }
}

/// A condition on the interface that the flow has at its other end, which is not known.
fn is_of_the_other_end(found: &Match, view: &View<'_>) -> bool {
    match found.key {
        Key::InInterface => view.passed.is_egress,
        Key::OutInterface => !view.passed.is_egress,
        _ => false,
    }
}
