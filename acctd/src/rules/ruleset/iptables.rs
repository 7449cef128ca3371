//! Reads the output of `iptables-save` and `ip6tables-save`: commands of iptables(8), table by table.

use std::collections::HashMap;
use std::sync::Arc;

use super::condition::{Conditions, Families, Key, MANY_A_SECOND, Match, Test, Value};
use super::model::{Base, Chain, Hook, Log, Place, Quote, Rule, Step, target};
use super::nft::{is_limit_extension, protocol};
use crate::model::prefix::Family;

/// The chains of all tables of one family.
pub(super) fn read(text: &str, family: Family) -> Vec<Chain> {
    let program = match family {
        Family::Ip4 => "iptables",
        Family::Ip6 => "ip6tables",
    };
    let mut chains: Vec<Chain> = Vec::new();
    let mut by_name: HashMap<String, usize> = HashMap::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
            by_name.clear();
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            // A user-defined chain has no policy.
            let policy = words.next().filter(|policy| *policy != "-");
            let hook = Hook::parse(&name).filter(|_| policy.is_some());
            let mut entry = Conditions::any();
            entry.families = Families::of(family);
            by_name.insert(name.clone(), chains.len());
            chains.push(Chain {
                table: format!("{program} {table}"),
                place: Arc::new(Place::Iptables(program, table.clone(), name.clone())),
                name,
                is_bridge: false,
                is_nat: table == "nat",
                is_dormant: false,
                base: hook.map(|hook| Base {
                    hook,
                    priority: priority(&table, hook),
                    drops: policy == Some("DROP"),
                }),
                entry,
                rules: Vec::new(),
            });
        } else if let Some(rest) = line.strip_prefix("-A ") {
            let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
            let Some(chain) = by_name.get(name).map(|at| &mut chains[*at]) else {
                continue;
            };
            let quote = Quote {
                text: line.to_owned(),
                place: Arc::clone(&chain.place),
                handle: None,
            };
            let steps = steps(rest);
            chain.rules.push(Rule {
                quote: Arc::new(quote),
                steps,
            });
        }
    }
    chains
}

fn steps(text: &str) -> Vec<Step> {
    let words = words_of(text);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let target_at = words.iter().position(|word| matches!(*word, "-j" | "-g"));
    let (matches, action) = words.split_at(target_at.unwrap_or(words.len()));
    let mut steps: Vec<Step> = parts(matches)
        .iter()
        .filter_map(|part| condition(part))
        .map(|found| Step::Match(Arc::new(found)))
        .collect();
    let after = |flag: &str| {
        let at = action.iter().position(|word| *word == flag)?;
        action.get(at + 1).copied()
    };
    let number = |flag| after(flag).and_then(|value| value.parse().ok());
    match (after("-j"), after("-g")) {
        (Some("NFLOG"), _) => {
            let group = after("--nflog-group").and_then(|group| group.parse().ok());
            steps.push(Step::Log(Log {
                group: group.unwrap_or(0),
                snaplen: number("--nflog-size"),
                threshold: number("--nflog-threshold"),
                has_range: action.contains(&"--nflog-range"),
            }));
        }
        (Some(name), _) => match target(name) {
            Some(known) => steps.extend(known),
            None => steps.push(Step::Jump(name.to_owned())),
        },
        (None, Some(name)) => steps.push(Step::Goto(name.to_owned())),
        (None, None) => {}
    }
    steps
}

/// Splits a rule: each of its own flags is a part, and each extension with its flags. A `!` belongs to the next flag.
fn parts<'w>(words: &[&'w str]) -> Vec<Vec<&'w str>> {
    let mut parts: Vec<Vec<&str>> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let flag = if *word == "!" {
            words.get(at + 1)
        } else {
            Some(word)
        };
        let is_negated_already = at > 0 && words[at - 1] == "!";
        let is_own = flag
            .is_some_and(|flag| matches!(*flag, "-s" | "-d" | "-i" | "-o" | "-p" | "-f" | "-m"));
        match parts.last_mut() {
            Some(part) if !is_own || is_negated_already => part.push(word),
            _ => parts.push(vec![word]),
        }
    }
    parts
}

