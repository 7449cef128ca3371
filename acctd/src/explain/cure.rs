//! The command that would have a flow logged. It is printed, and checked with `--check`; acctd does not run it.

use std::fmt;

use super::view::{Answer, View};
use crate::model::prefix::Family;
use crate::rules::external::{self, ExternalError};
use crate::rules::ruleset::condition::{Key, Match};
use crate::rules::ruleset::log_rule::{LogRule, Obstacle};
use crate::rules::ruleset::model::Place;

/// The priority of the chains that `acctd rules` loads.
const OWN_PRIORITY: i64 = -300;

/// Why a flow was seen by one side alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) id: &'static str,
    pub(super) why: String,
    pub(super) cure: Cure,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cure {
    /// Commands of nft, which take effect together.
    Nft(Vec<String>),
    /// Commands for a shell.
    Shell(Vec<String>),
    Text(String),
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nft(commands) => write!(f, "nft '{}'", commands.join("; ")),
            Self::Shell(commands) => f.write_str(&commands.join("; ")),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Cure {
    /// Has nft check the commands against the loaded rules, without loading anything; `None` if there are none.
    pub(super) fn check(&self) -> Option<Result<(), ExternalError>> {
        let Self::Nft(commands) = self else {
            return None;
        };
        let input = format!("{}\n", commands.join("\n"));
        Some(external::run("nft", &["-c", "-f", "-"], &input).map(drop))
    }
}

/// The rule's log statement, to `group`.
fn log(rule: &LogRule, group: u16) -> String {
    let mut log = format!("log group {group}");
    if let Some(snaplen) = rule.snaplen {
        log = format!("{log} snaplen {snaplen}");
    }
    if let Some(threshold) = rule.threshold {
        log = format!("{log} queue-threshold {threshold}");
    }
    log
}

/// The family that the rule is restricted to, for a table of both.
fn family(rule: &LogRule) -> Option<&'static str> {
    let one: Vec<u8> = rule.families.iter().copied().collect();
    match one[..] {
        [4] => Some("meta nfproto ipv4"),
        [6] => Some("meta nfproto ipv6"),
        _ => None,
    }
}

fn words<'w>(parts: impl IntoIterator<Item = &'w str>) -> String {
    let parts: Vec<&str> = parts.into_iter().filter(|it| !it.is_empty()).collect();
    parts.join(" ")
}

/// The rule without these conditions.
pub(super) fn without(rule: &LogRule, conditions: &[&Match]) -> Cure {
    let mut text = rule.quote.text.clone();
    for condition in conditions {
        text = text.replacen(&condition.text, "", 1);
    }
    let text = words(text.split_whitespace());
    let names: Vec<&str> = conditions.iter().map(|it| it.text.as_str()).collect();
    let is_whole = conditions
        .iter()
        .all(|it| !it.text.is_empty() && rule.quote.text.contains(&it.text));
    match (&*rule.quote.place, rule.quote.handle) {
        (Place::Nft(table, chain), Some(handle)) if is_whole => Cure::Nft(vec![format!(
            "replace rule {table} {chain} handle {handle} {text}"
        )]),
        (Place::Iptables(program, table, _), _) if is_whole => {
            let old = rule.quote.text.trim_start_matches("-A ");
            let new = text.trim_start_matches("-A ");
            Cure::Shell(vec![
                format!("{program} -t {table} -D {old}"),
                format!("{program} -t {table} -A {new}"),
            ])
        }
        _ => Cure::Text(format!("remove '{}' from the rule", names.join(" "))),
    }
}

/// A rule beside this one, for the flow's value of the condition that excludes it.
pub(super) fn for_flow(rule: &LogRule, excluding: &Match, view: &View<'_>) -> Cure {
    let flow = &view.passed.flow;
    let version = match view.family {
        Family::Ip4 => "ip",
        Family::Ip6 => "ip6",
    };
    let own = match &excluding.key {
        Key::InInterface | Key::OutInterface => {
            let Some(name) = view.interface_on(rule) else {
                return without(rule, &[excluding]);
            };
            match excluding.key {
                Key::InInterface => format!("iifname \"{name}\""),
                _ => format!("oifname \"{name}\""),
            }
        }
        Key::Protocol => format!("meta l4proto {}", flow.protocol_name()),
        Key::Source => format!("{version} saddr {}", flow.source),
        Key::Dest => format!("{version} daddr {}", flow.dest),
        _ => return without(rule, &[excluding]),
    };
    let Place::Nft(table, chain) = &*rule.quote.place else {
        return without(rule, &[excluding]);
    };
    let matches = rule.conditions.matches.iter();
    let kept = matches
        .filter(|it| view.matches(it, rule) == Answer::Yes && rule.quote.text.contains(&it.text));
    let kept: Vec<&str> = kept.map(|it| it.text.as_str()).collect();
    let log = log(rule, rule.group);
    let parts = family(rule).into_iter().chain(kept);
    let text = words(parts.chain([own.as_str(), log.as_str()]));
    Cure::Nft(vec![format!("add rule {table} {chain} {text}")])
}

