//! What a rule asks of a packet, and what one such condition says about another.
//!
//! What is not understood is a condition that nothing implies but its own text, and that excludes nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::model::prefix::Family;
use crate::rules::devices::patterns_overlap;

/// IPv4, IPv6, both or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Families(u8);

impl Families {
    /// Neither: frames of other protocols.
    pub(crate) const NONE: Self = Self(0);
    /// IPv4.
    pub(crate) const IP4: Self = Self(1);
    /// IPv6.
    pub(crate) const IP6: Self = Self(2);
    /// Both.
    pub(crate) const BOTH: Self = Self(3);

    /// That one.
    pub(crate) fn of(family: Family) -> Self {
        match family {
            Family::Ip4 => Self::IP4,
            Family::Ip6 => Self::IP6,
        }
    }

    /// By the names that nft and the kernel have for them; none for another protocol.
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

    /// Whether packets of that family are among them.
    pub(crate) fn contains(self, family: Family) -> bool {
        self.0 & Self::of(family).0 != 0
    }
}

/// What is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The interface by which it came.
    InInterface,
    /// The one by which it goes.
    OutInterface,
    /// Of the transport layer.
    Protocol,
    /// Of connection tracking.
    State,
    /// Its source address.
    Source,
    /// Its destination address.
    Dest,
    /// A CPU, a hash: what packets are spread by.
    Spread,
    /// Nothing in the packet: limits, quotas, chance. Some packets of those that are alike.
    Limit,
    /// The same, of which there are usually none: what is beyond a quota that is not used up, or a limit of each
    /// source that usual traffic stays below.
    Excess,
    /// What only packets that are wrong in themselves have: bad flags, no way back.
    Sanity,
    /// Something else, by its name.
    Other(String),
}

/// Packets of one source in a second, or its connections: fewer may be usual.
pub(super) const MANY_A_SECOND: u64 = 1_000;

/// One of the values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A number or name. Of an interface it may end in `*`.
    Word(String),
    /// Addresses.
    Net(IpNet),
    /// What is not understood, as text.
    Opaque(String),
}

/// Which values are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// One of these; of no value, nothing passes.
    In(Vec<Value>),
    /// None of these.
    NotIn(Vec<Value>),
    /// It is not understood.
    Opaque,
}

/// The named set that a condition asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetUse {
    /// Its name.
    pub(crate) name: String,
    /// Nothing is in it now.
    pub(crate) is_empty: bool,
    /// Elements come and go with packets or with time.
    pub(crate) is_dynamic: bool,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// What is looked at.
    pub(crate) key: Key,
    /// And for what.
    pub(crate) test: Test,
    /// As its rule has it.
    pub(crate) text: String,
    /// The set that it asks.
    pub(crate) set: Option<SetUse>,
}

/// All of connection tracking's states.
const STATES: [&str; 5] = ["new", "established", "related", "invalid", "untracked"];

impl Value {
    /// A word, or addresses where it is looked for those.
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

    /// All that the other one stands for, this one does too.
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

    /// There may be something that both stand for.
    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Word(one), Self::Word(other)) => patterns_overlap(one, other),
            (Self::Net(one), Self::Net(other)) => one.contains(other) || other.contains(one),
            _ => true,
        }
    }
}

impl Match {
    /// The condition that `key` passes `asked`; `text` is how its rule has it.
    pub(crate) fn new(key: Key, asked: Test, text: String) -> Self {
        let asked = match (&key, asked) {
            // Of a few values, so that what is excluded is known too.
            (Key::State, Test::NotIn(values)) => {
                let others = STATES.iter().map(|state| Value::Word((*state).to_owned()));
                Test::In(others.filter(|state| !values.contains(state)).collect())
            }
            (_, asked) => asked,
        };
        Self {
            key,
            test: asked,
            text,
            set: None,
        }
    }

    pub(super) fn opaque(key: Key, text: String) -> Self {
        Self::new(key, Test::Opaque, text)
    }

    /// No packet has it.
    pub(crate) fn is_never(&self) -> bool {
        matches!(&self.test, Test::In(values) if values.is_empty())
    }

    /// Of packets that are alike some have it and others not.
    pub(crate) fn is_by_chance(&self) -> bool {
        matches!(self.key, Key::Limit | Key::Excess)
    }

    /// All packets have it but those that a host sends to itself, which nobody bills.
    fn excludes_only_loopback(&self) -> bool {
        let is_loopback = |it: &Value| *it == Value::Word("lo".into());
        matches!(self.key, Key::InInterface | Key::OutInterface)
            && matches!(&self.test, Test::NotIn(values) if values.iter().all(is_loopback))
    }

    /// The words that are asked for, if it is that.
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

    /// The addresses that are asked for, if it is that.
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

    /// Packets that have this have the other too.
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

    /// No packet has both.
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

    /// How few packets have it, of the traffic that is usual: the more, the fewer.
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

/// What a packet has met on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conditions {
    /// The families that are left.
    pub(crate) families: Families,
    /// What else is asked, all of it.
    pub(crate) matches: Vec<Arc<Match>>,
}

impl Conditions {
    /// Any packet.
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

    /// Both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let mut both = self.clone();
        both.families = both.families.and(other.families);
        for more in &other.matches {
            both.add(more);
        }
        both
    }

    /// Those of one family alone.
    pub(crate) fn of(&self, family: Family) -> Self {
        Self {
            families: self.families.and(Families::of(family)),
            matches: self.matches.clone(),
        }
    }

    /// No packet meets them all, as far as can be told.
    pub(crate) fn are_impossible(&self) -> bool {
        self.families.is_empty() || self.impossible_match().is_some()
    }

    /// The condition that no packet meets, or not together with another one.
    pub(crate) fn impossible_match(&self) -> Option<&Match> {
        let with_others = self.matches.iter().enumerate();
        with_others
            .filter(|(at, one)| {
                one.is_never() || self.matches[..*at].iter().any(|it| it.excludes(one))
            })
            .map(|(_, one)| &**one)
            .next()
    }

    /// All packets of these are among those.
    pub(crate) fn are_within(&self, others: &Self) -> bool {
        self.families.without(others.families).is_empty()
            && others.matches.iter().all(|wanted| {
                wanted.excludes_only_loopback()
                    || self.matches.iter().any(|own| own.implies(wanted))
            })
    }

    /// There may be a packet of both.
    pub(crate) fn overlap(&self, others: &Self) -> bool {
        !self.families.and(others.families).is_empty()
            && !self
                .matches
                .iter()
                .any(|own| others.matches.iter().any(|other| own.excludes(other)))
    }

    /// The same for interfaces and family alone, as addresses may be changed on the way.
    pub(crate) fn interfaces(&self) -> Self {
        let mut only = self.clone();
        only.matches
            .retain(|it| matches!(it.key, Key::InInterface | Key::OutInterface));
        only
    }

    /// Those of what is said by a host to itself, which nobody bills.
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
    fn a_narrow_condition_implies_a_wide_one_and_excludes_what_is_elsewhere() {
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
    fn what_is_not_understood_is_implied_by_itself_alone_and_chance_by_nothing() {
        let opaque = |key: Key| Match::opaque(key, "x".into());
        let other = Key::Other("x".into());
        assert!(opaque(other.clone()).implies(&opaque(other.clone())));
        assert!(!opaque(Key::Source).implies(&within(Key::Source, "10.0.0.0/8")));
        assert!(!within(Key::Source, "10.0.0.1").implies(&opaque(Key::Source)));
        assert!(!opaque(Key::Limit).implies(&opaque(Key::Limit)));
        assert!(!opaque(other).excludes(&opaque(Key::Source)));
    }
}
