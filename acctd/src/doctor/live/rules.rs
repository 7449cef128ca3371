//! The counters of rules that log to a group, from the output of nft and iptables. Pure, except [`of_iptables`].

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::doctor::live::count::Count;
use crate::model::group::GroupConfig;
use crate::rules::devices::Devices;
use crate::rules::external::{self, ExternalError};
use crate::rules::nft_objects::{Chain, Object, Rule};

/// A rule that logs to a group, and its counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogCount {
    pub(crate) group: u16,
    /// Identifies the rule.
    pub(crate) key: String,
    /// `chain input of table inet acctd, handle 5`.
    pub(crate) place: String,
    /// `None` if its chain has none.
    pub(crate) hook: Option<String>,
    /// The rule matches an interface.
    pub(crate) has_interface: bool,
    /// `None` without a counter next to the log statement.
    pub(crate) count: Option<Count>,
    /// `count` is of a counter that doctor added.
    pub(crate) is_added: bool,
}

/// A chain that has the hook of a rule, and the rule's matches.
#[derive(Debug)]
pub(crate) struct RuleCopy {
    /// That of the rule.
    pub(crate) key: String,
    /// nft's name, such as inet.
    pub(crate) family: String,
    /// Hook, type, priority, device.
    pub(crate) chain: Value,
    pub(crate) matches: Vec<Value>,
}

pub(crate) fn log_counts(objects: &[Object]) -> Vec<LogCount> {
    let rules = objects.iter().filter_map(|it| it.rule.as_ref());
    rules.filter_map(|rule| log_count(objects, rule)).collect()
}

fn log_count(objects: &[Object], rule: &Rule) -> Option<LogCount> {
    let expressions = &rule.expr;
    let at = expressions.iter().position(is_log)?;
    let group = expressions[at]["log"]["group"].as_u64()?;
    // Only next to it: another expression in between may exclude packets.
    let next_to = expressions[..at].last().into_iter();
    let counter = next_to
        .chain(expressions.get(at + 1))
        .find_map(|expression| expression.get("counter"));
    let count = counter.and_then(|counter| match counter.as_str() {
        Some(name) => {
            let mut counters = objects.iter().filter_map(|it| it.counter.as_ref());
            counters
                .find(|it| it.name == name && it.table == rule.table && it.family == rule.family)
                .map(Count::from)
        }
        None => Count::deserialize(counter).ok(),
    });
    let has_interface = expressions.iter().any(|expression| {
        let key = expression["match"]["left"]["meta"]["key"].as_str();
        key.is_some_and(|key| key.starts_with("iif") || key.starts_with("oif"))
    });
    let Rule {
        family,
        table,
        chain,
        ..
    } = rule;
    let handle = rule.handle.unwrap_or_default();
    Some(LogCount {
        group: u16::try_from(group).ok()?,
        key: format!("{family} {table} {handle}"),
        place: format!("chain {chain} of table {family} {table}, handle {handle}"),
        hook: chain_of(objects, rule).and_then(|it| it.hook.clone()),
        has_interface,
        count,
        is_added: false,
    })
}

fn is_log(expression: &Value) -> bool {
    expression["log"]["group"].is_u64()
}

fn chain_of<'a>(objects: &'a [Object], rule: &Rule) -> Option<&'a Chain> {
    let mut chains = objects.iter().filter_map(|it| it.chain.as_ref());
    chains.find(|it| it.name == rule.chain && it.table == rule.table && it.family == rule.family)
}

/// Copies of the rules of these groups that have no counter.
pub(crate) fn rule_copies(
    objects: &[Object],
    groups: &[GroupConfig],
    devices: &Devices,
) -> Vec<RuleCopy> {
    let rules = objects.iter().filter_map(|it| it.rule.as_ref());
    let copies = rules.filter_map(|rule| {
        let log = log_count(objects, rule)?;
        let is_ours = groups.iter().any(|group| group.group.0 == log.group);
        if log.count.is_some() || !is_ours {
            return None;
        }
        let chain = chain_of(objects, rule)?;
        let mut copy =
            json!({ "type": "filter", "hook": chain.hook.as_ref()?, "prio": chain.prio? - 1 });
        if rule.family == "netdev" {
            let table = format!("netdev {}", rule.table);
            let names = devices.get(&(table, rule.chain.clone()))?;
            copy["dev"] = names.first()?.as_str().into();
        }
        let before = rule.expr.iter().take_while(|it| !is_log(it));
        let matches: Vec<Value> = before
            .filter(|it| it.get("counter").is_none())
            .cloned()
            .collect();
        // Only matches can be copied: a named set belongs to the rule's table, and a copied limit would count its own
        // packets.
        let is_plain = |it: &Value| it.get("match").is_some() && !it.to_string().contains("\"@");
        matches.iter().all(is_plain).then(|| RuleCopy {
            key: log.key,
            family: rule.family.clone(),
            chain: copy,
            matches,
        })
    });
    copies.collect()
}

