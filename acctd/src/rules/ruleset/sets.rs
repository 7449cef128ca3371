//! Named sets and maps, as nft prints them.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::condition::{Key, MANY_A_SECOND};
use super::nft_text::word;
use crate::rules::nft_objects::Object;

/// A named set or map.
pub(super) struct Set<'a> {
    pub(super) elements: &'a [Value],
    /// Rules add elements, or elements time out.
    pub(super) is_dynamic: bool,
    /// Each element has a limit, so some packets match and others do not.
    pub(super) limit: Option<Key>,
}

/// By table and name.
pub(super) type Sets<'a> = HashMap<(String, &'a str), Set<'a>>;

pub(super) fn sets(objects: &[Object]) -> Sets<'_> {
    let mut sets = Sets::new();
    // Sets that rules add to.
    let mut fed: HashSet<(String, &str)> = HashSet::new();
    for object in objects {
        if let Some(rule) = &object.rule {
            for expression in &rule.expr {
                for kind in ["set", "map"] {
                    if let Some(name) = expression[kind][kind].as_str() {
                        let table = format!("{} {}", rule.family, rule.table);
                        fed.insert((table, name.trim_start_matches('@')));
                    }
                }
            }
        } else if let Some(set) = object.set.as_ref().or(object.map.as_ref()) {
            let mut flags = set.flags.iter();
            sets.insert(
                (format!("{} {}", set.family, set.table), set.name.as_str()),
                Set {
                    elements: &set.elem,
                    is_dynamic: flags.any(|it| it == "dynamic" || it == "timeout"),
                    limit: set.stmt.iter().find_map(limit_of_each),
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

/// The key of a statement that limits packets; `None` for another statement.
pub(super) fn limit(statement: &Value) -> Option<Key> {
    let quota = &statement["quota"];
    if quota["inv"] == true && bytes(quota, "used") < bytes(quota, "val") {
        return Some(Key::Excess);
    }
    let mut kinds = ["limit", "quota", "ct count"].iter();
    kinds
        .any(|kind| statement.get(kind).is_some())
        .then_some(Key::Limit)
}

/// The same for a statement in each element of a set.
pub(super) fn limit_of_each(statement: &Value) -> Option<Key> {
    let (limit, count) = (&statement["limit"], &statement["ct count"]);
    let is_of_packets = limit["per"] == "second" && limit["rate_unit"].is_null();
    let bound = match count["val"].as_u64() {
        Some(connections) => Some(connections),
        None => limit["rate"].as_u64().filter(|_| is_of_packets),
    };
    let is_over = limit["inv"] == true || count["inv"] == true;
    if is_over && bound.is_some_and(|bound| bound >= MANY_A_SECOND) {
        return Some(Key::Excess);
    }
    self::limit(statement)
}

/// nft omits zeros.
fn bytes(quota: &Value, key: &str) -> u64 {
    let shift = match word(&quota[format!("{key}_unit")]) {
        "kbytes" => 10,
        "mbytes" => 20,
        _ => 0,
    };
    quota[key].as_u64().unwrap_or(0) << shift
}
