//! What is known of a flow, in the words of rules.

use ipnet::IpNet;

use super::situation::Situation;
use crate::model::prefix::Family;
use crate::rules::ruleset::condition::{Key, Match, Test, Value};
use crate::rules::ruleset::log_rule::LogRule;
use crate::rules::ruleset::model::{Hook, Paths};
use crate::sampling::header::{Flow, protocol};
use crate::sampling::report::Passed;

/// A flow that passed an interface.
pub(super) struct View<'a> {
    pub(super) passed: &'a Passed,
    pub(super) family: Family,
    /// The interface by which IP knows it; `None` if that is not certain.
    pub(super) interface: Option<String>,
    /// The bridge, if the interface is a port of one.
    pub(super) bridge: Option<String>,
    /// The paths that its packets may take.
    pub(super) paths: Paths,
}

/// Whether a packet of the flow matches a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// It may change on the packet's path.
    ProbablyNot,
    Unknown,
}

impl<'a> View<'a> {
    pub(super) fn of(passed: &'a Passed, situation: &Situation) -> Self {
        let Flow { source, dest, .. } = passed.flow;
        let known = situation.interface(&passed.interface);
        let bridge = known.and_then(|it| it.master("bridge")).map(str::to_owned);
        let master = known.and_then(|it| it.port_of.as_ref());
        let interface = match master {
            _ if passed.vlan & VLAN_ID != 0 => {
                let mut vlans = situation.vlans.iter();
                let is_it = |(below, vlan, _): &&(String, u16, String)| {
                    *below == passed.interface && *vlan == passed.vlan & VLAN_ID
                };
                vlans.find(is_it).map(|(.., name)| name.clone())
            }
            Some(master) if matches!(&*master.kind, "bridge" | "bond" | "team") => {
                Some(master.name.clone())
            }
            // Rules see the port and then the VRF.
            Some(_) => None,
            None => Some(passed.interface.clone()),
        };
        let has_nat = |is_source| {
            let mut nats = situation.ruleset.nats.iter();
            nats.any(|it| it.is_source == is_source)
        };
        let paths = if !passed.is_egress {
            match (situation.is_local(dest), has_nat(false)) {
                (true, true) => Paths::INPUT.or(Paths::FORWARD),
                (true, false) => Paths::INPUT,
                (false, _) => Paths::FORWARD,
            }
        } else if !situation.is_local(source) {
            Paths::FORWARD
        } else if has_nat(true) {
            Paths::OUTPUT.or(Paths::FORWARD)
        } else {
            Paths::OUTPUT
        };
        Self {
            passed,
            family: passed.flow.family(),
            interface,
            bridge,
            paths,
        }
    }

    /// The interface as rules on this hook see it.
    pub(super) fn interface_on(&self, rule: &LogRule) -> Option<&str> {
        let is_link_layer = matches!(rule.hook, Hook::Ingress | Hook::Egress) || rule.is_bridge;
        if is_link_layer && self.passed.vlan & VLAN_ID == 0 {
            return Some(&self.passed.interface);
        }
        self.interface.as_deref()
    }

    /// The hook on which a rule of the same side would see it.
    pub(super) fn hook(&self) -> Hook {
        match (self.paths, self.passed.is_egress) {
            (Paths::INPUT, _) => Hook::Input,
            (Paths::OUTPUT, _) => Hook::Output,
            (Paths::FORWARD, _) => Hook::Forward,
            (_, true) => Hook::Postrouting,
            (_, false) => Hook::Prerouting,
        }
    }

    /// Whether a packet of the flow matches a condition of a rule, or of a verdict before it.
    pub(super) fn matches(&self, condition: &Match, rule: &LogRule) -> Answer {
        let flow = &self.passed.flow;
        let word = |word: &str| Value::Word(word.to_owned());
        let net = |address| Value::Net(IpNet::from(address));
        let value = match &condition.key {
            Key::InInterface if !self.passed.is_egress => self.interface_on(rule).map(word),
            Key::OutInterface if self.passed.is_egress => self.interface_on(rule).map(word),
            Key::Protocol => Some(word(&flow.protocol_name())),
            Key::Source => Some(net(flow.source)),
            Key::Dest => Some(net(flow.dest)),
            Key::Other(name) => self.other(name).map(|it| word(&it)),
            _ => None,
        };
        let Some(value) = value else {
            return Answer::Unknown;
        };
        let own = Match::new(condition.key.clone(), Test::In(vec![value]), String::new());
        let is_mark = condition.key == Key::Other("meta mark".into());
        if own.implies(condition) {
            Answer::Yes
        } else if own.excludes(condition) {
            if is_mark {
                Answer::ProbablyNot
            } else {
                Answer::No
            }
        } else {
            Answer::Unknown
        }
    }

    /// A field that rules name in words.
    fn other(&self, name: &str) -> Option<String> {
        let Flow {
            ports, icmp_type, ..
        } = &self.passed.flow;
        let (kind, field) = name.split_once(' ')?;
        match (kind, field) {
            ("tcp" | "udp" | "sctp" | "dccp" | "th", "sport") => {
                ports.map(|[it, _]| it.to_string())
            }
            ("tcp" | "udp" | "sctp" | "dccp" | "th", "dport") => {
                ports.map(|[_, it]| it.to_string())
            }
            ("icmp" | "icmpv6", "type") => (*icmp_type).map(|kind| self.icmp_name(kind)),
            ("meta", "mark") => Some(self.passed.mark.to_string()),
            _ => None,
        }
    }

    /// As nft names it.
    fn icmp_name(&self, kind: u8) -> String {
        let name = match (self.passed.flow.protocol, kind) {
            (protocol::ICMP, 0) | (protocol::ICMP6, 129) => "echo-reply",
            (protocol::ICMP, 8) | (protocol::ICMP6, 128) => "echo-request",
            (protocol::ICMP, 3) | (protocol::ICMP6, 1) => "destination-unreachable",
            (protocol::ICMP, 11) | (protocol::ICMP6, 3) => "time-exceeded",
            (protocol::ICMP6, 135) => "nd-neighbor-solicit",
            (protocol::ICMP6, 136) => "nd-neighbor-advert",
            _ => return kind.to_string(),
        };
        name.to_owned()
    }
}

const VLAN_ID: u16 = 0xfff;
