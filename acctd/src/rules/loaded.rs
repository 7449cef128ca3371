//! Reads the loaded rules with all programs that show them: nft, iptables-nft and iptables-legacy.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::nft_json;
use super::nft_objects::Object;
use crate::model::prefix::Family;
use crate::rules::devices::{self, Devices};
use crate::rules::external::{self, ExternalError};
use crate::rules::ruleset::log_rule::Ruleset;
use crate::rules::ruleset::reading::Reading;

/// The rules, or why they cannot be read, and whether nft is missing.
pub(crate) fn read() -> (Result<Ruleset, String>, bool) {
    let mut reading = Reading::default();
    let mut is_nft_missing = false;
    match nft_json::ruleset() {
        Ok(objects) => reading.add_nft(&objects, &devices_of(&objects), &dormant(&objects)),
        Err(ExternalError::Missing { .. }) => is_nft_missing = true,
        Err(error) => return (Err(error.to_string()), false),
    }
    for family in [Family::Ip4, Family::Ip6] {
        let (names, program) = match family {
            Family::Ip4 => ("ip_tables_names", "iptables"),
            Family::Ip6 => ("ip6_tables_names", "ip6tables"),
        };
        // The program must not run without need: it makes the kernel create tables.
        let names = fs::read_to_string(Path::new("/proc/thread-self/net").join(names));
        let names = names.unwrap_or_default();
        if !names.trim().is_empty() {
            add_legacy(&mut reading, family, program, &names);
        }
        if is_nft_missing || reading.lacks_iptables(family) {
            add_iptables_nft(&mut reading, family, program, is_nft_missing);
        }
    }
    (Ok(reading.finish()), is_nft_missing)
}

fn add_legacy(reading: &mut Reading, family: Family, program: &str, tables: &str) {
    match save(program, "legacy") {
        Ok(text) => reading.add_iptables(&text, family),
        Err(error) => {
            let tables: Vec<&str> = tables.split_whitespace().collect();
            let tables = tables.join(", ");
            reading.add_unreadable(
                format!("{program}-legacy has tables loaded ({tables}): {error}"),
                format!("make {program}-legacy-save work (apt-get install iptables) before you load rules: if these tables log already, all packets would be counted twice"),
            );
        }
    }
}

/// Rules of iptables-nft that nft does not show in full, or does not show because it is missing.
fn add_iptables_nft(reading: &mut Reading, family: Family, program: &str, is_nft_missing: bool) {
    let saved = save(program, "nft");
    if let Ok(text) = &saved {
        reading.replace_by_iptables_nft(text, family);
    }
    if is_nft_missing || !reading.lacks_iptables(family) {
        return;
    }
    let why = match saved {
        Ok(_) => format!("{program}-nft-save does not show them either"),
        Err(error) => error,
    };
    let hidden = reading.hidden().iter();
    let hidden: Vec<String> = hidden
        .map(|(table, n)| format!("{n} in table {table}"))
        .collect();
    if !hidden.is_empty() {
        reading.add_unreadable(
            format!(
                "nft does not show all of the rules of {program} ({}): {why}",
                hidden.join(", ")
            ),
            format!(
                "make {program}-nft-save work (apt-get install iptables), or use nft 1.0.6 or later"
            ),
        );
    }
}

/// The output of `iptables-legacy-save` or `iptables-nft-save`. If only one kind is installed, it may be called
/// `iptables-save`.
fn save(program: &str, kind: &str) -> Result<String, String> {
    let own = format!("{program}-{kind}-save");
    let error = match external::run(&own, &[], "") {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    if matches!(error, ExternalError::Missing { .. }) {
        let only = format!("{program}-save");
        let version = external::run(&only, &["--version"], "").unwrap_or_default();
        // Before 1.8, the version does not say legacy.
        let is_newer = version.contains("nf_tables");
        if !version.is_empty() && is_newer == (kind == "nft") {
            return external::run(&only, &[], "").map_err(|error| error.to_string());
        }
    }
    Err(error.to_string())
}

/// In its JSON nft 1.0.6 leaves them out, so they are read from its text.
fn devices_of(objects: &[Object]) -> Devices {
    let mut chains = objects.iter().filter_map(|it| it.chain.as_ref());
    if !chains.any(|it| it.family == "netdev" || it.hook.as_deref() == Some("ingress")) {
        return Devices::new();
    }
    let text = external::run("nft", &["list", "ruleset", "netdev"], "");
    devices::devices(&text.unwrap_or_default())
}

/// The tables that are switched off.
fn dormant(objects: &[Object]) -> BTreeSet<String> {
    let tables = objects.iter().filter_map(|it| it.table.as_ref());
    tables
        .filter(|table| nft_json::is_dormant(table))
        .map(|table| format!("{} {}", table.family, table.name))
        .collect()
}
