//! The rules for nft, all in tables named acctd. Loaded rules are compared by nft's JSON (libnftables-json(5)), because
//! nft's text differs between versions.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::plan::{Hook, Plan, Rule};
use crate::model::group::NflogGroup;
use crate::model::prefix::{Family, Side};
use crate::process::kernel::kernel_version;
use crate::rules::compare::compare;
use crate::rules::doctor_table;
use crate::rules::external::{self, ExternalError, if_installed};
use crate::rules::names::CHAIN_PREFIX;
use crate::rules::nft_loaded::{Loaded, loaded, loaded_families};
use crate::rules::nft_objects::Listing;
use crate::rules::nft_table::{Base, Chain, TABLE, Table, chain_line, lines};
use crate::rules::plan::list_text;

/// Before usual chains and connection tracking.
const PRIORITY: i32 = -300;
/// Of chains on the egress hook.
const EGRESS_PRIORITY: i32 = 0;

/// A script that replaces the rules in one transaction. It keeps the chains: a packet in an old chain must not pass a
/// new one as well.
pub(crate) fn script(plan: &Plan) -> String {
    let tables = tables(plan);
    let is_alone = tables.len() == 1;
    let mut text = String::new();
    for table in tables {
        let family = table.family;
        if family == "netdev" {
            text.push_str(&separate_file_comment(plan, is_alone));
        }
        // Writing to a string cannot fail.
        let _always = write!(
            text,
            "table {family} {TABLE}\nflush table {family} {TABLE}\n{table}"
        );
    }
    text
}

/// Whether the kernel rejects a chain if its device does not exist.
pub(crate) fn needs_all_devices() -> bool {
    // Since 6.16 a chain may have no device ("nf_tables: Tolerate chains with no remaining hooks").
    kernel_version() < (6, 16)
}

/// The flags that select only the groups of the egress hook.
pub(crate) fn flags_of_egress(plan: &Plan) -> String {
    let mut flags = String::new();
    for (flag, _, side, list) in plan.groups.directions() {
        if side == Side::Dest && !list.0.is_empty() {
            let _always = write!(flags, " -{flag}={}", list_text(list));
        }
    }
    flags
}

fn separate_file_comment(plan: &Plan, is_alone: bool) -> String {
    let how = if is_alone {
        String::new()
    } else {
        format!(
            "# To print it alone, give the same flags with only these groups:{}\n# The other groups print the rest.\n",
            flags_of_egress(plan)
        )
    };
    format!(
        "# Before Linux 6.16, if an interface of this table does not exist, nft loads nothing of the file, nor of a file
# that includes it. Then load this table from a separate file, not from /etc/nftables.conf.\n{how}"
    )
}

/// Loads the rules, and removes acctd's tables of other families.
pub(crate) fn apply(plan: &Plan) -> Result<()> {
    let needed = tables(plan);
    let loaded = loaded()?;
    let mut text = String::new();
    for Loaded { family, .. } in &loaded {
        if needed.iter().all(|table| table.family != family) {
            let _always = writeln!(text, "delete table {family} {TABLE}");
        }
    }
    let is_egress = |table: &&Table| table.family == "netdev";
    let (egress, others): (Vec<&Table>, Vec<&Table>) = needed.iter().partition(is_egress);
    for table in others {
        text.push_str(&replacement(table, &loaded));
    }
    let egress: String = egress.iter().map(|it| replacement(it, &loaded)).collect();
    if needs_all_devices() && !egress.is_empty() && !text.is_empty() {
        // If an interface does not exist, the other tables are loaded nevertheless.
        external::run("nft", &["-f", "-"], &text).context("cannot load the rules")?;
        external::run("nft", &["-f", "-"], &egress).with_context(|| {
            let cause = cause_of_egress();
            format!("cannot load the rules of the egress hook{cause}; the other rules are loaded")
        })?;
    } else {
        let has_egress = !egress.is_empty();
        text.push_str(&egress);
        external::run("nft", &["-f", "-"], &text).with_context(|| {
            let cause = if has_egress {
                cause_of_egress()
            } else {
                String::new()
            };
            format!("cannot load the rules{cause}")
        })?;
    }
    Ok(())
}

/// Why the kernel may have rejected the hook ("netfilter: Introduce egress hook").
fn cause_of_egress() -> String {
    match kernel_version() {
        version @ (major, minor) if version < (5, 16) => {
            format!(": the egress hook needs Linux 5.16, and this is {major}.{minor}")
        }
        _ => String::new(),
    }
}

