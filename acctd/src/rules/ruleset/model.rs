//! Chains and rules, in the same form for nft and iptables.

use std::fmt;
use std::sync::Arc;

use super::condition::{Conditions, Families, Match};
use crate::rules::ruleset::condition::{Key, Test};

/// In the order in which packets pass them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// Of netdev, before IP.
    Ingress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
    /// Of netdev, after IP.
    Egress,
}

impl Hook {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "ingress" => Self::Ingress,
            "prerouting" => Self::Prerouting,
            "input" => Self::Input,
            "forward" => Self::Forward,
            "output" => Self::Output,
            "postrouting" => Self::Postrouting,
            "egress" => Self::Egress,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }

    pub(crate) fn paths(self) -> Paths {
        match self {
            Self::Ingress | Self::Prerouting => Paths(Paths::INPUT.0 | Paths::FORWARD.0),
            Self::Input => Paths::INPUT,
            Self::Forward => Paths::FORWARD,
            Self::Output => Paths::OUTPUT,
            Self::Postrouting | Self::Egress => Paths(Paths::FORWARD.0 | Paths::OUTPUT.0),
        }
    }

    pub(crate) fn shares_path_with(self, other: Self) -> bool {
        self.paths().0 & other.paths().0 != 0
    }
}

/// A set of the paths of packets: to this host, through it, from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paths(u8);

impl Paths {
    pub(crate) const INPUT: Self = Self(1);
    pub(crate) const FORWARD: Self = Self(2);
    pub(crate) const OUTPUT: Self = Self(4);
    pub(crate) const ALL: Self = Self(7);
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn are_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }
}

/// What a rule does with packets that do not continue to the next rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ends this base chain only.
    Accept,
    /// No later base chain sees the packet.
    Drop,
    /// Like drop, with an answer to the sender.
    Reject,
    /// A program decides.
    Queue,
    /// Ends this chain only. In a base chain, the policy decides.
    Return,
    /// An unknown action, which may stop packets or not.
    Unknown,
}

impl Verdict {
    /// No later base chain sees the packets.
    pub(crate) fn ends_all(&self) -> bool {
        matches!(self, Self::Drop | Self::Reject)
    }
}

/// A log statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) group: u16,
    pub(crate) snaplen: Option<u32>,
    pub(crate) threshold: Option<u32>,
    /// It has `--nflog-range`, which has no effect.
    pub(crate) has_range: bool,
}

/// The chain of a rule, in the words of commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Table with its family, chain.
    Nft(String, String),
    /// `iptables` or `ip6tables`, table, chain.
    Iptables(&'static str, String, String),
}

impl Place {
    pub(super) fn is_of_table(&self, name: &str) -> bool {
        matches!(self, Self::Iptables(_, table, _) if table == name)
    }

    /// Whether `acctd rules` loads and replaces it.
    pub(crate) fn is_ours(&self) -> bool {
        match self {
            Self::Nft(table, _) => table.ends_with(" acctd"),
            Self::Iptables(_, _, chain) => chain.starts_with(crate::rules::names::CHAIN_PREFIX),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft(table, chain) => write!(f, "chain {chain} of table {table}"),
            Self::Iptables(program, table, chain) => {
                write!(f, "chain {chain} of table {program} {table}")
            }
        }
    }
}

/// A rule as messages quote it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// The rule, or `policy drop`.
    pub(crate) text: String,
    pub(crate) place: Arc<Place>,
    /// nft's number of the rule.
    pub(crate) handle: Option<u64>,
}

impl Quote {
    /// The command that removes it; `None` for a policy.
    pub(crate) fn removal(&self) -> Option<String> {
        match (&*self.place, self.handle) {
            (Place::Nft(table, chain), Some(handle)) => {
                Some(format!("nft delete rule {table} {chain} handle {handle}"))
            }
            (Place::Nft(..), None) => None,
            (Place::Iptables(program, table, _), _) => {
                let rule = self.text.strip_prefix("-A ")?;
                Some(format!("{program} -t {table} -D {rule}"))
            }
        }
    }
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            text,
            place,
            handle,
        } = self;
        match handle {
            Some(handle) => write!(f, "'{text}' ({place}, handle {handle})"),
            None => write!(f, "'{text}' ({place})"),
        }
    }
}

/// A part of a rule. A rule runs its steps in order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Packets of other families continue with the next rule.
    Restrict(Families),
    /// Packets that do not match continue with the next rule.
    Match(Arc<Match>),
    Log(Log),
    Verdict(Verdict),
    Jump(String),
    /// Without return to this rule's chain.
    Goto(String),
    /// A verdict map: for each element, a condition and an action.
    Branches(Vec<Vec<Step>>),
    /// Changes the source address, else the destination.
    Nat {
        is_source: bool,
    },
    /// Adds the flow to a flowtable.
    Flow(String),
}

#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) quote: Arc<Quote>,
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// Jumps stay within a table.
    pub(super) table: String,
    pub(super) name: String,
    pub(super) place: Arc<Place>,
    pub(super) is_bridge: bool,
    pub(super) is_nat: bool,
    /// Its table is disabled.
    pub(super) is_dormant: bool,
    pub(super) base: Option<Base>,
    /// Conditions that all packets in it match.
    pub(super) entry: Conditions,
    pub(super) rules: Vec<Rule>,
}

/// The hook of a base chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i64,
    /// The policy is drop.
    pub(super) drops: bool,
}

/// The steps of an iptables target; `None` if the name is not a target, but a chain.
pub(super) fn target(name: &str) -> Option<Vec<Step>> {
    Some(match name {
        "ACCEPT" | "TPROXY" => vec![Step::Verdict(Verdict::Accept)],
        "DROP" | "SYNPROXY" | "TARPIT" | "MIRROR" => vec![Step::Verdict(Verdict::Drop)],
        "REJECT" => vec![Step::Verdict(Verdict::Reject)],
        "QUEUE" | "NFQUEUE" => vec![Step::Verdict(Verdict::Queue)],
        "RETURN" => vec![Step::Verdict(Verdict::Return)],
        "MASQUERADE" | "SNAT" => vec![
            Step::Nat { is_source: true },
            Step::Verdict(Verdict::Accept),
        ],
        "DNAT" | "REDIRECT" => vec![
            Step::Nat { is_source: false },
            Step::Verdict(Verdict::Accept),
        ],
        "NETMAP" => vec![
            Step::Nat { is_source: true },
            Step::Nat { is_source: false },
            Step::Verdict(Verdict::Accept),
        ],
        // These change or record something, and the packet continues (iptables-extensions(8)).
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CLUSTERIP" | "CONNMARK" | "CONNSECMARK" | "CT"
        | "DSCP" | "ECN" | "HL" | "HMARK" | "IDLETIMER" | "LED" | "LOG" | "MARK" | "NFLOG"
        | "NOTRACK" | "RATEEST" | "SECMARK" | "SET" | "TCPMSS" | "TCPOPTSTRIP" | "TEE" | "TOS"
        | "TRACE" | "TTL" | "ULOG" => Vec::new(),
        _ => return None,
    })
}

/// Whether the condition is on an interface that packets do not have on this hook.
pub(crate) fn is_never_on(hook: Hook, found: &Match) -> bool {
    let has_no = match hook {
        Hook::Ingress | Hook::Prerouting | Hook::Input => Key::OutInterface,
        Hook::Output | Hook::Egress => Key::InInterface,
        Hook::Forward | Hook::Postrouting => return false,
    };
    found.key == has_no && matches!(found.test, Test::In(_))
}
