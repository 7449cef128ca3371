//! Why no rule logged a flow. Pure: what is known of the machine is passed in.
//!
//! Each rule that logs to one of the groups is walked with the flow's values, until something keeps the flow from it.
//! The rule that the flow comes closest to gives the cause.

use std::cmp::Reverse;
use std::net::IpAddr;

use super::barrier::{Barrier, barrier};
use super::cure::{self, Cause, Cure};
use super::situation::Situation;
use super::view::View;
use crate::rules::ruleset::condition::{Key, Match};
use crate::rules::ruleset::log_rule::{LogRule, Obstacle};
use crate::rules::ruleset::model::{Hook, Paths, Verdict};
use crate::sampling::report::{Group, Passed};

/// Why the flow was seen by TC alone.
pub(super) fn of_passed(passed: &Passed, groups: &[Group], situation: &Situation) -> Cause {
    let view = View::of(passed, situation);
    let version = view.family.version();
    let of_side = groups.iter().filter(|it| it.side == passed.side);
    let numbers: Vec<u16> = of_side
        .clone()
        .filter(|it| it.ip_version == version)
        .map(|it| it.number)
        .collect();
    let rules = situation.ruleset.log_rules.iter();
    let rules: Vec<&LogRule> = rules
        .filter(|it| numbers.contains(&it.group) && it.families.contains(&version))
        .collect();
    let closest = rules
        .iter()
        .map(|rule| (*rule, barrier(rule, &view)))
        // The first of those that are as close.
        .min_by_key(|(_, barrier)| Reverse(barrier.closeness()));
    let Some((rule, barrier)) = closest else {
        let others: Vec<u16> = of_side.map(|it| it.number).collect();
        return without_a_rule(&view, &numbers, &others, situation);
    };
    if barrier.is_uncertain()
        && let Some(cause) = past_the_rule(rule, &barrier, &view, situation)
    {
        return cause;
    }
    match barrier {
        Barrier::Bridge => over_a_bridge(rule, &view),
        Barrier::Hook => other_hook(rule, &view),
        Barrier::Never(found) | Barrier::Condition(found) => excluded(rule, found, &view),
        Barrier::Mark(found) => Cause {
            id: "mark",
            why: format!(
                "{} logs only packets that match '{}', and their mark was {:#x} at the TC hook",
                rule.quote, found.text, passed.mark
            ),
            cure: cure::without(rule, &[found]),
        },
        Barrier::Verdict(obstacle) => stopped(rule, obstacle, &[]),
        Barrier::MaybeVerdict(obstacle, unknown) => stopped(rule, obstacle, &unknown),
        Barrier::Unknown(found) => limited(rule, &found, passed),
        Barrier::Nat => Cause {
            id: "nat-chain",
            why: format!(
                "{} is in a chain of type nat, which sees only the first packet of each connection",
                rule.quote
            ),
            cure: cure::in_a_filter_chain(rule),
        },
        Barrier::None => {
            let matches = rule.conditions.matches.iter().map(|it| &**it);
            let spread: Vec<&Match> = matches.filter(|it| it.key == Key::Spread).collect();
            if spread.is_empty() {
                unknown(rule, situation)
            } else {
                limited(rule, &spread, passed)
            }
        }
    }
}