/// The commands that turn the loaded table into this one. Chains that stay are flushed and filled in one transaction:
/// if a chain were deleted, a packet in it would also pass the new one, and be counted twice.
fn replacement(table: &Table, loaded: &[Loaded]) -> String {
    let family = table.family;
    let Some(loaded) = loaded.iter().find(|it| it.family == family) else {
        return table.to_string();
    };
    let mut text = if loaded.has_others {
        format!("delete table {family} {TABLE}\n")
    } else {
        format!("flush table {family} {TABLE}\n")
    };
    if !loaded.has_others {
        let stays = |chain: &(String, String)| {
            let mut needed = table.chains.iter();
            needed.any(|it| chain_line(family, &it.name, it.base.as_ref()) == chain.1)
        };
        for (name, _) in loaded.chains.iter().filter(|chain| !stays(chain)) {
            let _always = writeln!(text, "delete chain {family} {TABLE} {name}");
        }
    }
    let _always = write!(text, "{table}");
    text
}

/// Removes acctd's tables. If nft is not installed, there are none.
pub(crate) fn remove() -> Result<()> {
    let lines = loaded_families()?
        .into_iter()
        .map(|family| format!("delete table {family} {TABLE}\n"));
    let text: String = lines.collect();
    if !text.is_empty() {
        external::run("nft", &["-f", "-"], &text).context("cannot remove the rules")?;
    }
    Ok(())
}

/// Removes the tables that a killed `acctd doctor --live` left.
pub(crate) fn remove_of_doctor() -> Result<()> {
    match doctor_table::remove_left_over() {
        Err(ExternalError::Missing { .. }) => Ok(()),
        removed => removed.context("cannot remove the tables that acctd doctor --live left"),
    }
}

/// Whether acctd's chains are loaded by iptables-nft in this family (`ip` or `ip6`).
pub(crate) fn has_chains_of_iptables(family: &str) -> Result<bool> {
    let text = if_installed(external::run("nft", &["list", "chains", family], ""))?;
    Ok(text.contains(&format!("chain {CHAIN_PREFIX}")))
}

/// Removes a table of iptables-nft that has only empty base chains.
pub(crate) fn remove_if_empty(family: &str, table: &str) -> Result<()> {
    let listed = external::run("nft", &["-j", "list", "table", family, table], "");
    // The table does not exist.
    let Ok(text) = listed else { return Ok(()) };
    let listing: Listing = serde_json::from_str(&text).context("nft prints invalid JSON")?;
    let is_empty = listing.nftables.iter().all(|object| {
        let is_untouched = object
            .chain
            .as_ref()
            .is_some_and(|chain| chain.policy.as_deref() == Some("accept") && chain.hook.is_some());
        object.metainfo.is_some() || object.table.is_some() || is_untouched
    });
    if is_empty {
        external::run("nft", &["delete", "table", family, table], "")
            .context("cannot remove an empty table")?;
    }
    Ok(())
}

/// A line for each difference between the loaded rules and the needed ones.
pub(crate) fn differences(plan: &Plan) -> Result<Vec<String>> {
    let needed = lines(&tables(plan));
    let loaded = loaded()?;
    let loaded: Vec<String> = loaded.into_iter().flat_map(|it| it.lines).collect();
    Ok(compare(&needed, &loaded))
}

/// A line for each of acctd's tables, none of which is needed.
pub(crate) fn left_over() -> Result<Vec<String>> {
    let families = loaded_families()?.into_iter();
    let lines = families.map(|family| format!("not needed: table {family} {TABLE}"));
    Ok(lines.collect())
}

fn tables(plan: &Plan) -> Vec<Table> {
    let is_egress = |rule: &&Rule| matches!(rule.hook, Hook::Egress(_));
    let (egress, others): (Vec<&Rule>, Vec<&Rule>) = plan.rules.iter().partition(is_egress);
    let family = if plan.is_bridge { "bridge" } else { "inet" };
    let tables = [(family, others), ("netdev", egress)].into_iter();
    tables
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(family, rules)| Table {
            family,
            chains: chains(plan, family, &rules),
        })
        .collect()
}

fn chains(plan: &Plan, family: &str, rules: &[&Rule]) -> Vec<Chain> {
    let mut bases: Vec<Chain> = Vec::new();
    let mut targets: Vec<Chain> = Vec::new();
    for rule in rules {
        let matches = matches(family, rule);
        let action = if let [group] = rule.groups[..] {
            log(plan, rule, group)
        } else {
            for &group in &rule.groups {
                let chain = Chain {
                    name: group_chain(group),
                    base: None,
                    rules: vec![log(plan, rule, group)],
                };
                if !targets.contains(&chain) {
                    targets.push(chain);
                }
            }
            spread(plan, &rule.groups)
        };
        let text = format!("{matches} {action} comment \"{}\"", rule.description());
        let base = Some(Base::of(rule));
        if let Some(chain) = bases.iter_mut().find(|chain| chain.base == base) {
            chain.rules.push(text);
            continue;
        }
        let name = match rule.hook {
            // Interface names may have characters that chain names may not.
            Hook::Egress(ref device) => egress_chain(device),
            _ => rule.hook.name().to_owned(),
        };
        let rules = vec![text];
        bases.push(Chain { name, base, rules });
    }
    targets.append(&mut bases);
    targets
}

