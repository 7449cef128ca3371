//! A table of acctd's own with counters on the hooks, and beside rules that have none; and all counters read at
//! one moment.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Once;
use std::{panic, process};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::rules::{self, LogCount};
use crate::doctor::live::count::Count;
use crate::model::group::GroupConfig;
use crate::rules::doctor_table::{self, OWN};
use crate::rules::external::{self};
use crate::rules::nft_json;

/// Behind defragmentation (-400), in front of rules: these see the same packets.
const PRIORITY: i32 = -399;
/// The hooks, with the interfaces that are known there.
const HOOKS: [(&str, &[&str]); 5] = [
    ("prerouting", &["iifname"]),
    ("input", &["iifname"]),
    ("forward", &["iifname", "oifname"]),
    ("output", &["oifname"]),
    ("postrouting", &["oifname"]),
];

/// The table, until it is dropped.
#[derive(Debug)]
pub struct OwnTable {
    name: String,
}

/// Counters beside rules: the name of each by the rule.
#[derive(Debug, Default)]
pub struct Beside(BTreeMap<String, String>);

impl OwnTable {
    /// Loads it: it counts what passes each hook, by family, on these interfaces and on all others.
    pub fn load(interfaces: &[&str]) -> Result<Self> {
        let table = Self {
            name: format!("{OWN}{}", process::id()),
        };
        remove_on_panic();
        let names: Vec<String> = interfaces.iter().map(|it| format!("\"{it}\"")).collect();
        let names = names.join(", ");
        let (mut counters, mut chains) = (String::new(), String::new());
        for (hook, keys) in HOOKS {
            // A string takes what is written to it.
            let _always = writeln!(
                chains,
                "chain {hook} {{\ntype filter hook {hook} priority {PRIORITY};"
            );
            for key in keys {
                for family in ["4", "6"] {
                    for (which, operator) in [("watched", ""), ("other", "!= ")] {
                        let name = counter_name(hook, key, family, which);
                        let _always = writeln!(counters, "counter {name} {{ }}");
                        let _always = writeln!(
                            chains,
                            "{key} {operator}{{ {names} }} meta nfproto ipv{family} counter name {name}"
                        );
                    }
                }
            }
            chains.push_str("}\n");
        }
        let text = format!("table inet {} {{\n{counters}{chains}}}\n", table.name);
        external::run("nft", &["-f", "-"], &text).context("cannot set counters on the hooks")?;
        Ok(table)
    }

    /// Sets counters beside those rules of these groups that have none in front of their log statement: the same
    /// matches on the same hook, one step before, in a table of acctd's own. What this cannot be done for
    /// stays without.
    pub fn beside_rules(&self, groups: &[GroupConfig]) -> Result<Beside> {
        let mut beside = Beside::default();
        let (json, _) = list()?;
        let devices =
            crate::rules::devices::devices(&external::run("nft", &["list", "ruleset"], "")?);
        for (at, mirror) in rules::mirrors(&json, groups, &devices)
            .into_iter()
            .enumerate()
        {
            let name = format!("beside_{at}");
            let (family, table) = (&mirror.family, &self.name);
            let mut chain = mirror.chain;
            for (key, value) in [("family", family), ("table", table), ("name", &name)] {
                chain[key] = value.as_str().into();
            }
            let mut expressions = mirror.matches;
            expressions.push(json!({ "counter": name }));
            let commands = json!({ "nftables": [
                { "add": { "table": { "family": family, "name": table } } },
                { "add": { "counter": { "family": family, "table": table, "name": name } } },
                { "add": { "chain": chain } },
                { "add": { "rule": {
                    "family": family, "table": table, "chain": name, "expr": expressions,
                } } },
            ] });
            if external::run("nft", &["-j", "-f", "-"], &commands.to_string()).is_ok() {
                beside.0.insert(mirror.key, name);
            }
        }
        Ok(beside)
    }
}

impl Drop for OwnTable {
    fn drop(&mut self) {
        // Nobody is there to be told; the next one tries again.
        let _gone = doctor_table::remove(|name| name == self.name);
    }
}

/// A release ends at a panic without dropping anything.
fn remove_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let own = format!("{OWN}{}", process::id());
            let _gone = doctor_table::remove(|name| name == own);
            others(info);
        }));
    });
}

/// All rules, and whether some are of extensions that nft may not show.
fn list() -> Result<(Value, bool)> {
    let json = nft_json::ruleset()?;
    let mut objects = json["nftables"].as_array().into_iter().flatten();
    let has_extensions = objects.any(|object| {
        let expressions = object["rule"]["expr"].as_array();
        expressions.is_some_and(|all| all.iter().any(|one| one.get("xt").is_some()))
    });
    Ok((json, has_extensions))
}

fn counter_name(hook: &str, key: &str, family: &str, which: &str) -> String {
    format!("{hook}_{key}_{family}_{which}")
}

/// All counters, those of nft at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Of the own table, by name.
    own: BTreeMap<String, Count>,
    /// The rules that log.
    pub rules: Vec<LogCount>,
}

impl Snapshot {
    /// Reads them.
    pub fn take(table: &OwnTable, beside: &Beside) -> Result<Self> {
        let (json, has_extensions) = list()?;
        let mut own = BTreeMap::new();
        for object in json["nftables"].as_array().into_iter().flatten() {
            let counter = &object["counter"];
            if counter["table"] == table.name
                && let (Some(name), Some(count)) = (counter["name"].as_str(), Count::of(counter))
            {
                own.insert(name.to_owned(), count);
            }
        }
        let mut rules = rules::log_counts(&json);
        for rule in &mut rules {
            let beside = beside.0.get(&rule.key).and_then(|name| own.get(name));
            if let (None, Some(count)) = (rule.count, beside) {
                rule.count = Some(*count);
                rule.is_beside = true;
            }
        }
        rules.extend(rules::of_iptables(&rules, has_extensions)?);
        Ok(Self { own, rules })
    }

    /// What passed a hook between `earlier` and this one: on the watched interfaces, and on others.
    #[must_use]
    pub fn passed_since(&self, earlier: &Self, hook: &str, key: &str, version: u8) -> [Count; 2] {
        ["watched", "other"].map(|which| {
            let name = counter_name(hook, key, &version.to_string(), which);
            let of = |snapshot: &Self| snapshot.own.get(&name).copied().unwrap_or_default();
            of(self).since(of(earlier)).unwrap_or_default()
        })
    }
}
