//! A rule that logs to a group, what must hold for a packet to meet it, and what is before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::condition::{Conditions, Key, Match};
use super::model::{Hook, Quote, Verdict, Ways};
use crate::model::prefix::Family;
use crate::rules::ruleset::model::is_never_on;

/// A rule that logs to a group, as packets of one base chain meet it.
#[derive(Clone, Debug)]
pub struct LogRule {
    /// The group.
    pub group: u16,
    /// Bytes to copy, if the rule says so.
    pub snaplen: Option<u32>,
    /// Packets in a batch, if the rule says so.
    pub threshold: Option<u32>,
    /// With an option that does nothing (`--nflog-range`).
    pub has_range: bool,
    /// The hook.
    pub hook: Hook,
    /// The base chain's priority.
    pub priority: i64,
    /// In a bridge, not in IP.
    pub is_bridge: bool,
    /// In a chain of type nat, which sees the first packet of each connection alone.
    pub is_nat: bool,
    /// The versions of IP that it may match.
    pub families: BTreeSet<u8>,
    /// What must hold of a packet that it logs; more than one chain may add to it.
    pub conditions: Conditions,
    /// What may stop packets before it.
    pub obstacles: Vec<Obstacle>,
    /// Where it is: `chain input of table inet acctd`.
    pub place: String,
    /// It.
    pub quote: Arc<Quote>,
}

/// A verdict before a rule that logs.
#[derive(Clone, Debug)]
pub struct Obstacle {
    /// The rule that has it.
    pub quote: Arc<Quote>,
    /// What becomes of the packets.
    pub verdict: Verdict,
    /// Which packets.
    pub conditions: Conditions,
    /// On which of their ways.
    pub ways: Ways,
    /// In another base chain, which packets pass before: its hook and priority.
    pub elsewhere: Option<(Hook, i64)>,
}

/// A rule that changes addresses.
#[derive(Clone, Debug)]
pub struct Nat {
    /// The source, else the destination.
    pub is_source: bool,
    /// Of packets of these interfaces.
    pub conditions: Conditions,
    /// It.
    pub quote: Arc<Quote>,
}

/// A rule that logs and to which no packet comes.
#[derive(Clone, Debug)]
pub struct Unreachable {
    /// The group.
    pub group: u16,
    /// It.
    pub quote: Arc<Quote>,
    /// Its table is switched off; else no chain with a hook jumps to it.
    pub is_dormant: bool,
}

/// How much of its packets come to a rule that logs.
#[derive(Clone, Debug)]
pub enum Reach<'a> {
    /// None: one of its own conditions is met by no packet.
    Never(&'a Match),
    /// None: this stops all before it.
    Nothing(&'a Obstacle),
    /// Those that none of these stops, which come in the order of what they stop, worst first.
    Some(Vec<&'a Obstacle>),
    /// All.
    All,
}

/// All that matters of what is loaded.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// The rules that packets meet.
    pub log_rules: Vec<LogRule>,
    /// Those that they do not.
    pub unreachable: Vec<Unreachable>,
    /// What changes addresses.
    pub nats: Vec<Nat>,
    /// Flowtables that packets are given to, past all rules.
    pub flowtables: Vec<String>,
    /// What could not be read, with the reason, and with what would help.
    pub unreadable: Vec<Unreadable>,
}

/// Rules that are loaded but cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which, and why.
    pub what: String,
    /// What to do.
    pub cure: String,
}

impl LogRule {
    /// How much of that family's packets come to it.
    #[must_use]
    pub fn reach(&self, family: Family) -> Reach<'_> {
        if let Some(never) = self.never() {
            return Reach::Never(never);
        }
        let own = self.conditions.of(family);
        let meets = |it: &&Obstacle| it.conditions.of(family).meet(&own);
        let obstacles: Vec<&Obstacle> = self.obstacles.iter().filter(meets).collect();
        let stops_all = |it: &&&Obstacle| own.are_within(&it.conditions);
        let stopped = obstacles.iter().filter(stops_all);
        let ways = stopped.fold(Ways::NONE, |ways, it| ways.or(it.ways));
        if self.hook.ways().are_within(ways) {
            let first = obstacles.iter().find(stops_all);
            return first.map_or(Reach::All, |first| Reach::Nothing(first));
        }
        let mut obstacles = obstacles;
        obstacles.sort_by_key(|it| it.rarity(&own));
        if obstacles.is_empty() {
            Reach::All
        } else {
            Reach::Some(obstacles)
        }
    }

    /// The condition of its own that no packet meets.
    #[must_use]
    pub fn never(&self) -> Option<&Match> {
        let matches = self.conditions.matches.iter();
        let of_hook = matches.map(|it| &**it);
        let mut of_hook = of_hook.filter(|it| is_never_on(self.hook, it));
        of_hook
            .next()
            .or_else(|| self.conditions.impossible_match())
    }

    /// Names and patterns of the interfaces that it asks for, each list by the one condition that has it.
    pub fn interfaces(&self) -> impl Iterator<Item = (&Match, Vec<&str>)> {
        let matches = self.conditions.matches.iter();
        matches
            .filter(|it| matches!(it.key, Key::InInterface | Key::OutInterface))
            .filter_map(|it| Some((&**it, it.words()?)))
    }
}

impl Obstacle {
    /// How few it stops of the packets of `own`: the more, the fewer.
    #[must_use]
    pub fn rarity(&self, own: &Conditions) -> u32 {
        let more = self.conditions.matches.iter();
        let more = more.filter(|it| !own.matches.iter().any(|other| other.implies(it)));
        let of_verdict = match self.verdict {
            Verdict::Unknown => 4,
            _ => 0,
        };
        more.map(|it| it.rarity()).sum::<u32>() + of_verdict
    }

    /// It stops what is wrong in itself alone, of the packets of `own`.
    #[must_use]
    pub fn is_for_sanity(&self, own: &Conditions) -> bool {
        /// Of a match that few packets meet.
        const RARE: u32 = 8;
        let mut more = self.conditions.matches.iter();
        more.any(|it| it.rarity() >= RARE && !own.matches.iter().any(|other| other.implies(it)))
    }

    /// It stops packets of connections that are there already, and no others, of the packets of `own`.
    #[must_use]
    pub fn is_of_established(&self, own: &Conditions) -> bool {
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