fn condition(part: &[&str]) -> Option<Match> {
    let text = part.join(" ");
    let (is_negated, flag, rest) = match part {
        ["!", flag, rest @ ..] => (true, *flag, rest),
        [flag, rest @ ..] => (false, *flag, rest),
        [] => return None,
    };
    let first = rest.first().copied().unwrap_or_default();
    let of = |key: Key, values: Vec<Value>, is_negated: bool| {
        let asked = if is_negated {
            Test::NotIn(values)
        } else {
            Test::In(values)
        };
        Some(Match::new(key, asked, text.clone()))
    };
    let one = |key: Key| {
        let value = Value::of(&key, first);
        of(key, vec![value], is_negated)
    };
    let interface = |key: Key| {
        let name = match first.strip_suffix('+') {
            Some(stem) => format!("{stem}*"),
            None => first.to_owned(),
        };
        of(key, vec![Value::Word(name)], is_negated)
    };
    match flag {
        "-i" => return interface(Key::InInterface),
        "-o" => return interface(Key::OutInterface),
        "-s" => return one(Key::Source),
        "-d" => return one(Key::Dest),
        "-p" => {
            let value = Value::Word(protocol(first).to_owned());
            return of(Key::Protocol, vec![value], is_negated);
        }
        "-f" => return Some(Match::opaque(Key::Sanity, text)),
        _ => {}
    }
    let (is_negated, option, argument) = match rest {
        [_, "!", option, argument, ..] => (true, *option, *argument),
        [_, option, argument, ..] => (false, *option, *argument),
        _ => (false, "", ""),
    };
    match (first, option) {
        // `-m tcp` without an option only repeats -p.
        ("comment", _) | ("tcp" | "udp" | "icmp" | "icmp6", "") => None,
        ("conntrack", "--ctstate") | ("state", "--state") => {
            let states = argument.split(',').map(str::to_lowercase);
            let states: Vec<Value> = states.map(Value::Word).collect();
            // SNAT and DNAT are states of this extension only.
            let is_known = !argument.contains("NAT") && rest.len() <= 4;
            if is_known && rest.len() == 3 + usize::from(is_negated) {
                of(Key::State, states, is_negated)
            } else {
                Some(Match::opaque(Key::Other("conntrack".into()), text))
            }
        }
        ("mark", "--mark") if !argument.contains('/') => {
            let digits = argument.trim_start_matches("0x");
            let number = u64::from_str_radix(digits, 16).unwrap_or_default();
            let value = Value::Word(number.to_string());
            of(Key::Other("meta mark".into()), vec![value], is_negated)
        }
        (protocol @ ("tcp" | "udp"), "--dport" | "--sport") if rest.len() <= 4 => {
            let value = match argument.parse::<u16>() {
                Ok(number) => Value::Word(number.to_string()),
                Err(_range) => Value::Opaque(argument.to_owned()),
            };
            let key = format!("{protocol} {}", option.trim_start_matches('-'));
            of(Key::Other(key), vec![value], is_negated)
        }
        ("cpu", _) => {
            let value = Value::Word(argument.to_owned());
            of(Key::Spread, vec![value], is_negated)
        }
        ("rpfilter", _) => Some(Match::opaque(Key::Sanity, text)),
        ("tcp", _) if part.contains(&"--tcp-flags") => Some(Match::opaque(Key::Sanity, text)),
        (name, _) if is_limit_extension(name) => Some(Match::opaque(limit(part), text)),
        (name, _) => Some(Match::opaque(Key::Other(name.to_owned()), text)),
    }
}

/// Whether the limit is per source and high, so that usual traffic stays below it.
fn limit(part: &[&str]) -> Key {
    let after = |flag: &str| {
        let at = part.iter().position(|word| *word == flag)?;
        part.get(at + 1).copied()
    };
    let packets = after("--hashlimit-above").filter(|_| after("--hashlimit-mode").is_some());
    let packets = packets.and_then(|rate| rate.strip_suffix("/sec"));
    let connections = after("--connlimit-above").filter(|_| after("--connlimit-mask") != Some("0"));
    let bound = packets.or(connections).and_then(|bound| bound.parse().ok());
    match bound {
        Some(MANY_A_SECOND..) => Key::Excess,
        _ => Key::Limit,
    }
}

/// Splits like a shell: text in double quotes is one word.
fn words_of(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    let mut letters = text.chars();
    let add = |words: &mut Vec<String>, letter: Option<char>| {
        words
            .last_mut()
            .into_iter()
            .for_each(|word| word.extend(letter));
    };
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => add(&mut words, letters.next()),
            ' ' if !is_quoted => words.push(String::new()),
            letter => add(&mut words, Some(letter)),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// `NF_IP_PRI_*` of `linux/netfilter_ipv4.h`.
fn priority(table: &str, hook: Hook) -> i64 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Input | Hook::Postrouting) => 100,
        ("nat", _) => -100,
        ("security", _) => 50,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::ruleset::model::Verdict;

    #[test]
    fn conditions_are_separate_and_negations_stay_with_their_flag() {
        let steps = steps(
            "! -s 10.0.0.0/8 -i lan+ ! -o lan0 -p tcp -m tcp --dport 80 -m comment --comment \"a -j b\" \
             -m conntrack ! --ctstate NEW,INVALID -m limit --limit 5/sec -m set ! --match-set x src -j ACCEPT",
        );
        let texts: Vec<String> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Match(found) => Some(format!("{:?} {}", found.key, found.text)),
                _ => None,
            })
            .collect();
        assert_eq!(
            texts,
            [
                "Source ! -s 10.0.0.0/8",
                "InInterface -i lan+",
                "OutInterface ! -o lan0",
                "Protocol -p tcp",
                "Other(\"tcp dport\") -m tcp --dport 80",
                "State -m conntrack ! --ctstate NEW,INVALID",
                "Limit -m limit --limit 5/sec",
                "Other(\"set\") -m set ! --match-set x src",
            ]
        );
        assert!(matches!(steps.last(), Some(Step::Verdict(Verdict::Accept))));
    }
}
