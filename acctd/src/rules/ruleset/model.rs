//! Chains and rules, alike for what nft prints and for what iptables saves.

use std::fmt;
use std::sync::Arc;

use super::condition::{Conditions, Families, Match};
use crate::rules::ruleset::condition::{Key, Test};

/// Where in its way a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    /// netdev, before IP has seen it.
    Ingress,
    /// All that comes in.
    Prerouting,
    /// What is for this host.
    Input,
    /// What passes through.
    Forward,
    /// What this host sends.
    Output,
    /// All that goes out.
    Postrouting,
    /// netdev, on its way to the device.
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

    /// Its name.
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

    /// The ways of packets that it lies on.
    pub(crate) fn paths(self) -> Paths {
        match self {
            Self::Ingress | Self::Prerouting => Paths(Paths::INPUT.0 | Paths::FORWARD.0),
            Self::Input => Paths::INPUT,
            Self::Forward => Paths::FORWARD,
            Self::Output => Paths::OUTPUT,
            Self::Postrouting | Self::Egress => Paths(Paths::FORWARD.0 | Paths::OUTPUT.0),
        }
    }

    /// Whether one packet may pass both.
    pub(crate) fn shares_path_with(self, other: Self) -> bool {
        self.paths().0 & other.paths().0 != 0
    }
}

/// The ways of packets: to this host, through it, from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paths(u8);

impl Paths {
    /// To this host.
    pub(crate) const INPUT: Self = Self(1);
    /// Through it.
    pub(crate) const FORWARD: Self = Self(2);
    /// From it.
    pub(crate) const OUTPUT: Self = Self(4);
    /// All.
    pub(crate) const ALL: Self = Self(7);
    /// None.
    pub(crate) const NONE: Self = Self(0);

    /// Those of both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// None of these is left without those.
    pub(crate) fn are_within(self, others: Self) -> bool {
        self.0 & !others.0 == 0
    }
}

/// What a rule does with packets that it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Ends this base chain alone.
    Accept,
    /// Ends all.
    Drop,
    /// Ends all, with an answer.
    Reject,
    /// Handed to a program, which decides.
    Queue,
    /// Ends this chain alone; of a base chain, its policy decides.
    Return,
    /// An action that is not known: it may stop packets or not.
    Unknown,
}

impl Verdict {
    /// Packets do not come to any later base chain.
    pub(crate) fn ends_all(&self) -> bool {
        matches!(self, Self::Drop | Self::Reject)
    }
}

/// What logs to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Log {
    /// The group.
    pub(crate) group: u16,
    /// Bytes to copy, if the rule says so.
    pub(crate) snaplen: Option<u32>,
    /// Packets in a batch, if the rule says so.
    pub(crate) threshold: Option<u32>,
    /// With an option that does nothing (`--nflog-range`).
    pub(crate) has_range: bool,
}

/// Where a chain is, as one says it and as a command takes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// nft: family and name of the table, chain.
    Nft(String, String),
    /// iptables or ip6tables: program, table, chain.
    Iptables(&'static str, String, String),
}

impl Place {
    /// It is in that table of iptables.
    pub(super) fn is_of_table(&self, name: &str) -> bool {
        matches!(self, Self::Iptables(_, table, _) if table == name)
    }

    /// It is of those that `acctd rules` loads, and replaces.
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

/// A rule, as it is quoted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// It, or `policy drop`.
    pub(crate) text: String,
    /// Where it is.
    pub(crate) place: Arc<Place>,
    /// Its number there, for nft.
    pub(crate) handle: Option<u64>,
}

impl Quote {
    /// What takes it away; a policy has no such command.
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

/// One of the things that a rule does, in their order.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Packets of other families go on to the next rule.
    Restrict(Families),
    /// Packets that do not meet it go on to the next rule.
    Match(Arc<Match>),
    /// It logs.
    Log(Log),
    /// Nothing behind it.
    Verdict(Verdict),
    /// To a chain and back.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
    /// A map: what is done differs with what is matched.
    Branches(Vec<Vec<Step>>),
    /// The source, or else the destination, becomes another.
    Nat {
        /// The source.
        is_source: bool,
    },
    /// To a flowtable.
    Flow(String),
}

/// A rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) quote: Arc<Quote>,
    pub(super) steps: Vec<Step>,
}

/// A chain.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// Its table, by which it is found: jumps stay in it.
    pub(super) table: String,
    pub(super) name: String,
    pub(super) place: Arc<Place>,
    pub(super) is_bridge: bool,
    pub(super) is_nat: bool,
    /// Its table is switched off.
    pub(super) is_dormant: bool,
    pub(super) base: Option<Base>,
    /// What all packets have in common that come to it.
    pub(super) entry: Conditions,
    pub(super) rules: Vec<Rule>,
}

/// Where packets come to a chain from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i64,
    pub(super) drops: bool,
}

/// What an iptables target does, by its name; `None` for a chain.
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
        // Those that change or note something, and let the packet go on (iptables-extensions(8)).
        "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CLUSTERIP" | "CONNMARK" | "CONNSECMARK" | "CT"
        | "DSCP" | "ECN" | "HL" | "HMARK" | "IDLETIMER" | "LED" | "LOG" | "MARK" | "NFLOG"
        | "NOTRACK" | "RATEEST" | "SECMARK" | "SET" | "TCPMSS" | "TCPOPTSTRIP" | "TEE" | "TOS"
        | "TRACE" | "TTL" | "ULOG" => Vec::new(),
        _ => return None,
    })
}

/// An interface that packets do not have there.
pub(crate) fn is_never_on(hook: Hook, found: &Match) -> bool {
    let has_no = match hook {
        Hook::Ingress | Hook::Prerouting | Hook::Input => Key::OutInterface,
        Hook::Output | Hook::Egress => Key::InInterface,
        Hook::Forward | Hook::Postrouting => return false,
    };
    found.key == has_no && matches!(found.test, Test::In(_))
}
