//! A rule that logs to a group, the conditions of its packets, and the verdicts before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::condition::{Conditions, Key, Match};
use super::model::{Hook, Paths, Quote, Verdict};
use crate::model::prefix::Family;
use crate::rules::ruleset::model::is_never_on;

/// A rule that logs to a group, as packets of one base chain reach it.
#[derive(Clone, Debug)]
pub(crate) struct LogRule {
    pub(crate) group: u16,
    pub(crate) snaplen: Option<u32>,
    pub(crate) threshold: Option<u32>,
    /// It has `--nflog-range`, which has no effect.
    pub(crate) has_range: bool,
    pub(crate) hook: Hook,
    /// Of the base chain.
    pub(crate) priority: i64,
    /// The base chain belongs to a bridge.
    pub(crate) is_bridge: bool,
    /// In a chain of type nat, which sees only the first packet of each connection.
    pub(crate) is_nat: bool,
    /// The IP versions that it may match, 4 and 6.
    pub(crate) families: BTreeSet<u8>,
    /// Those of the rule and of the jumps to its chain.
    pub(crate) conditions: Conditions,
    /// Verdicts that may stop packets before it.
    pub(crate) obstacles: Vec<Obstacle>,
    pub(crate) quote: Arc<Quote>,
}

/// A verdict before a rule that logs.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    pub(crate) quote: Arc<Quote>,
    pub(crate) verdict: Verdict,
    /// Of the packets that it stops.
    pub(crate) conditions: Conditions,
    pub(crate) paths: Paths,
    /// If the verdict is in an earlier base chain: its hook and priority.
    pub(crate) earlier_base: Option<(Hook, i64)>,
}

/// A rule that changes addresses.
#[derive(Clone, Debug)]
pub(crate) struct Nat {
    /// It changes the source, else the destination.
    pub(crate) is_source: bool,
    /// Family and interfaces.
    pub(crate) conditions: Conditions,
    pub(crate) quote: Arc<Quote>,
}

/// A rule that logs, in a chain that no packet reaches.
#[derive(Clone, Debug)]
pub(crate) struct Unreachable {
    pub(crate) group: u16,
    pub(crate) quote: Arc<Quote>,
    /// Its table is disabled; else no chain with a hook jumps to its chain.
    pub(crate) is_dormant: bool,
}

/// Which packets reach a rule that logs.
#[derive(Clone, Debug)]
pub(crate) enum Reach<'a> {
    /// None: no packet matches this condition of the rule.
    NeverMatches(&'a Match),
    /// None: verdicts before it stop all packets. This is the first.
    AllStopped(&'a Obstacle),
    /// All except those that these verdicts stop. The first one stops most.
    SomeStopped(Vec<&'a Obstacle>),
    All,
}

/// The loaded rules, as far as doctor judges them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ruleset {
    /// In the order of hooks and priorities.
    pub(crate) log_rules: Vec<LogRule>,
    pub(crate) unreachable: Vec<Unreachable>,
    pub(crate) nats: Vec<Nat>,
    /// Names of flowtables in use. Their packets bypass all rules.
    pub(crate) flowtables: Vec<String>,
    pub(crate) unreadable: Vec<Unreadable>,
}

/// Rules that are loaded but cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) what: String,
    pub(crate) cure: String,
}

impl LogRule {
    pub(crate) fn reach(&self, family: Family) -> Reach<'_> {
        if let Some(never) = self.impossible_condition() {
            return Reach::NeverMatches(never);
        }
        let own = self.conditions.of(family);
        let meets = |it: &&Obstacle| it.conditions.of(family).overlap(&own);
        let obstacles: Vec<&Obstacle> = self.obstacles.iter().filter(meets).collect();
        let stops_all = |it: &&&Obstacle| own.are_within(&it.conditions);
        let stopped = obstacles.iter().filter(stops_all);
        let paths = stopped.fold(Paths::NONE, |paths, it| paths.or(it.paths));
        if self.hook.paths().are_within(paths) {
            let first = obstacles.iter().find(stops_all);
            return first.map_or(Reach::All, |first| Reach::AllStopped(first));
        }
        let mut obstacles = obstacles;
        obstacles.sort_by_key(|it| it.rarity(&own));
        if obstacles.is_empty() {
            Reach::All
        } else {
            Reach::SomeStopped(obstacles)
        }
    }

    /// The least bytes to copy, so that acctd sees an IP header.
    pub(crate) fn needed_snaplen(&self, family: Family) -> u32 {
        // 20 or 40.
        let header = u32::try_from(family.header_length()).unwrap_or(u32::MAX);
        match self.hook {
            // An Ethernet header comes first. On ingress the payload begins with the IP header.
            Hook::Egress => header + 14,
            _ => header,
        }
    }

    /// The rule's condition that no packet matches.
    pub(crate) fn impossible_condition(&self) -> Option<&Match> {
        let matches = self.conditions.matches.iter();
        let of_hook = matches.map(|it| &**it);
        let mut of_hook = of_hook.filter(|it| is_never_on(self.hook, it));
        of_hook
            .next()
            .or_else(|| self.conditions.impossible_match())
    }

    /// The interface conditions, each with its names and patterns.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = (&Match, Vec<&str>)> {
        let matches = self.conditions.matches.iter();
        matches
            .filter(|it| matches!(it.key, Key::InInterface | Key::OutInterface))
            .filter_map(|it| Some((&**it, it.words()?)))
    }
}

impl Obstacle {
    /// What it does with packets, as a verb: `drops`.
    pub(crate) fn verb(&self) -> &'static str {
        match self.verdict {
            Verdict::Accept => "accepts",
            Verdict::Drop => "drops",
            Verdict::Reject => "rejects",
            Verdict::Queue => "queues",
            Verdict::Return => "returns",
            Verdict::Unknown => "has an unknown action for",
        }
    }

    /// `, on input at priority 0`, if it is in an earlier base chain.
    pub(crate) fn place(&self) -> String {
        match self.earlier_base {
            Some((hook, priority)) => format!(", on {} at priority {priority}", hook.name()),
            None => String::new(),
        }
    }

    /// A higher number means that it stops fewer packets of `own`.
    pub(crate) fn rarity(&self, own: &Conditions) -> u32 {
        let more = self.conditions.matches.iter();
        let more = more.filter(|it| !own.matches.iter().any(|other| other.implies(it)));
        let of_verdict = match self.verdict {
            Verdict::Unknown => 4,
            _ => 0,
        };
        more.map(|it| it.rarity()).sum::<u32>() + of_verdict
    }

    /// Whether it stops only invalid packets of `own`.
    pub(crate) fn stops_invalid(&self, own: &Conditions) -> bool {
        /// The rarity of conditions that only invalid packets match.
        const RARE: u32 = 8;
        let mut more = self.conditions.matches.iter();
        more.any(|it| it.rarity() >= RARE && !own.matches.iter().any(|other| other.implies(it)))
    }

    /// Whether it stops just the packets of established connections of `own`.
    pub(crate) fn is_of_established(&self, own: &Conditions) -> bool {
        let more = self.conditions.matches.iter();
        let mut more = more.filter(|it| !own.matches.iter().any(|other| other.implies(it)));
        let is_state = |it: &&Arc<Match>| {
            it.key == Key::State
                && it
                    .words()
                    .is_some_and(|states| states.contains(&"established"))
        };
        more.next().is_some_and(|first| is_state(&first)) && more.next().is_none()
    }
}
