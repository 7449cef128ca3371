//! acctd's loaded tables, line by line in the form of [`super::nft`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::rules::devices::devices;
use crate::rules::external;
use crate::rules::external::{ExternalError, if_installed};
use crate::rules::nft_objects::Listing;
use crate::rules::nft_table::{Base, TABLE, chain_line};

#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) family: String,
    /// It has more than chains and rules, or it is dormant.
    pub(super) has_others: bool,
    /// Names with their lines.
    pub(super) chains: Vec<(String, String)>,
    pub(super) lines: Vec<String>,
}

pub(super) fn loaded() -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for family in loaded_families()? {
        let json = external::run("nft", &["-j", "list", "table", &family, TABLE], "")?;
        let json: Listing = serde_json::from_str(&json).context("nft prints invalid JSON")?;
        let text = external::run("nft", &["list", "table", &family, TABLE], "")?;
        loaded.push(Loaded::of(family, json, &text));
    }
    Ok(loaded)
}

/// The families that have a table named acctd.
pub(super) fn loaded_families() -> Result<BTreeSet<String>, ExternalError> {
    let text = if_installed(external::run("nft", &["list", "tables"], ""))?;
    let words = text.lines().map(|line| line.split_whitespace().collect());
    let ours = words.filter_map(|words: Vec<&str>| match words[..] {
        ["table", family, TABLE] => Some(family.to_owned()),
        _ => None,
    });
    Ok(ours.collect())
}

impl Loaded {
    /// `json` and `text` are two listings of the same table. The lines have the form of [`super::nft_table::lines`].
    pub(super) fn of(family: String, json: Listing, text: &str) -> Self {
        let devices = devices(text);
        let mut loaded = Self {
            has_others: false,
            chains: Vec::new(),
            lines: Vec::new(),
            family,
        };
        let family = &loaded.family;
        // The JSON of nft 1.0.6 lacks this flag.
        if text.lines().any(|line| line.trim() == "flags dormant") {
            loaded.has_others = true;
            let line = format!("table {family} {TABLE} {{ flags dormant; }}");
            loaded.lines.push(line);
        }
        for object in json.nftables {
            if let Some(chain) = object.chain {
                let name = chain.name;
                let base = chain.hook.map(|hook| Base {
                    hook,
                    device: devices
                        .get(&(format!("{family} {TABLE}"), name.clone()))
                        .map(|names| names.join(", ")),
                    priority: chain.prio.unwrap_or_default(),
                });
                let mut line = chain_line(family, &name, base.as_ref());
                if let Some(policy) = chain.policy.filter(|it| it != "accept") {
                    let _always = write!(line, " policy {policy}");
                }
                loaded.lines.push(line.clone());
                loaded.chains.push((name, line));
            } else if let Some(rule) = object.rule {
                let mut text: Vec<String> = rule.expr.iter().map(expression).collect();
                text.extend(rule.comment.map(|it| format!("comment \"{it}\"")));
                let (chain, text) = (rule.chain, text.join(" "));
                let line = format!("rule {family} {TABLE} {chain} {text}");
                loaded.lines.push(line);
            } else if object.table.is_none() && object.metainfo.is_none() {
                loaded.has_others = true;
            }
        }
        loaded
    }
}

/// An expression in the form of [`super::nft`], or as JSON if acctd writes no such expression.
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
