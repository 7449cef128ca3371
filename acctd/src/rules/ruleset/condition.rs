//! The conditions of a rule, and how they relate: whether one implies or excludes another.
//!
//! A condition that acctd does not understand is implied only by the same text, and excludes nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::prefix::Family;
use crate::rules::devices::patterns_overlap;

/// A set of IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Families(u8);

impl Families {
    /// Frames of other protocols.
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const IP4: Self = Self(1);
    pub(crate) const IP6: Self = Self(2);
    pub(crate) const BOTH: Self = Self(3);

    pub(crate) fn of(family: Family) -> Self {
        match family {
            Family::Ip4 => Self::IP4,
            Family::Ip6 => Self::IP6,
        }
    }

    /// Accepts the names of nft and the Ethernet types; another protocol is none of both.
    pub(super) fn parse(name: &str) -> Self {
        match name {
            "ipv4" | "ip" | "0x0800" => Self::IP4,
            "ipv6" | "ip6" | "0x86dd" => Self::IP6,
            _ => Self::NONE,
        }
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, family: Family) -> bool {
        self.0 & Self::of(family).0 != 0
    }
}

/// The property of a packet that a condition tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    InInterface,
    OutInterface,
    /// The transport protocol.
    Protocol,
    /// The state in connection tracking.
    State,
    Source,
    Dest,
    /// CPU or hash: rules use it to distribute packets.
    Spread,
    /// A limit, a quota or chance: of identical packets, some match and others do not.
    Limit,
    /// The same, but usual traffic has no such packets: those above a quota that is not used up, or above a limit per
    /// source that is high enough.
    Excess,
    /// Only invalid packets match: bad flags, no route back to the source.
    Sanity,
    /// By its name.
    Other(String),
}

/// Packets per second or connections of one source. Below this limit, usual traffic may match.
pub(super) const MANY_A_SECOND: u64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number or name. Interface names may end in `*`.
    Word(String),
    Net(IpNet),
    /// A value that acctd does not understand, as text.
    Opaque(String),
}

/// Which values match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// Any of these. Without a value, no packet matches.
    In(Vec<Value>),
    NotIn(Vec<Value>),
    /// acctd does not understand it.
    Opaque,
}

/// The named set in a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetUse {
    pub(crate) name: String,
    pub(crate) is_empty: bool,
    /// Rules add elements, or elements time out.
    pub(crate) is_dynamic: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) key: Key,
    pub(crate) test: Test,
    /// As the rule writes it.
    pub(crate) text: String,
    pub(crate) set: Option<SetUse>,
}

/// All states of connection tracking.
const STATES: [&str; 5] = ["new", "established", "related", "invalid", "untracked"];

impl Value {
    /// A network if the key is an address, else a word.
    pub(super) fn of(key: &Key, text: &str) -> Self {
        let net = || match text.parse::<IpNet>() {
            Ok(net) => Some(net),
            Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
        };
        match key {
            Key::Source | Key::Dest => {
                net().map_or_else(|| Self::Opaque(text.to_owned()), Self::Net)
            }
            _ => Self::Word(text.to_owned()),
        }
    }

    /// Whether this value includes all that `other` includes.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Word(one), Self::Word(other)) => {
                one == other
                    || one
                        .strip_suffix('*')
                        .is_some_and(|stem| other.starts_with(stem))
            }
            (Self::Net(one), Self::Net(other)) => one.contains(other),
            _ => self == other,
        }
    }

    /// Whether a packet may match both values.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Word(one), Self::Word(other)) => patterns_overlap(one, other),
            (Self::Net(one), Self::Net(other)) => one.contains(other) || other.contains(one),
            _ => true,
        }
    }
}

impl Match {
    /// `wanted` are the values of `key` that match; `text` is how the rule writes it.
    pub(crate) fn new(key: Key, wanted: Test, text: String) -> Self {
        let wanted = match (&key, wanted) {
            // There are few states. As a list of matching values, conditions can be compared.
            (Key::State, Test::NotIn(values)) => {
                let others = STATES.iter().map(|state| Value::Word((*state).to_owned()));
                Test::In(others.filter(|state| !values.contains(state)).collect())
            }
            (_, wanted) => wanted,
        };
        Self {
            key,
            test: wanted,
            text,
            set: None,
        }
    }