/// A chain on the hook that sees the flow, with a rule for its interface.
pub(super) fn on_hook(rule: &LogRule, view: &View<'_>) -> Cure {
    let hook = view.hook().name();
    let (Place::Nft(table, _), Some(interface)) = (&*rule.quote.place, view.interface_on(rule))
    else {
        return Cure::Text("log on a hook that sees them: acctd rules".into());
    };
    if table.starts_with("netdev ") || rule.is_bridge {
        return Cure::Text("log on a hook that sees them: acctd rules".into());
    }
    let key = if view.passed.is_egress {
        "oifname"
    } else {
        "iifname"
    };
    let restriction = format!("{key} \"{interface}\"");
    let log = log(rule, rule.group);
    let text = words(family(rule).into_iter().chain([restriction.as_str(), &log]));
    Cure::Nft(vec![
        add_chain(table, hook),
        format!("add rule {table} acctd_{hook} {text}"),
    ])
}

/// At the priority of the chains that `acctd rules` loads.
fn add_chain(table: &str, hook: &str) -> String {
    format!(
        "add chain {table} acctd_{hook} {{ type filter hook {hook} priority {OWN_PRIORITY} ; }}"
    )
}

/// The same rule in a chain of type filter.
pub(super) fn in_a_filter_chain(rule: &LogRule) -> Cure {
    let Place::Nft(table, chain) = &*rule.quote.place else {
        return Cure::Text("log in the table mangle: acctd rules --format iptables".into());
    };
    let hook = rule.hook.name();
    let mut commands = vec![
        add_chain(table, hook),
        format!("add rule {table} acctd_{hook} {}", rule.quote.text),
    ];
    let handle = rule.quote.handle;
    commands.extend(handle.map(|it| format!("delete rule {table} {chain} handle {it}")));
    Cure::Nft(commands)
}

/// Moves the rule in front of the verdict, if they are in one chain.
pub(super) fn before(rule: &LogRule, obstacle: &Obstacle) -> Cure {
    if let (Place::Nft(table, chain), Some(handle)) = (&*rule.quote.place, rule.quote.handle)
        && obstacle.quote.place == rule.quote.place
        && obstacle.earlier_base.is_none()
    {
        return Cure::Nft(vec![
            format!("insert rule {table} {chain} {}", rule.quote.text),
            format!("delete rule {table} {chain} handle {handle}"),
        ]);
    }
    match obstacle.earlier_base {
        Some((hook, priority)) => Cure::Text(format!(
            "nothing, if these packets should not be counted; else log before it, in a chain 'type filter hook {} priority {}'",
            hook.name(),
            (priority - 1).min(OWN_PRIORITY)
        )),
        None => Cure::Text(
            "log before all other rules: remove this rule, and load acctd rules --apply".into(),
        ),
    }
}

/// As the rule of the other family, if its table is for both.
pub(super) fn of_the_other_family(rule: &LogRule, group: u16, wanted: Family) -> Cure {
    let flags = format!(
        "load rules for IPv{}: acctd rules --apply",
        wanted.version()
    );
    let Place::Nft(table, chain) = &*rule.quote.place else {
        return Cure::Text(flags);
    };
    if !table.starts_with("inet ") && !table.starts_with("netdev ") {
        return Cure::Text(flags);
    }
    let (version, snaplen) = match wanted {
        Family::Ip4 => ("meta nfproto ipv4", 20),
        Family::Ip6 => ("meta nfproto ipv6", 40),
    };
    let is_interface = |it: &&Match| matches!(it.key, Key::InInterface | Key::OutInterface);
    let kept = rule.conditions.matches.iter().map(|it| &**it);
    let kept: Vec<&str> = kept
        .filter(is_interface)
        .filter(|it| rule.quote.text.contains(&it.text))
        .map(|it| it.text.as_str())
        .collect();
    let like = LogRule {
        snaplen: rule.snaplen.map(|it| it.max(snaplen)),
        ..rule.clone()
    };
    let log = log(&like, group);
    let text = words(std::iter::once(version).chain(kept).chain([log.as_str()]));
    Cure::Nft(vec![format!("add rule {table} {chain} {text}")])
}

/// Removes the rule.
pub(super) fn removal(rule: &LogRule) -> Cure {
    let Some(command) = rule.quote.removal() else {
        return Cure::Text("remove one of the rules".into());
    };
    match command.strip_prefix("nft ") {
        Some(command) => Cure::Nft(vec![command.to_owned()]),
        None => Cure::Shell(vec![command]),
    }
}
