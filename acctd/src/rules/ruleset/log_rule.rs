//! A rule that logs to a group, what must hold for a packet to meet it, and what is before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::condition::{Conditions, Key, Match};
use super::model::{Hook, Paths, Quote, Verdict};
use crate::model::prefix::Family;
use crate::rules::ruleset::model::is_never_on;

/// A rule that logs to a group, as packets of one base chain meet it.
#[derive(Clone, Debug)]
pub(crate) struct LogRule {
    /// The group.
    pub(crate) group: u16,
    /// Bytes to copy, if the rule says so.
    pub(crate) snaplen: Option<u32>,
    /// Packets in a batch, if the rule says so.
    pub(crate) threshold: Option<u32>,
    /// With an option that does nothing (`--nflog-range`).
    pub(crate) has_range: bool,
    /// The hook.
    pub(crate) hook: Hook,
    /// The base chain's priority.
    pub(crate) priority: i64,
    /// In a bridge, not in IP.
    pub(crate) is_bridge: bool,
    /// In a chain of type nat, which sees the first packet of each connection alone.
    pub(crate) is_nat: bool,
    /// The versions of IP that it may match.
    pub(crate) families: BTreeSet<u8>,
    /// What must hold of a packet that it logs; more than one chain may add to it.
    pub(crate) conditions: Conditions,
    /// What may stop packets before it.
    pub(crate) obstacles: Vec<Obstacle>,
    /// It.
    pub(crate) quote: Arc<Quote>,
}

/// A verdict before a rule that logs.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    /// The rule that has it.
    pub(crate) quote: Arc<Quote>,
    /// What becomes of the packets.
    pub(crate) verdict: Verdict,
    /// Which packets.
    pub(crate) conditions: Conditions,
    /// On which of their ways.
    pub(crate) paths: Paths,
    /// In another base chain, which packets pass before: its hook and priority.
    pub(crate) earlier_base: Option<(Hook, i64)>,
}

/// A rule that changes addresses.
#[derive(Clone, Debug)]
pub(crate) struct Nat {
    /// The source, else the destination.
    pub(crate) is_source: bool,
    /// Of packets of these interfaces.
    pub(crate) conditions: Conditions,
    /// It.
    pub(crate) quote: Arc<Quote>,
}

/// A rule that logs and to which no packet comes.
#[derive(Clone, Debug)]
pub(crate) struct Unreachable {
    /// The group.
    pub(crate) group: u16,
    /// It.
    pub(crate) quote: Arc<Quote>,
    /// Its table is switched off; else no chain with a hook jumps to it.
    pub(crate) is_dormant: bool,
}

/// How much of its packets come to a rule that logs.
#[derive(Clone, Debug)]
pub(crate) enum Reach<'a> {
    /// None: one of its own conditions is met by no packet.
    NeverMatches(&'a Match),
    /// None: this stops all before it.
    AllStopped(&'a Obstacle),
    /// Those that none of these stops, which come in the order of what they stop, worst first.
    SomeStopped(Vec<&'a Obstacle>),
    /// All.
    All,
}

/// All that matters of what is loaded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ruleset {
    /// The rules that packets meet.
    pub(crate) log_rules: Vec<LogRule>,
    /// Those that they do not.
    pub(crate) unreachable: Vec<Unreachable>,
    /// What changes addresses.
    pub(crate) nats: Vec<Nat>,
    /// Flowtables that packets are given to, past all rules.
    pub(crate) flowtables: Vec<String>,
    /// What could not be read, with the reason, and with what would help.
    pub(crate) unreadable: Vec<Unreadable>,
}

/// Rules that are loaded but cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Which, and why.
    pub(crate) what: String,
    /// What to do.
    pub(crate) cure: String,
}

impl LogRule {
    /// How much of that family's packets come to it.
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

    /// The condition of its own that no packet meets.
    pub(crate) fn impossible_condition(&self) -> Option<&Match> {
        let matches = self.conditions.matches.iter();
        let of_hook = matches.map(|it| &**it);
        let mut of_hook = of_hook.filter(|it| is_never_on(self.hook, it));
        of_hook
            .next()
            .or_else(|| self.conditions.impossible_match())
    }

    /// Names and patterns of the interfaces that it asks for, each list by the one condition that has it.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = (&Match, Vec<&str>)> {
        let matches = self.conditions.matches.iter();
        matches
            .filter(|it| matches!(it.key, Key::InInterface | Key::OutInterface))
            .filter_map(|it| Some((&**it, it.words()?)))
    }
}

impl Obstacle {
    /// How few it stops of the packets of `own`: the more, the fewer.
    pub(crate) fn rarity(&self, own: &Conditions) -> u32 {
        let more = self.conditions.matches.iter();
        let more = more.filter(|it| !own.matches.iter().any(|other| other.implies(it)));
        let of_verdict = match self.verdict {
            Verdict::Unknown => 4,
            _ => 0,
        };
        more.map(|it| it.rarity()).sum::<u32>() + of_verdict
    }

    /// It stops what is wrong in itself alone, of the packets of `own`.
    pub(crate) fn stops_invalid(&self, own: &Conditions) -> bool {
        /// Of a match that few packets meet.
        const RARE: u32 = 8;
        let mut more = self.conditions.matches.iter();
        more.any(|it| it.rarity() >= RARE && !own.matches.iter().any(|other| other.implies(it)))
    }

    /// It stops packets of connections that are there already, and no others, of the packets of `own`.
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