/// Each device name gives another chain name.
fn egress_chain(device: &str) -> String {
    let letters = device.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
        other => format!("_{other:02x}"),
    });
    format!("egress_{}", letters.collect::<String>())
}

/// One lookup for all CPUs: the packet may move to another CPU between two rules.
fn spread(plan: &Plan, groups: &[NflogGroup]) -> String {
    let elements = plan.by_cpu(groups);
    let elements = elements.map(|(cpu, group)| format!("{cpu} : jump {}", group_chain(group)));
    let elements: Vec<String> = elements.collect();
    format!("meta cpu vmap {{ {} }}", elements.join(", "))
}

fn group_chain(group: NflogGroup) -> String {
    format!("group_{group}")
}

fn matches(family: &str, rule: &Rule) -> String {
    let interface = rule.interface.as_ref().map(|name| {
        let key = match rule.side {
            Side::Source => "iifname",
            Side::Dest => "oifname",
        };
        format!("{key} \"{name}\" ")
    });
    let interface = interface.unwrap_or_default();
    // Bridge and netdev chains also see frames that are not IP.
    let protocol = match (family, rule.family) {
        ("inet", Family::Ip4) => "meta nfproto ipv4",
        ("inet", Family::Ip6) => "meta nfproto ipv6",
        (_, Family::Ip4) => "meta protocol ip",
        (_, Family::Ip6) => "meta protocol ip6",
    };
    format!("{interface}{protocol}")
}

fn log(plan: &Plan, rule: &Rule, group: NflogGroup) -> String {
    format!(
        "counter log group {group} snaplen {} queue-threshold {}",
        plan.snaplen(rule),
        plan.threshold
    )
}

impl Base {
    fn of(rule: &Rule) -> Self {
        let (device, priority) = match &rule.hook {
            Hook::Egress(device) => (Some(device.clone()), EGRESS_PRIORITY),
            _ => (None, PRIORITY),
        };
        Self {
            hook: rule.hook.name().to_owned(),
            device,
            priority: priority.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::plan::tests::plan;

    #[test]
    fn a_host_has_the_rules_of_the_readme_with_counters() {
        let text = script(&plan(&["host"]).unwrap());
        assert_eq!(
            text,
            r#"table inet acctd
flush table inet acctd
table inet acctd {
    chain input {
        type filter hook input priority -300;
        meta nfproto ipv4 counter log group 5 snaplen 20 queue-threshold 50 comment "acctd: IPv4, by source"
        meta nfproto ipv6 counter log group 7 snaplen 40 queue-threshold 50 comment "acctd: IPv6, by source"
    }
    chain output {
        type filter hook output priority -300;
        meta nfproto ipv4 counter log group 4 snaplen 20 queue-threshold 50 comment "acctd: IPv4, by destination"
        meta nfproto ipv6 counter log group 6 snaplen 40 queue-threshold 50 comment "acctd: IPv6, by destination"
    }
}
"#
        );
    }

    #[test]
    fn an_egress_hook_has_its_own_table_and_snaplen() {
        let args = [
            "router",
            "--lan=br-lan",
            "--egress-hook=br-lan",
            "-ip4-dst-group=4",
        ];
        assert_eq!(
            script(&plan(&args).unwrap()),
            r#"# Before Linux 6.16, if an interface of this table does not exist, nft loads nothing of the file, nor of a file
# that includes it. Then load this table from a separate file, not from /etc/nftables.conf.
table netdev acctd
flush table netdev acctd
table netdev acctd {
    chain egress_br-lan {
        type filter hook egress device "br-lan" priority 0;
        meta protocol ip counter log group 4 snaplen 42 queue-threshold 50 comment "acctd: IPv4 to br-lan, by destination"
    }
}
"#
        );
    }

    #[test]
    fn a_fan_out_looks_the_cpu_up_once() {
        let mut plan =
            plan(&["router", "--lan=a,b", "-ip4-src-group=5,9", "--threshold=7"]).unwrap();
        plan.n_cpus = 3;
        assert_eq!(
            script(&plan).replace("\nflush table inet acctd", ""),
            r#"table inet acctd
table inet acctd {
    chain group_5 {
        counter log group 5 snaplen 20 queue-threshold 7
    }
    chain group_9 {
        counter log group 9 snaplen 20 queue-threshold 7
    }
    chain prerouting {
        type filter hook prerouting priority -300;
        iifname "a" meta nfproto ipv4 meta cpu vmap { 0 : jump group_5, 1 : jump group_9, 2 : jump group_5 } comment "acctd: IPv4 from a, by source"
        iifname "b" meta nfproto ipv4 meta cpu vmap { 0 : jump group_5, 1 : jump group_9, 2 : jump group_5 } comment "acctd: IPv4 from b, by source"
    }
}
"#
        );
    }
}
