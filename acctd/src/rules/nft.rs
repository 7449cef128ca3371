//! The rules for nft: tables named acctd and nothing else. What is loaded is compared as nft's JSON has it
//! (libnftables-json(5)), since its text differs between versions.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::plan::{Hook, Plan, Rule};
use crate::doctor::ruleset::Devices;
use crate::external::{self, ExternalError};
use crate::nflog_socket::NflogGroup;
use crate::prefix::{Family, Side};

/// Before anything else looks at a packet, conntrack included.
const PRIORITY: i32 = -300;
/// The only one that is used on the egress hook.
const EGRESS_PRIORITY: i32 = 0;
const TABLE: &str = "acctd";

/// A table of one of nft's families.
#[derive(Debug)]
struct Table {
    family: &'static str,
    chains: Vec<Chain>,
}

#[derive(Debug, PartialEq, Eq)]
struct Chain {
    name: String,
    /// `None` for one that is jumped to.
    base: Option<Base>,
    rules: Vec<String>,
}

/// Where a chain is hooked.
#[derive(Debug, PartialEq, Eq)]
struct Base {
    hook: String,
    device: Option<String>,
    priority: i64,
}

/// A script that puts the rules in the place of those that were there, all at once.
#[must_use]
pub fn script(plan: &Plan) -> String {
    let mut text = String::new();
    for table in tables(plan) {
        let family = table.family;
        // A string takes what is written to it.
        let _always = write!(
            text,
            "table {family} {TABLE}\ndelete table {family} {TABLE}\n{table}"
        );
    }
    text
}

/// Loads them. Tables of ours in other families go.
pub fn apply(plan: &Plan) -> Result<()> {
    let needed = tables(plan);
    let mut text = String::new();
    for family in loaded_families()? {
        if needed.iter().all(|table| table.family != family) {
            let _always = writeln!(text, "delete table {family} {TABLE}");
        }
    }
    text.push_str(&script(plan));
    external::run("nft", &["-f", "-"], &text).context("cannot load the rules")?;
    Ok(())
}

/// Takes away all tables of ours.
pub fn remove() -> Result<()> {
    let families = loaded_families()?;
    let lines = families
        .iter()
        .map(|family| format!("delete table {family} {TABLE}\n"));
    let text: String = lines.collect();
    if !text.is_empty() {
        external::run("nft", &["-f", "-"], &text).context("cannot remove the rules")?;
    }
    Ok(())
}

/// The same; where there is no nft, there are none.
pub fn remove_if_installed() -> Result<()> {
    match remove() {
        Err(error) if is_missing(&error) => Ok(()),
        removed => removed,
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(ExternalError::Missing { .. }))
}

/// Whether iptables has chains of ours. nft sees them, but for those of iptables-legacy.
pub fn has_chains_of_iptables() -> Result<bool> {
    let text = external::run("nft", &["list", "chains"], "")?;
    Ok(text.contains(&format!("chain {}", super::iptables::OURS)))
}

/// How what is loaded differs, in lines; none if it does not.
pub fn differences(plan: &Plan) -> Result<Vec<String>> {
    let needed = lines(&tables(plan));
    let mut loaded = Vec::new();
    for family in loaded_families()? {
        let text = external::run("nft", &["-j", "list", "table", &family, TABLE], "")?;
        let json: Value = serde_json::from_str(&text).context("nft prints no JSON")?;
        let devices = if family == "netdev" {
            devices(&external::run(
                "nft",
                &["list", "table", &family, TABLE],
                "",
            )?)
        } else {
            Devices::new()
        };
        loaded.extend(loaded_lines(&family, &json, &devices));
    }
    Ok(super::compare(&needed, &loaded))
}

/// The families in which there is a table of ours.
fn loaded_families() -> Result<BTreeSet<String>, ExternalError> {
    let text = external::run("nft", &["list", "tables"], "")?;
    let words = text.lines().map(|line| line.split_whitespace().collect());
    let ours = words.filter_map(|words: Vec<&str>| match words[..] {
        ["table", family, TABLE] => Some(family.to_owned()),
        _ => None,
    });
    Ok(ours.collect())
}

fn tables(plan: &Plan) -> Vec<Table> {
    let is_egress = |rule: &&Rule| matches!(rule.hook, Hook::Egress(_));
    let (egress, others): (Vec<&Rule>, Vec<&Rule>) = plan.rules.iter().partition(is_egress);
    let family = if plan.is_bridge { "bridge" } else { "inet" };
    let tables = [(family, others), ("netdev", egress)].into_iter();
    tables
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(family, rules)| Table {
            family,
            chains: chains(plan, family, &rules),
        })
        .collect()
}

