//! The interfaces of this machine, and whether it forwards: what decides on the rules that packets meet.

use std::fs;
use std::path::Path;

use ipnet::IpNet;
use serde_json::Value;

use crate::model::prefix::Family;
use crate::rules::external;

#[derive(Clone, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// Administratively up.
    pub(crate) is_up: bool,
    /// What it is a port of.
    pub(crate) port_of: Option<Master>,
    pub(crate) is_ip6_disabled: bool,
    /// The device may forward flows in hardware, past the kernel (`hw-tc-offload`).
    pub(crate) offloads_flows: bool,
    /// Its addresses, with their prefix lengths.
    pub(crate) addresses: Vec<IpNet>,
}

/// An interface that has others as its ports (`ip link set PORT master NAME`).
#[derive(Clone, Debug)]
pub(crate) struct Master {
    pub(crate) name: String,
    /// The kernel's name of its kind: `bridge`, `bond`, `team`, `vrf` and others.
    pub(crate) kind: String,
}

impl Interface {
    /// The interface of this kind that has it as a port.
    pub(crate) fn master(&self, kind: &str) -> Option<&str> {
        let master = self.port_of.as_ref().filter(|it| it.kind == kind)?;
        Some(&master.name)
    }
}

/// Read with `ip`, because `/sys` shows the network namespace in which it was mounted.
pub(crate) fn read() -> Vec<Interface> {
    let text = external::run("ip", &["-j", "-d", "addr"], "").unwrap_or_default();
    let links: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
    let interfaces = links.iter().filter_map(|link| {
        let name = link["ifname"].as_str()?.to_owned();
        let flags = link["flags"].as_array().into_iter().flatten();
        let master = link["master"].as_str();
        let kind = link["linkinfo"]["info_slave_kind"].as_str();
        let disabled = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        Some(Interface {
            is_up: flags.into_iter().any(|flag| flag == "UP"),
            port_of: master.zip(kind).map(|(name, kind)| Master {
                name: name.to_owned(),
                kind: kind.to_owned(),
            }),
            is_ip6_disabled: fs::read_to_string(disabled).is_ok_and(|it| it.trim() == "1"),
            offloads_flows: link["parentdev"].is_string() && offloads_flows(&name),
            addresses: addresses(&link["addr_info"]),
            name,
        })
    });
    interfaces.collect()
}

fn addresses(json: &Value) -> Vec<IpNet> {
    let all = json.as_array().into_iter().flatten();
    let addresses = all.filter_map(|it| {
        let length = u8::try_from(it["prefixlen"].as_u64()?).ok()?;
        IpNet::new(it["local"].as_str()?.parse().ok()?, length).ok()
    });
    addresses.collect()
}

/// Without ethtool the answer is no: most devices cannot.
fn offloads_flows(name: &str) -> bool {
    external::run("ethtool", &["-k", name], "")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "hw-tc-offload: on"))
}

/// Whether the host forwards IPv4 and IPv6.
pub(crate) fn forwarding() -> [bool; 2] {
    ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].map(is_on)
}

/// A setting of `/proc/sys/net`.
fn is_on(name: &str) -> bool {
    let text = fs::read_to_string(Path::new("/proc/sys/net").join(name));
    text.is_ok_and(|text| text.trim() != "0")
}

/// The families whose bridged packets also pass the IP rules.
pub(crate) fn bridged_families() -> Vec<Family> {
    let is_set = |name: &str| {
        fs::read_to_string(format!("/proc/sys/net/bridge/{name}"))
            .is_ok_and(|value| value.trim() != "0")
    };
    let calls = BRIDGE_CALLS.iter().filter(|(_, name)| is_set(name));
    calls.map(|(family, _)| *family).collect()
}

/// The settings of `br_netfilter`, below `net.bridge`.
pub(crate) const BRIDGE_CALLS: [(Family, &str); 2] = [
    (Family::Ip4, "bridge-nf-call-iptables"),
    (Family::Ip6, "bridge-nf-call-ip6tables"),
];
