//! nftables rules and their counters, the independent witness of the tests.

use std::{collections::BTreeMap, io::Write as _, process::Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{netns::Namespace, process::command_line};

/// What a named counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Count {
    pub packets: u64,
    /// The sum of their lengths; in the hooks of the IP families that is the
    /// length of the IP packet.
    pub bytes: u64,
}

/// Loads a ruleset, in the language of `nft -f`.
pub fn load(namespace: &Namespace, ruleset: &str) -> Result<()> {
    let mut command = namespace.command("nft");
    command
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let line = command_line(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    // A write can fail because nft has given up already; what it says about
    // that is the better error.
    let written = child
        .stdin
        .take()
        .map(|mut stdin| stdin.write_all(ruleset.as_bytes()));
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("nft refuses the ruleset: {}", stderr.trim());
    }
    written.transpose()?;
    Ok(())
}

/// The named counters of all tables, by name.
pub fn counters(namespace: &Namespace) -> Result<BTreeMap<String, Count>> {
    parse_counters(&namespace.run(&["nft", "-j", "list", "counters"])?)
}

/// nft's JSON: objects of several kinds in one list, each under its kind.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    counter: Option<Counter>,
}

#[derive(Deserialize)]
struct Counter {
    name: String,
    #[serde(flatten)]
    count: Count,
}

fn parse_counters(json: &str) -> Result<BTreeMap<String, Count>> {
    let listing: Listing =
        serde_json::from_str(json).with_context(|| format!("nft's list of counters: {json}"))?;
    let mut counters = BTreeMap::new();
    for counter in listing.nftables.into_iter().filter_map(|o| o.counter) {
        if counters.contains_key(&counter.name) {
            bail!("two tables have a counter named {}", counter.name);
        }
        counters.insert(counter.name, counter.count);
    }
    Ok(counters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_among_other_objects() {
        let json = r#"{"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"counter": {"family": "inet", "name": "in", "table": "t", "handle": 2, "packets": 3, "bytes": 84}},
            {"counter": {"family": "ip", "name": "out", "table": "u", "handle": 1, "packets": 0, "bytes": 0}}]}"#;
        let counters = parse_counters(json).unwrap();
        assert_eq!(counters.len(), 2);
        assert_eq!(
            counters["in"],
            Count {
                packets: 3,
                bytes: 84
            }
        );
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let counter = r#"{"counter": {"name": "in", "packets": 3, "bytes": 84}}"#;
        let json = format!(r#"{{"nftables": [{counter}, {counter}]}}"#);
        assert!(parse_counters(&json).is_err());
    }
}