/// The rules that nft's JSON does not show: those of iptables-legacy, and those of iptables-nft that it prints as
/// `"xt": null`. Of the latter, groups in `known` are skipped.
pub(crate) fn of_iptables(
    known: &[LogCount],
    has_extensions: bool,
) -> Result<Vec<LogCount>, ExternalError> {
    let mut all = Vec::new();
    for (program, names) in [
        ("iptables", "ip_tables_names"),
        ("ip6tables", "ip6_tables_names"),
    ] {
        let names = std::path::Path::new("/proc/thread-self/net").join(names);
        // The program must not run without need: it makes the kernel create tables.
        if std::fs::read_to_string(names).is_ok_and(|it| !it.trim().is_empty()) {
            let text = external::run(&format!("{program}-legacy-save"), &["-c"], "")?;
            all.extend(of_save(&text, &format!("{program}-legacy")));
        }
        if !has_extensions {
            continue;
        }
        let text = match external::run(&format!("{program}-nft-save"), &["-c"], "") {
            Err(ExternalError::Missing { .. }) => continue,
            text => text?,
        };
        let rules = of_save(&text, &format!("{program}-nft")).into_iter();
        all.extend(rules.filter(|rule| known.iter().all(|it| it.group != rule.group)));
    }
    Ok(all)
}

/// From the output of `iptables-save -c`: `[3:228] -A INPUT … -j NFLOG --nflog-group 5 …`.
pub(crate) fn of_save(text: &str, program: &str) -> Vec<LogCount> {
    let mut table = "";
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(name) = line.strip_prefix('*') {
            table = name;
        }
        let Some((count, rule)) = line.strip_prefix('[').and_then(|it| it.split_once("] ")) else {
            continue;
        };
        let words: Vec<&str> = rule.split_whitespace().collect();
        let after = |flag: &str| {
            let at = words.iter().position(|word| *word == flag)?;
            words.get(at + 1).copied()
        };
        if after("-j") != Some("NFLOG") {
            continue;
        }
        // The default is group 0.
        let group = after("--nflog-group").and_then(|it| it.parse().ok());
        let count = count.split_once(':').and_then(|(packets, bytes)| {
            Some(Count {
                packets: packets.parse().ok()?,
                bytes: bytes.parse().ok()?,
            })
        });
        let chain = after("-A").unwrap_or_default();
        let is_built_in = chain.chars().all(char::is_uppercase);
        all.push(LogCount {
            group: group.unwrap_or(0),
            key: format!("{program} {table} {at} {rule}"),
            place: format!("chain {chain} of {program}'s table {table}"),
            hook: is_built_in.then(|| chain.to_lowercase()),
            has_interface: words.contains(&"-i") || words.contains(&"-o"),
            count,
            is_added: false,
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::nft_objects::Listing;

    #[test]
    fn a_counter_next_to_a_log_statement_belongs_to_it() {
        let log = json!({ "log": { "group": 5 } });
        let limit = json!({ "limit": { "rate": 1 } });
        let counter = json!({ "counter": { "packets": 3, "bytes": 300 } });
        let named = json!({ "counter": "v4" });
        let count = |expressions: &[&Value]| {
            let json = json!({ "nftables": [
                { "counter": { "family": "ip", "table": "t", "name": "v4", "packets": 7, "bytes": 8 } },
                { "counter": { "family": "ip6", "table": "t", "name": "v4", "packets": 1, "bytes": 1 } },
                { "chain": { "family": "ip", "table": "t", "name": "c", "hook": "input", "prio": 0 } },
                { "rule": { "family": "ip", "table": "t", "chain": "c", "handle": 4, "expr": expressions } },
            ] });
            let Listing { nftables } = serde_json::from_value(json).unwrap();
            let rules = log_counts(&nftables);
            assert_eq!(rules.len(), 1);
            assert_eq!(rules[0].place, "chain c of table ip t, handle 4");
            rules[0].count.map(|count| count.packets)
        };
        assert_eq!(count(&[&counter, &log]), Some(3));
        assert_eq!(count(&[&log, &counter]), Some(3));
        assert_eq!(count(&[&named, &log]), Some(7));
        assert_eq!(count(&[&counter, &limit, &log]), None);
        assert_eq!(count(&[&log]), None);
    }

    #[test]
    fn iptables_counts_in_front_of_its_rules() {
        let text = "*mangle\n:INPUT ACCEPT [9:9]\n:X - [0:0]\n[3:228] -A INPUT -i eth0 -j NFLOG --nflog-group 5\n\
                    [1:1] -A X -j ACCEPT\nCOMMIT\n";
        let rules = of_save(text, "iptables-legacy");
        assert_eq!(rules.len(), 1);
        let rule = &rules[0];
        assert_eq!((rule.group, rule.has_interface), (5, true));
        assert_eq!(rule.hook.as_deref(), Some("input"));
        let count = Count {
            packets: 3,
            bytes: 228,
        };
        assert_eq!(rule.count, Some(count));
    }
}
