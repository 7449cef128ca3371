//! Named sets and maps, as nft prints them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::nft::table_of;
use super::nft_text::{list, word};

/// A named set or map.
pub(super) struct Set<'a> {
    /// What is in it.
    pub(super) elements: &'a [Value],
    /// Elements come and go with packets or with time.
    pub(super) is_dynamic: bool,
    /// Each element has a limit, which lets some packets pass.
    pub(super) is_limited: bool,
}

/// By table and name.
pub(super) type Sets<'a> = HashMap<(String, &'a str), Set<'a>>;

/// All of them.
pub(super) fn sets(json: &Value) -> Sets<'_> {
    let mut sets = Sets::new();
    // Those that rules add to.
    let mut fed: HashSet<(String, &str)> = HashSet::new();
    for object in list(&json["nftables"]) {
        if let Some(rule) = object.get("rule") {
            for expression in list(&rule["expr"]) {
                if let Some(name) = expression["set"]["set"].as_str() {
                    fed.insert((table_of(rule), name.trim_start_matches('@')));
                }
            }
        } else if let Some(set) = object.get("set").or_else(|| object.get("map")) {
            let flags = list(&set["flags"]);
            let statements = list(&set["stmt"]);
            sets.insert(
                (table_of(set), word(&set["name"])),
                Set {
                    elements: list(&set["elem"]),
                    is_dynamic: flags.iter().any(|it| it == "dynamic" || it == "timeout"),
                    is_limited: statements.iter().any(is_limit),
                },
            );
        }
    }
    for key in fed {
        if let Some(set) = sets.get_mut(&key) {
            set.is_dynamic = true;
        }
    }
    sets
}

/// A statement that lets some packets pass.
pub(super) fn is_limit(statement: &Value) -> bool {
    ["limit", "quota", "ct count"]
        .iter()
        .any(|kind| statement.get(kind).is_some())
}