    pub(super) fn opaque(key: Key, text: String) -> Self {
        Self::new(key, Test::Opaque, text)
    }

    /// No packet matches.
    pub(crate) fn is_never(&self) -> bool {
        matches!(&self.test, Test::In(values) if values.is_empty())
    }

    /// Of identical packets, some match and others do not.
    pub(crate) fn is_by_chance(&self) -> bool {
        matches!(self.key, Key::Limit | Key::Excess)
    }

    /// All packets match, except those that the host sends to itself. Nobody bills these.
    fn excludes_only_loopback(&self) -> bool {
        let is_loopback = |it: &Value| *it == Value::Word("lo".into());
        matches!(self.key, Key::InInterface | Key::OutInterface)
            && matches!(&self.test, Test::NotIn(values) if values.iter().all(is_loopback))
    }

    /// The values, if all are words.
    pub(crate) fn words(&self) -> Option<Vec<&str>> {
        let Test::In(values) = &self.test else {
            return None;
        };
        let words = values.iter().map(|value| match value {
            Value::Word(word) => Some(word.as_str()),
            _ => None,
        });
        words.collect()
    }

    /// The values, if all are networks.
    pub(crate) fn nets(&self) -> Option<Vec<IpNet>> {
        let Test::In(values) = &self.test else {
            return None;
        };
        let nets = values.iter().map(|value| match value {
            Value::Net(net) => Some(*net),
            _ => None,
        });
        nets.collect()
    }

    /// Whether all packets that match this also match `other`.
    pub(crate) fn implies(&self, other: &Self) -> bool {
        if self.key != other.key || self.is_by_chance() {
            return false;
        }
        match (&self.test, &other.test) {
            (Test::In(own), Test::In(others)) => own
                .iter()
                .all(|value| others.iter().any(|it| it.covers(value))),
            (Test::In(own), Test::NotIn(others)) => own
                .iter()
                .all(|value| others.iter().all(|it| !it.overlaps(value))),
            (Test::NotIn(own), Test::NotIn(others)) => others
                .iter()
                .all(|value| own.iter().any(|it| it.covers(value))),
            (Test::Opaque, Test::Opaque) => self.text == other.text,
            _ => false,
        }
    }

    /// Whether no packet matches both.
    pub(crate) fn excludes(&self, other: &Self) -> bool {
        if self.key != other.key || self.is_by_chance() || self.key == Key::Sanity {
            return false;
        }
        match (&self.test, &other.test) {
            (Test::In(own), Test::In(others)) => own
                .iter()
                .all(|value| others.iter().all(|it| !it.overlaps(value))),
            (Test::In(values), Test::NotIn(not)) | (Test::NotIn(not), Test::In(values)) => values
                .iter()
                .all(|value| not.iter().any(|it| it.covers(value))),
            _ => false,
        }
    }

    /// A higher number means that fewer packets of usual traffic match.
    pub(crate) fn rarity(&self) -> u32 {
        match (&self.key, self.words()) {
            (Key::State, Some(states)) if states.contains(&"established") => 1,
            (Key::InInterface | Key::OutInterface | Key::Protocol | Key::Spread, _) => 2,
            (Key::State, Some(states)) if states.contains(&"new") => 4,
            (Key::Source | Key::Dest | Key::Other(_), _) | (Key::State, None) => 3,
            (Key::Limit, _) => 5,
            (Key::State | Key::Sanity | Key::Excess, _) => 8,
        }
    }
}

/// All conditions that a packet has matched on its path to a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conditions {
    pub(crate) families: Families,
    /// All of these must match.
    pub(crate) matches: Vec<Arc<Match>>,
}

impl Conditions {
    pub(crate) fn any() -> Self {
        Self {
            families: Families::BOTH,
            matches: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, more: &Arc<Match>) {
        let is_there =
            |it: &Arc<Match>| Arc::ptr_eq(it, more) || (**it == **more && !it.is_by_chance());
        if !self.matches.iter().any(is_there) {
            self.matches.push(Arc::clone(more));
        }
    }

    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.families = both.families.and(other.families);
        for more in &other.matches {
            both.add(more);
        }
        both
    }

