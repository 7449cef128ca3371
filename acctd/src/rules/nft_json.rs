//! nft's ruleset as JSON, with a workaround for invalid JSON.
//!
//! For the flags of a table, nft 1.0.6 (Debian 12) prints freed memory: the table's name, another string, or bytes that
//! are not UTF-8, which makes all of the JSON invalid. Only nft's text has the right flags.

use serde_json::{Value, json};

use crate::rules::external::{self, ExternalError};

/// The output of `nft -j list ruleset`. If it is invalid, nft lists table by table, so the result is not of one moment.
pub(crate) fn ruleset() -> Result<Value, ExternalError> {
    let text = external::run("nft", &["-j", "list", "ruleset"], "")?;
    if let Ok(json) = serde_json::from_str(&text) {
        return Ok(json);
    }
    let mut objects = Vec::new();
    for line in external::run("nft", &["list", "tables"], "")?.lines() {
        if let ["table", family, name] = words(line)[..] {
            add_table(&mut objects, family, name)?;
        }
    }
    Ok(json!({ "nftables": objects }))
}

/// Whether a table is disabled, from the object that nft prints for it.
pub(crate) fn is_dormant(table: &Value) -> bool {
    let flags = match &table["flags"] {
        Value::Null => return false,
        Value::Array(flags) => flags.clone(),
        flags => vec![flags.clone()],
    };
    let are_known = flags
        .iter()
        .all(|flag| ["dormant", "owner", "persist"].iter().any(|it| flag == it));
    if are_known {
        return flags.iter().any(|flag| flag == "dormant");
    }
    let (Some(family), Some(name)) = (table["family"].as_str(), table["name"].as_str()) else {
        return false;
    };
    let text = external::run("nft", &["list", "table", family, name], "");
    text.is_ok_and(|text| flags_of(&text).contains(&"dormant"))
}

fn add_table(objects: &mut Vec<Value>, family: &str, name: &str) -> Result<(), ExternalError> {
    if let Some(whole) = list(&["table", family, name])? {
        objects.extend(whole);
        return Ok(());
    }
    let text = external::run("nft", &["list", "table", family, name], "")?;
    let flags = flags_of(&text);
    objects.push(json!({ "table": { "family": family, "name": name, "flags": flags } }));
    for line in text.lines() {
        if let [kind @ ("chain" | "set" | "map"), part, "{"] = words(line)[..] {
            let part = list(&[kind, family, name, part])?;
            objects.extend(part.into_iter().flatten());
        }
    }
    Ok(())
}

/// `None` if nft prints invalid JSON.
fn list(what: &[&str]) -> Result<Option<Vec<Value>>, ExternalError> {
    let text = external::run("nft", &[&["-j", "list"], what].concat(), "")?;
    let json: Option<Value> = serde_json::from_str(&text).ok();
    Ok(json.and_then(|json| json["nftables"].as_array().cloned()))
}

/// In nft's text, the flags of a table are in its second line.
fn flags_of(text: &str) -> Vec<&str> {
    let line = text.lines().nth(1).unwrap_or_default();
    let flags = line.trim().strip_prefix("flags ").unwrap_or_default();
    let flags = flags.trim_end_matches(';').split(',').map(str::trim);
    flags.filter(|flag| !flag.is_empty()).collect()
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tables_flags_are_in_its_second_line() {
        let text = "table inet t {\n\tflags dormant\n\n\tchain c {\n\t}\n}\n";
        assert_eq!(flags_of(text), ["dormant"]);
        let text = "table inet t {\n\tflags owner,dormant;\n}\n";
        assert_eq!(flags_of(text), ["owner", "dormant"]);
        assert_eq!(flags_of("table inet t {\n\tchain c {\n"), [""; 0]);
        assert!(!is_dormant(&json!({ "name": "dormant" })));
        assert!(is_dormant(&json!({ "flags": ["owner", "dormant"] })));
        assert!(!is_dormant(&json!({ "flags": "owner" })));
    }
}
