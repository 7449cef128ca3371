//! The rules that are loaded, by nft and by iptables, and where a packet meets those that log to an NFLOG
//! group. Pure: what the programs print is passed in.
//!
//! ```text
//!  nft -j list ruleset ─► nft ──────┐
//!                                   ├─► model ─► walk ─► log rules, each with what must hold and what is before it
//!  iptables-…-save ─────► iptables ─┘
//! ```
//!
//! nft also prints what iptables-nft has loaded, but not in full: such tables are read from what
//! `iptables-nft-save` prints. The rules of the older iptables come from `iptables-legacy-save`.

pub mod condition;
mod earlier;
mod iptables;
pub mod model;
mod nft;
mod nft_text;
mod sets;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::model::prefix::Family;
use condition::{Conditions, Key, Match};
pub use model::Hook;
use model::{Chain, Quote, Verdict, Ways};

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

/// The devices of chains of the family netdev, by table and chain, since nft's JSON lacks them.
pub type Devices = BTreeMap<(String, String), Vec<String>>;

/// What is read before it is gone through.
#[derive(Debug, Default)]
pub struct Reading {
    chains: Vec<Chain>,
    hidden: BTreeMap<String, usize>,
    with_extensions: BTreeSet<String>,
    unreadable: Vec<Unreadable>,
}

impl Reading {
    /// Adds what `nft -j list ruleset` prints; the tables in `dormant` are switched off.
    pub fn add_nft(&mut self, json: &Value, devices: &Devices, dormant: &BTreeSet<String>) {
        let read = nft::read(json, devices, dormant);
        self.chains.extend(read.chains);
        self.hidden.extend(read.hidden);
        self.with_extensions.extend(read.with_extensions);
    }

    /// Whether nft has not shown all of what iptables has loaded for this family.
    #[must_use]
    pub fn lacks_iptables(&self, family: Family) -> bool {
        let prefix = format!("{} ", nft_family(family));
        let has = |table: &String| table.starts_with(&prefix);
        self.with_extensions.iter().any(has) || self.hidden.keys().any(has)
    }

    /// Puts what `iptables-nft-save` prints in the place of the tables that nft has shown, so that they stay
    /// in the order in which they were loaded.
    pub fn replace_by_iptables_nft(&mut self, text: &str, family: Family) {
        let mut saved = iptables::read(text, family);
        for name in text.lines().filter_map(|line| line.strip_prefix('*')) {
            let shown = format!("{} {name}", nft_family(family));
            let at = self.chains.iter().position(|chain| chain.table == shown);
            self.chains.retain(|chain| chain.table != shown);
            self.hidden.remove(&shown);
            let is_of_it = |chain: &Chain| chain.place.is_of_table(name);
            let (own, others) = saved.into_iter().partition(is_of_it);
            saved = others;
            let own: Vec<Chain> = own;
            let at = at.unwrap_or(self.chains.len());
            self.chains.splice(at..at, own);
        }
    }

    /// Adds what `iptables-save` or `ip6tables-save` prints.
    pub fn add_iptables(&mut self, text: &str, family: Family) {
        self.chains.extend(iptables::read(text, family));
    }

    /// Says what cannot be read.
    pub fn add_unreadable(&mut self, what: String, cure: String) {
        self.unreadable.push(Unreadable { what, cure });
    }

    /// Tables with rules of which something is not shown, and how many rules.
    #[must_use]
    pub fn hidden(&self) -> &BTreeMap<String, usize> {
        &self.hidden
    }

    /// Goes through them.
    #[must_use]
    pub fn finish(self) -> Ruleset {
        let mut ruleset = Ruleset {
            unreadable: self.unreadable,
            ..Ruleset::default()
        };
        walk::walk(&self.chains, &mut ruleset);
        ruleset
    }
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "ip",
        Family::Ip6 => "ip6",
    }
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
        let mut of_hook = of_hook.filter(|it| walk::is_never_on(self.hook, it));
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

#[cfg(test)]
mod tests;
