//! Gathers what `acctd explain` needs to know of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Result, anyhow};

use super::situation::Situation;
use crate::crosscheck::tc_netlink::name_of;
use crate::crosscheck::vlans;
use crate::rules::interfaces;
use crate::rules::loaded;

/// The stack's counters, as nstat(8) names them.
pub(super) type Counters = BTreeMap<String, u64>;

/// Packets that are discarded between the hooks.
const DISCARDS: [&str; 13] = [
    "TcpExtIPReversePathFilter",
    "IpInHdrErrors",
    "IpInAddrErrors",
    "IpInDiscards",
    "IpOutDiscards",
    "IpOutNoRoutes",
    "IpExtInNoRoutes",
    "IpExtInTruncatedPkts",
    "Ip6InHdrErrors",
    "Ip6InAddrErrors",
    "Ip6InNoRoutes",
    "Ip6InDiscards",
    "Ip6OutNoRoutes",
];

/// `before` are the counters before the sample.
pub(super) fn gather(before: &Counters) -> Result<Situation> {
    let (ruleset, _) = loaded::read();
    let now = counters();
    let discarded = now.into_iter().map(|(name, value)| {
        let more = value.saturating_sub(before.get(&name).copied().unwrap_or(0));
        (name, more)
    });
    let ruleset =
        ruleset.map_err(|error| anyhow!("cannot read the rules: {error}; run it as root"))?;
    // A router has many connections, and only those in a flowtable matter.
    let connections = if ruleset.flowtables.is_empty() {
        String::new()
    } else {
        fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap_or_default()
    };
    Ok(Situation {
        ruleset,
        vlans: vlan_devices(),
        interfaces: interfaces::read(),
        forwarding: interfaces::forwarding(),
        bridged_families: interfaces::bridged_families(),
        connections,
        discarded: discarded.filter(|(_, more)| *more > 0).collect(),
    })
}

pub(super) fn counters() -> Counters {
    let read = |name| {
        let path = Path::new("/proc/thread-self/net").join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    let mut all = Counters::new();
    for file in ["netstat", "snmp"] {
        let text = read(file);
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.chunks_exact(2) {
            let mut names = pair[0].split_whitespace();
            let values = pair[1].split_whitespace().skip(1);
            let prefix = names.next().unwrap_or_default().trim_end_matches(':');
            for (name, value) in names.zip(values) {
                all.insert(format!("{prefix}{name}"), value.parse().unwrap_or(0));
            }
        }
    }
    for line in read("snmp6").lines() {
        if let Some((name, value)) = line.split_once(char::is_whitespace) {
            all.insert(name.to_owned(), value.trim().parse().unwrap_or(0));
        }
    }
    all.retain(|name, _| DISCARDS.contains(&name.as_str()));
    all
}

fn vlan_devices() -> Vec<(String, u16, String)> {
    let devices = vlans::read().unwrap_or_default().into_iter();
    let devices = devices.filter_map(|(key, device)| {
        let vlan = u16::try_from(key.vlan).ok()?;
        Some((name_of(key.device)?, vlan, name_of(device)?))
    });
    devices.collect()
}