fn chains(plan: &Plan, family: &str, rules: &[&Rule]) -> Vec<Chain> {
    let mut bases: Vec<Chain> = Vec::new();
    let mut targets: Vec<Chain> = Vec::new();
    for rule in rules {
        let matches = matches(family, rule);
        let action = if let [group] = rule.groups[..] {
            log(plan, rule, group)
        } else {
            for &group in &rule.groups {
                let chain = Chain {
                    name: target(group),
                    base: None,
                    rules: vec![log(plan, rule, group)],
                };
                if !targets.contains(&chain) {
                    targets.push(chain);
                }
            }
            spread(plan, &rule.groups)
        };
        let text = format!("{matches} {action} comment \"{}\"", rule.words());
        let base = Some(Base::of(rule));
        if let Some(chain) = bases.iter_mut().find(|chain| chain.base == base) {
            chain.rules.push(text);
            continue;
        }
        let name = match rule.hook {
            // Names of interfaces may have letters that those of chains may not.
            Hook::Egress(_) => format!("egress{}", bases.len()),
            _ => rule.hook.name().to_owned(),
        };
        let rules = vec![text];
        bases.push(Chain { name, base, rules });
    }
    targets.append(&mut bases);
    targets
}

/// The CPU is looked up once: a packet must not be moved to another one between two rules.
fn spread(plan: &Plan, groups: &[NflogGroup]) -> String {
    let elements = plan.by_cpu(groups);
    let elements = elements.map(|(cpu, group)| format!("{cpu} : jump {}", target(group)));
    let elements: Vec<String> = elements.collect();
    format!("meta cpu vmap {{ {} }}", elements.join(", "))
}

fn target(group: NflogGroup) -> String {
    format!("group_{group}")
}

fn matches(family: &str, rule: &Rule) -> String {
    let interface = rule.interface.as_ref().map(|name| {
        let key = match rule.side {
            Side::Source => "iifname",
            Side::Dest => "oifname",
        };
        format!("{key} \"{name}\" ")
    });
    let interface = interface.unwrap_or_default();
    // Frames may be anything; in inet, packets are of one of the two.
    let protocol = match (family, rule.family) {
        ("inet", Family::Ip4) => "meta nfproto ipv4",
        ("inet", Family::Ip6) => "meta nfproto ipv6",
        (_, Family::Ip4) => "meta protocol ip",
        (_, Family::Ip6) => "meta protocol ip6",
    };
    format!("{interface}{protocol}")
}

fn log(plan: &Plan, rule: &Rule, group: NflogGroup) -> String {
    format!(
        "counter log group {group} snaplen {} queue-threshold {}",
        plan.snaplen(rule),
        plan.threshold
    )
}