/// What takes packets past a rule, or discards them before it, without a rule's help.
fn past_the_rule(
    rule: &LogRule,
    barrier: &Barrier<'_>,
    view: &View<'_>,
    situation: &Situation,
) -> Option<Cause> {
    let is_routed_before = !matches!(rule.hook, Hook::Ingress | Hook::Prerouting | Hook::Output);
    let passed = view.passed;
    let needed = rule.needed_snaplen(view.family);
    if let Some(snaplen) = rule.snaplen.filter(|it| *it < needed) {
        return Some(Cause {
            id: "snaplen",
            why: format!(
                "{} copies {snaplen} bytes, less than the headers: acctd cannot decode them",
                rule.quote
            ),
            cure: Cure::Text(format!(
                "write 'snaplen {needed}' (--nflog-size {needed}) in the rule"
            )),
        });
    }
    let offload = if situation.ruleset.flowtables.is_empty()
        || view.paths.and(Paths::FORWARD) == Paths::NONE
    {
        Offload::No
    } else {
        offload(view, situation)
    };
    let is_or_was = match offload {
        Offload::Yes => Some("is"),
        // A rule saw its beginning, and no rule the rest.
        Offload::Ended | Offload::Unknown
            if passed.by_both > 0 && matches!(barrier, Barrier::None) =>
        {
            Some("was")
        }
        Offload::Ended if matches!(barrier, Barrier::None) => {
            Some("has ended, and its state is no longer known; it was most likely")
        }
        Offload::No | Offload::Ended | Offload::Unknown => None,
    };
    if let Some(is_or_was) = is_or_was {
        return Some(Cause {
            id: "flowtable",
            why: format!(
                "the flow {is_or_was} in a flowtable ({}): such packets go past all rules but those on ingress and egress",
                situation.ruleset.flowtables.join(", ")
            ),
            cure: Cure::Text(
                "keep accounted flows out of the flowtable (remove its rule 'flow add'), or log on the netdev hooks: acctd rules router --egress-hook"
                    .into(),
            ),
        });
    }
    if view.bridge.is_some()
        && !rule.is_bridge
        && !situation.bridged_families.contains(&view.family)
    {
        return Some(over_a_bridge(rule, view));
    }
    let discarded = |name: &str| situation.discarded.get(name).copied().unwrap_or(0);
    let filtered = discarded("TcpExtIPReversePathFilter");
    if !passed.is_egress && is_routed_before && filtered > 0 {
        return Some(Cause {
            id: "rp-filter",
            why: format!(
                "rp_filter discarded {filtered} packets meanwhile (nstat TcpExtIPReversePathFilter), before the hook {}: the route back to {} is not by {}",
                rule.hook.name(),
                passed.flow.source,
                passed.interface
            ),
            cure: Cure::Text(format!(
                "nothing, if discarded packets should not be counted; else sysctl net.ipv4.conf.{}.rp_filter=2 (and net.ipv4.conf.all.rp_filter), or log on prerouting",
                passed.interface
            )),
        });
    }
    let is_forwarded = !passed.is_egress && view.paths == Paths::FORWARD;
    if is_forwarded && is_routed_before && passed.ttl <= 1 {
        return Some(Cause {
            id: "ttl",
            why: format!(
                "their TTL is {}: they are not forwarded, so they do not reach the hook {}",
                passed.ttl,
                rule.hook.name()
            ),
            cure: Cure::Text(
                "nothing, if discarded packets should not be counted; else log on prerouting"
                    .into(),
            ),
        });
    }
    if is_forwarded && is_routed_before && !situation.forwards(view.family) {
        return Some(Cause {
            id: "not-forwarded",
            why: format!(
                "this host does not forward, and {} is not its address: they are discarded before the hook {}",
                passed.flow.dest,
                rule.hook.name()
            ),
            cure: Cure::Text(
                "nothing, if discarded packets should not be counted; else log on prerouting, or switch forwarding on"
                    .into(),
            ),
        });
    }
    None
}

/// What connection tracking says of a flow.
enum Offload {
    Yes,
    No,
    /// The connection is ending, and has left the flowtable if it was in one.
    Ended,
    /// There is no such connection, or no longer, or its protocol has no state.
    Unknown,
}

fn offload(view: &View<'_>, situation: &Situation) -> Offload {
    let flow = &view.passed.flow;
    let Some([source_port, dest_port]) = flow.ports else {
        return Offload::No;
    };
    let words = |source: IpAddr, dest: IpAddr, ports: [u16; 2]| {
        [
            format!("src={source}"),
            format!("dst={dest}"),
            format!("sport={}", ports[0]),
            format!("dport={}", ports[1]),
        ]
    };
    let there = words(flow.source, flow.dest, [source_port, dest_port]);
    let back = words(flow.dest, flow.source, [dest_port, source_port]);
    let has_all = |line: &&str, wanted: &[String; 4]| {
        let words: Vec<&str> = line.split_whitespace().collect();
        wanted.iter().all(|it| words.contains(&it.as_str()))
    };
    let mut lines = situation.connections.lines();
    match lines.find(|line| has_all(line, &there) || has_all(line, &back)) {
        Some(line) if line.contains("OFFLOAD") => Offload::Yes,
        Some(line) if line.contains("ESTABLISHED") => Offload::No,
        Some(line) if line.contains("tcp") => Offload::Ended,
        _ => Offload::Unknown,
    }
}

fn without_a_rule(
    view: &View<'_>,
    numbers: &[u16],
    of_side: &[u16],
    situation: &Situation,
) -> Cause {
    let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    let list = list.join(", ");
    let mut unreachable = situation.ruleset.unreachable.iter();
    if let Some(found) = unreachable.find(|it| numbers.contains(&it.group)) {
        let (why, cure) = if found.is_dormant {
            (
                "its table is switched off",
                "remove 'flags dormant' from the table",
            )
        } else {
            (
                "no chain with a hook jumps to its chain",
                "jump to its chain, or load acctd rules --apply",
            )
        };
        return Cause {
            id: "unreachable",
            why: format!("{} is never run, because {why}", found.quote),
            cure: Cure::Text(cure.into()),
        };
    }
    let version = view.family.version();
    let mut of_others = situation.ruleset.log_rules.iter();
    let other = of_others.find(|it| of_side.contains(&it.group) && !numbers.contains(&it.group));
    Cause {
        id: "no-rule",
        why: match other {
            Some(other) => format!(
                "no rule logs IPv{version} to group {list}; {} is for the other family",
                other.quote
            ),
            None => format!("no rule logs IPv{version} to group {list}"),
        },
        cure: match (other, numbers.first()) {
            (Some(other), Some(group)) => cure::of_the_other_family(other, *group, view.family),
            _ => Cure::Text("load rules: acctd rules --apply".into()),
        },
    }
}

