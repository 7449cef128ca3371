//! The objects of nft's JSON (libnftables-json(5)).
//!
//! Statements and expressions stay untyped: there are dozens of kinds, and an unknown one is quoted as it is.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::Value;

#[derive(Debug, Deserialize)]
pub(crate) struct Listing {
    pub(crate) nftables: Vec<Object>,
}

/// At most one field is set. Without any, it is another kind, such as a flowtable.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Object {
    pub(crate) metainfo: Option<IgnoredAny>,
    pub(crate) table: Option<Table>,
    pub(crate) chain: Option<Chain>,
    pub(crate) rule: Option<Rule>,
    pub(crate) set: Option<Set>,
    pub(crate) map: Option<Set>,
    pub(crate) counter: Option<Counter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Table {
    pub(crate) family: String,
    pub(crate) name: String,
    #[serde(deserialize_with = "list")]
    pub(crate) flags: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Chain {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
    /// Of base chains only, like the next three.
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) hook: Option<String>,
    pub(crate) prio: Option<i64>,
    pub(crate) policy: Option<String>,
    /// Names of devices. nft 1.0.6 omits them.
    #[serde(deserialize_with = "list")]
    pub(crate) dev: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rule {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) handle: Option<u64>,
    pub(crate) comment: Option<String>,
    #[serde(deserialize_with = "list")]
    pub(crate) expr: Vec<Value>,
}

/// A named set or map.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Set {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
    #[serde(deserialize_with = "list")]
    pub(crate) flags: Vec<Value>,
    #[serde(deserialize_with = "list")]
    pub(crate) elem: Vec<Value>,
    #[serde(deserialize_with = "list")]
    pub(crate) stmt: Vec<Value>,
}

/// A named counter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Counter {
    pub(crate) family: String,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// nft prints a list of one element as the element.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Value>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Null => Vec::new(),
        Value::Array(values) => values,
        one => vec![one],
    })
}