impl Base {
    fn of(rule: &Rule) -> Self {
        let (device, priority) = match &rule.hook {
            Hook::Egress(device) => (Some(device.clone()), EGRESS_PRIORITY),
            _ => (None, PRIORITY),
        };
        Self {
            hook: rule.hook.name().to_owned(),
            device,
            priority: priority.into(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {TABLE} {{", self.family)?;
        for chain in &self.chains {
            writeln!(f, "    chain {} {{", chain.name)?;
            if let Some(base) = &chain.base {
                writeln!(f, "        {base};")?;
            }
            for rule in &chain.rules {
                writeln!(f, "        {rule}")?;
            }
            writeln!(f, "    }}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type filter hook {}", self.hook)?;
        if let Some(device) = &self.device {
            write!(f, " device \"{device}\"")?;
        }
        write!(f, " priority {}", self.priority)
    }
}

/// A line for each chain and each rule.
fn lines(tables: &[Table]) -> Vec<String> {
    let mut lines = Vec::new();
    for Table { family, chains } in tables {
        for Chain { name, base, rules } in chains {
            lines.push(chain_line(family, name, base.as_ref()));
            for rule in rules {
                lines.push(format!("rule {family} {TABLE} {name} {rule}"));
            }
        }
    }
    lines
}

fn chain_line(family: &str, name: &str, base: Option<&Base>) -> String {
    let base = base.map(|base| format!(" {{ {base}; }}"));
    format!("chain {family} {TABLE} {name}{}", base.unwrap_or_default())
}

/// The devices of chains by table and chain, which the JSON of nft 1.0.6 lacks, out of its text.
#[must_use]
pub fn devices(text: &str) -> Devices {
    let mut devices = Devices::new();
    let (mut table, mut chain) = (String::new(), String::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["table", family, name, "{"] => table = format!("{family} {name}"),
            ["chain", name, "{"] => name.clone_into(&mut chain),
            ["type", "filter", "hook", _, "device", device, ..] => {
                let names = vec![device.trim_matches('"').to_owned()];
                devices.insert((table.clone(), chain.clone()), names);
            }
            // devices = { lan0, lan1 }
            ["type", "filter", "hook", _, "devices", "=", "{", ..] => {
                let list = line.split(['{', '}']).nth(1).unwrap_or_default();
                let names = list
                    .split(',')
                    .map(|name| name.trim().trim_matches('"').to_owned());
                devices.insert((table.clone(), chain.clone()), names.collect());
            }
            _ => {}
        }
    }
    devices
}

/// The same lines of what nft has loaded.
fn loaded_lines(family: &str, json: &Value, devices: &Devices) -> Vec<String> {
    let objects = json["nftables"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let lines = objects.filter_map(|object| {
        if let Some(chain) = object.get("chain") {
            let name = text(&chain["name"])?;
            let base = text(&chain["hook"]).map(|hook| Base {
                hook,
                device: devices
                    .get(&(format!("{family} {TABLE}"), name.clone()))
                    .map(|names| names.join(", ")),
                priority: chain["prio"].as_i64().unwrap_or_default(),
            });
            return Some(chain_line(family, &name, base.as_ref()));
        }
        let rule = object.get("rule")?;
        let expressions = rule["expr"].as_array()?.iter().map(expression);
        let mut words: Vec<String> = expressions.collect();
        words.extend(text(&rule["comment"]).map(|comment| format!("comment \"{comment}\"")));
        let chain = text(&rule["chain"])?;
        Some(format!("rule {family} {TABLE} {chain} {}", words.join(" ")))
    });
    lines.collect()
}

/// An expression as it is written here, or as JSON if it is none that is.
fn expression(json: &Value) -> String {
    known_expression(json).unwrap_or_else(|| json.to_string())
}

fn known_expression(json: &Value) -> Option<String> {
    if json.get("counter").is_some() {
        return Some("counter".into());
    }
    if let Some(log) = json.get("log") {
        let log = log.as_object()?;
        let known = ["group", "snaplen", "queue-threshold"];
        if log.keys().any(|key| !known.contains(&key.as_str())) {
            return None;
        }
        let words = known
            .iter()
            .filter_map(|key| Some(format!(" {key} {}", log.get(*key)?.as_u64()?)));
        return Some(format!("log{}", words.collect::<String>()));
    }
    if let Some(matched) = json.get("match") {
        let key = matched["left"]["meta"]["key"].as_str()?;
        let right = matched["right"].as_str()?;
        return match (matched["op"].as_str()?, key) {
            ("==", "iifname" | "oifname") => Some(format!("{key} \"{right}\"")),
            ("==", _) => Some(format!("meta {key} {right}")),
            _ => None,
        };
    }
    let vmap = json.get("vmap")?;
    let key = vmap["key"]["meta"]["key"].as_str()?;
    let mut elements = Vec::new();
    for element in vmap["data"]["set"].as_array()? {
        let target = element[1]["jump"]["target"].as_str()?;
        elements.push((element[0].as_u64()?, target));
    }
    elements.sort_unstable();
    let elements = elements
        .iter()
        .map(|(value, target)| format!("{value} : jump {target}"));
    let elements: Vec<String> = elements.collect();
    Some(format!("meta {key} vmap {{ {} }}", elements.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::plan::tests::plan;

    #[test]
    fn a_host_has_the_rules_of_the_readme_with_counters() {
        let text = script(&plan(&["host"]).unwrap());
        assert_eq!(
            text,
            r#"table inet acctd
delete table inet acctd
table inet acctd {
    chain input {
        type filter hook input priority -300;
        meta nfproto ipv4 counter log group 5 snaplen 20 queue-threshold 50 comment "acctd: IPv4, by source"
        meta nfproto ipv6 counter log group 7 snaplen 40 queue-threshold 50 comment "acctd: IPv6, by source"
    }
    chain output {
        type filter hook output priority -300;
        meta nfproto ipv4 counter log group 4 snaplen 20 queue-threshold 50 comment "acctd: IPv4, by destination"
        meta nfproto ipv6 counter log group 6 snaplen 40 queue-threshold 50 comment "acctd: IPv6, by destination"
    }
}
"#
        );
    }

    #[test]
    fn an_egress_hook_has_a_table_and_a_length_of_its_own() {
        let args = [
            "router",
            "--lan=br-lan",
            "--egress-hook=br-lan",
            "-ip4-dst-group=4",
        ];
        assert_eq!(
            script(&plan(&args).unwrap()),
            r#"table netdev acctd
delete table netdev acctd
table netdev acctd {
    chain egress0 {
        type filter hook egress device "br-lan" priority 0;
        meta protocol ip counter log group 4 snaplen 42 queue-threshold 50 comment "acctd: IPv4 to br-lan, by destination"
    }
}
"#
        );
    }

    #[test]
    fn a_fan_out_looks_the_cpu_up_once() {
        let mut plan =
            plan(&["router", "--lan=a,b", "-ip4-src-group=5,9", "--threshold=7"]).unwrap();
        plan.n_cpus = 3;
        assert_eq!(
            script(&plan).replace("\ndelete table inet acctd", ""),
            r#"table inet acctd
table inet acctd {
    chain group_5 {
        counter log group 5 snaplen 20 queue-threshold 7
    }
    chain group_9 {
        counter log group 9 snaplen 20 queue-threshold 7
    }
    chain prerouting {
        type filter hook prerouting priority -300;
        iifname "a" meta nfproto ipv4 meta cpu vmap { 0 : jump group_5, 1 : jump group_9, 2 : jump group_5 } comment "acctd: IPv4 from a, by source"
        iifname "b" meta nfproto ipv4 meta cpu vmap { 0 : jump group_5, 1 : jump group_9, 2 : jump group_5 } comment "acctd: IPv4 from b, by source"
    }
}
"#
        );
    }
}