    /// Restricted to one family.
    pub(crate) fn of(&self, family: Family) -> Self {
        Self {
            families: self.families.and(Families::of(family)),
            matches: self.matches.clone(),
        }
    }

    /// Whether it is certain that no packet matches all of them.
    pub(crate) fn are_impossible(&self) -> bool {
        self.families.is_empty() || self.impossible_match().is_some()
    }

    /// The first condition that no packet matches, alone or together with an earlier one.
    pub(crate) fn impossible_match(&self) -> Option<&Match> {
        let with_others = self.matches.iter().enumerate();
        with_others
            .filter(|(at, one)| {
                one.is_never() || self.matches[..*at].iter().any(|it| it.excludes(one))
            })
            .map(|(_, one)| &**one)
            .next()
    }

    /// Whether all packets that match these also match `others`.
    pub(crate) fn are_within(&self, others: &Self) -> bool {
        self.families.without(others.families).is_empty()
            && others.matches.iter().all(|wanted| {
                wanted.excludes_only_loopback()
                    || self.matches.iter().any(|own| own.implies(wanted))
            })
    }

    /// Whether a packet may match both.
    pub(crate) fn overlap(&self, others: &Self) -> bool {
        !self.families.and(others.families).is_empty()
            && !self
                .matches
                .iter()
                .any(|own| others.matches.iter().any(|other| own.excludes(other)))
    }

    /// Only family and interfaces, because NAT may change addresses on the path.
    pub(crate) fn interfaces(&self) -> Self {
        let mut only = self.clone();
        only.matches
            .retain(|it| matches!(it.key, Key::InInterface | Key::OutInterface));
        only
    }

    /// Whether only packets match that the host sends to itself. Nobody bills these.
    pub(crate) fn are_of_loopback(&self) -> bool {
        self.matches.iter().any(|it| {
            matches!(it.key, Key::InInterface | Key::OutInterface)
                && it.words().is_some_and(|words| words == ["lo"])
        })
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.matches.iter().map(|it| it.text.as_str()).collect();
        write!(f, "{}", texts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(key: &Key, words: &str) -> Vec<Value> {
        words
            .split_whitespace()
            .map(|word| Value::of(key, word))
            .collect()
    }

    fn within(key: Key, words: &str) -> Match {
        let test = Test::In(values(&key, words));
        Match::new(key, test, words.to_owned())
    }

    fn outside(key: Key, words: &str) -> Match {
        let test = Test::NotIn(values(&key, words));
        Match::new(key, test, words.to_owned())
    }

    #[test]
    fn a_narrow_condition_implies_a_wide_one_and_excludes_a_disjoint_one() {
        use Key::{InInterface, Source, State};
        let lan = within(InInterface, "lan0");
        assert!(lan.implies(&within(InInterface, "lan* wan0")));
        assert!(!within(InInterface, "lan*").implies(&lan));
        assert!(lan.excludes(&within(InInterface, "wan0")));
        assert!(
            lan.implies(&outside(InInterface, "lo")) && !lan.excludes(&outside(InInterface, "lo"))
        );
        assert!(lan.excludes(&outside(InInterface, "lan0 lo")));
        let host = within(Source, "10.0.0.1");
        assert!(host.implies(&within(Source, "10.0.0.0/8")));
        assert!(host.excludes(&within(Source, "192.0.2.0/24 2001:db8::/32")));
        assert!(within(State, "established").excludes(&outside(State, "established related")));
        assert!(
            outside(State, "new invalid untracked").implies(&within(State, "established related"))
        );
        assert!(within(Source, "").is_never());
    }

    #[test]
    fn an_unknown_condition_is_implied_only_by_itself_and_a_limit_by_nothing() {
        let opaque = |key: Key| Match::opaque(key, "x".into());
        let other = Key::Other("x".into());
        assert!(opaque(other.clone()).implies(&opaque(other.clone())));
        assert!(!opaque(Key::Source).implies(&within(Key::Source, "10.0.0.0/8")));
        assert!(!within(Key::Source, "10.0.0.1").implies(&opaque(Key::Source)));
        assert!(!opaque(Key::Limit).implies(&opaque(Key::Limit)));
        assert!(!opaque(other).excludes(&opaque(Key::Source)));
    }
}
