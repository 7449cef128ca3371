//! nft's ruleset as JSON, with a workaround for invalid JSON.
//!
//! For the flags of a table, nft 1.0.6 (Debian 12) prints freed memory: the table's name, another string, or bytes that
//! are not UTF-8, which makes all of the JSON invalid. Only nft's text has the right flags.

use crate::rules::external::{self, ExternalError};
use crate::rules::nft_objects::{Listing, Object, Table};

/// The output of `nft -j list ruleset`. If it is invalid, nft lists table by table, so the result is not of one moment.
pub(crate) fn ruleset() -> Result<Vec<Object>, ExternalError> {
    let text = external::run("nft", &["-j", "list", "ruleset"], "")?;
    if let Ok(Listing { nftables }) = serde_json::from_str(&text) {
        return Ok(nftables);
    }
    let mut objects = Vec::new();
    for line in external::run("nft", &["list", "tables"], "")?.lines() {
        if let ["table", family, name] = words(line)[..] {
            add_table(&mut objects, family, name)?;
        }
    }
    Ok(objects)
}

/// Whether a table is disabled, from the object that nft prints for it.
pub(crate) fn is_dormant(table: &Table) -> bool {
    let Table {
        family,
        name,
        flags,
    } = table;
    let are_known = flags
        .iter()
        .all(|flag| ["dormant", "owner", "persist"].iter().any(|it| flag == it));
    if are_known {
        return flags.iter().any(|flag| flag == "dormant");
    }
    let text = external::run("nft", &["list", "table", family, name], "");
    text.is_ok_and(|text| flags_of(&text).contains(&"dormant"))
}

fn add_table(objects: &mut Vec<Object>, family: &str, name: &str) -> Result<(), ExternalError> {
    if let Some(whole) = list(&["table", family, name])? {
        objects.extend(whole);
        return Ok(());
    }
    let text = external::run("nft", &["list", "table", family, name], "")?;
    let flags = flags_of(&text).into_iter().map(Into::into);
    objects.push(Object {
        table: Some(Table {
            family: family.to_owned(),
            name: name.to_owned(),
            flags: flags.collect(),
        }),
        ..Object::default()
    });
    for line in text.lines() {
        if let [kind @ ("chain" | "set" | "map"), part, "{"] = words(line)[..] {
            let part = list(&[kind, family, name, part])?;
            objects.extend(part.into_iter().flatten());
        }
    }
    Ok(())
}

/// `None` if nft prints invalid JSON.
fn list(what: &[&str]) -> Result<Option<Vec<Object>>, ExternalError> {
    let text = external::run("nft", &[&["-j", "list"], what].concat(), "")?;
    let listing: Option<Listing> = serde_json::from_str(&text).ok();
    Ok(listing.map(|it| it.nftables))
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
        let is_dormant = |json| is_dormant(&serde_json::from_str(json).unwrap());
        assert!(!is_dormant(r#"{ "name": "dormant" }"#));
        assert!(is_dormant(r#"{ "flags": ["owner", "dormant"] }"#));
        assert!(!is_dormant(r#"{ "flags": "owner" }"#));
    }
}
