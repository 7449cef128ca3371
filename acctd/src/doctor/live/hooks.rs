//! A temporary table with counters on the hooks, and with copies of those rules that have no counter; and snapshots
//! of all counters.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Once;
use std::{panic, process};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::rules::{self, LogCount};
use crate::doctor::live::count::Count;
use crate::model::group::GroupConfig;
use crate::rules::doctor_table::{self, NAME_PREFIX};
use crate::rules::external;
use crate::rules::nft_json;
use crate::rules::nft_objects::Object;

/// After defragmentation (-400) and before usual rules, so that both see the same packets.
const PRIORITY: i32 = -399;
/// The hooks, with the interface keys that nft knows there.
const HOOKS: [(&str, &[&str]); 5] = [
    ("prerouting", &["iifname"]),
    ("input", &["iifname"]),
    ("forward", &["iifname", "oifname"]),
    ("output", &["oifname"]),
    ("postrouting", &["oifname"]),
];

/// Removed from the kernel when it is dropped.
#[derive(Debug)]
pub(crate) struct CounterTable {
    name: String,
}

/// Names of the counters that were added for rules without one, by the rule's key.
#[derive(Debug, Default)]
pub(crate) struct AddedCounters(BTreeMap<String, String>);

impl CounterTable {
    /// Loads a table that counts packets on each hook by family, on these interfaces and on all others.
    pub(crate) fn load(interfaces: &[&str]) -> Result<Self> {
        let table = Self {
            name: format!("{NAME_PREFIX}{}", process::id()),
        };
        remove_on_panic();
        let names: Vec<String> = interfaces.iter().map(|it| format!("\"{it}\"")).collect();
        let names = names.join(", ");
        let (mut counters, mut chains) = (String::new(), String::new());
        for (hook, keys) in HOOKS {
            // Writing to a string cannot fail.
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

    /// Adds counters for those rules of these groups that have none next to their log statement: the same matches on
    /// the same hook, at a priority one lower. If a rule cannot be copied, it gets no counter.
    pub(crate) fn add_counters(&self, groups: &[GroupConfig]) -> Result<AddedCounters> {
        let mut added = AddedCounters::default();
        let (objects, _) = list()?;
        let devices =
            crate::rules::devices::devices(&external::run("nft", &["list", "ruleset"], "")?);
        for (at, copied) in rules::rule_copies(&objects, groups, &devices)
            .into_iter()
            .enumerate()
        {
            let name = format!("added_{at}");
            let (family, table) = (&copied.family, &self.name);
            let mut chain = copied.chain;
            for (key, value) in [("family", family), ("table", table), ("name", &name)] {
                chain[key] = value.as_str().into();
            }
            let mut expressions = copied.matches;
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
                added.0.insert(copied.key, name);
            }
        }
        Ok(added)
    }
}

impl Drop for CounterTable {
    fn drop(&mut self) {
        // There is nobody to report an error to; the next doctor tries again.
        let _removed = doctor_table::remove(|name| name == self.name);
    }
}

/// A release build aborts on a panic, without running destructors.
fn remove_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let own = format!("{NAME_PREFIX}{}", process::id());
            let _removed = doctor_table::remove(|name| name == own);
            previous(info);
        }));
    });
}

/// The ruleset, and whether it has iptables extensions, of which nft may not show all.
fn list() -> Result<(Vec<Object>, bool)> {
    let objects = nft_json::ruleset()?;
    let mut rules = objects.iter().filter_map(|it| it.rule.as_ref());
    let has_extensions = rules.any(|rule| rule.expr.iter().any(|it| it.get("xt").is_some()));
    Ok((objects, has_extensions))
}

fn counter_name(hook: &str, key: &str, family: &str, which: &str) -> String {
    format!("{hook}_{key}_{family}_{which}")
}

/// The values of all counters. Those of nft are read at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Of the temporary table, by name.
    own: BTreeMap<String, Count>,
    pub(crate) rules: Vec<LogCount>,
}

impl Snapshot {
    pub(crate) fn take(table: &CounterTable, added: &AddedCounters) -> Result<Self> {
        let (objects, has_extensions) = list()?;
        let counters = objects.iter().filter_map(|it| it.counter.as_ref());
        let own: BTreeMap<String, Count> = counters
            .filter(|it| it.table == table.name)
            .map(|it| (it.name.clone(), it.into()))
            .collect();
        let mut rules = rules::log_counts(&objects);
        for rule in &mut rules {
            let added = added.0.get(&rule.key).and_then(|name| own.get(name));
            if let (None, Some(count)) = (rule.count, added) {
                rule.count = Some(*count);
                rule.is_added = true;
            }
        }
        rules.extend(rules::of_iptables(&rules, has_extensions)?);
        Ok(Self { own, rules })
    }

    /// Packets on a hook between two snapshots: on the watched interfaces, and on others.
    pub(crate) fn passed_since(
        &self,
        earlier: &Self,
        hook: &str,
        key: &str,
        version: u8,
    ) -> [Count; 2] {
        ["watched", "other"].map(|which| {
            let name = counter_name(hook, key, &version.to_string(), which);
            let of = |snapshot: &Self| snapshot.own.get(&name).copied().unwrap_or_default();
            of(self).since(of(earlier)).unwrap_or_default()
        })
    }
}