fn other_hook(rule: &LogRule, view: &View<'_>) -> Cause {
    let what = match view.hook() {
        Hook::Input => "they are for this host",
        Hook::Output => "this host sends them",
        _ => "they are forwarded",
    };
    Cause {
        id: "hook",
        why: format!(
            "{what}, and {} is on the hook {}, which only sees {}",
            rule.quote,
            rule.hook.name(),
            match rule.hook {
                Hook::Input => "what is for this host",
                Hook::Output => "what this host sends",
                Hook::Forward => "what is forwarded",
                Hook::Ingress | Hook::Prerouting => "what comes in",
                Hook::Egress | Hook::Postrouting => "what goes out",
            }
        ),
        cure: cure::on_hook(rule, view),
    }
}

fn over_a_bridge(rule: &LogRule, view: &View<'_>) -> Cause {
    match &view.bridge {
        Some(bridge) => Cause {
            id: "bridge-port",
            why: format!(
                "{} is a port of the bridge {bridge}: what the bridge switches passes only tables of the family bridge, not {}",
                view.passed.interface, rule.quote
            ),
            cure: Cure::Text(format!(
                "acctd rules bridge --lan {} --apply; nothing, if only routed packets should be counted",
                view.passed.interface
            )),
        },
        None => Cause {
            id: "bridge-rule",
            why: format!(
                "{} is in a table of the family bridge, and {} is not the port of a bridge",
                rule.quote, view.passed.interface
            ),
            cure: Cure::Text(
                "log them in a table of the family inet: acctd rules router --lan … --apply".into(),
            ),
        },
    }
}

fn excluded(rule: &LogRule, found: &Match, view: &View<'_>) -> Cause {
    let id = match &found.key {
        Key::InInterface | Key::OutInterface => "interface",
        Key::Protocol => "protocol",
        Key::Source | Key::Dest => "address",
        _ => "condition",
    };
    let interface = match (&found.key, view.interface_on(rule)) {
        (Key::InInterface | Key::OutInterface, Some(name)) => format!(", and this is {name}"),
        _ => String::new(),
    };
    Cause {
        id,
        why: format!(
            "{} logs only packets that match '{}'{interface}",
            rule.quote, found.text
        ),
        cure: cure::for_flow(rule, found, view),
    }
}

fn limited(rule: &LogRule, found: &[&Match], passed: &Passed) -> Cause {
    let texts: Vec<&str> = found.iter().map(|it| it.text.as_str()).collect();
    let id = match found.first().map(|it| &it.key) {
        Some(Key::Limit | Key::Excess) => "limit",
        Some(Key::State) => "state",
        Some(Key::Spread) => "spread",
        Some(Key::Other(name)) if matches!(&**name, "meta skuid" | "owner" | "meta skgid") => {
            "owner"
        }
        _ => "condition",
    };
    let all = passed.by_both + passed.by_tc_alone;
    Cause {
        id,
        why: format!(
            "{} logs only packets that match '{}': {} of {all} of the sample did",
            rule.quote,
            texts.join(" "),
            passed.by_both
        ),
        cure: cure::without(rule, found),
    }
}

/// `unknown` are the verdict's conditions of which nothing is known.
fn stopped(rule: &LogRule, obstacle: &Obstacle, unknown: &[&Match]) -> Cause {
    let (verb, place) = (obstacle.verb(), obstacle.place());
    Cause {
        id: match obstacle.verdict {
            Verdict::Accept => "accepted-before",
            Verdict::Drop | Verdict::Reject => "dropped-before",
            Verdict::Return => "returned-before",
            Verdict::Queue | Verdict::Unknown => "verdict-before",
        },
        why: if unknown.is_empty() {
            format!(
                "{} {verb} them before they reach {}{place}",
                obstacle.quote, rule.quote
            )
        } else {
            let texts: Vec<&str> = unknown.iter().map(|it| it.text.as_str()).collect();
            format!(
                "{} {verb} them before they reach {}{place}, if they match '{}', which acctd cannot see",
                obstacle.quote,
                rule.quote,
                texts.join(" ")
            )
        },
        cure: cure::before(rule, obstacle),
    }
}

fn unknown(rule: &LogRule, situation: &Situation) -> Cause {
    let counters = situation.discarded.iter();
    let counters: Vec<String> = counters
        .map(|(name, more)| format!("{name} {more}"))
        .collect();
    let discarded = if counters.is_empty() {
        "no counter of the IP stack says that it discarded packets".to_owned()
    } else {
        format!("the IP stack discarded packets: {}", counters.join(", "))
    };
    Cause {
        id: "unknown",
        why: format!(
            "{} should have logged them, as far as acctd understands the rules; {discarded}",
            rule.quote
        ),
        cure: Cure::Text(
            "see which rules they meet: acctd explain --trace; other programs may take them before the rules: tc filter show, bpftool net, ip -d link"
                .into(),
        ),
    }
}
