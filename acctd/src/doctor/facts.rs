//! What is found on this machine, without a judgement on it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use rustix::thread::CapabilitySet;

use crate::doctor::interface_facts::InterfaceFacts;
use crate::model::prefix::Family;
use crate::process::time_zone::Trouble;
use crate::rules::ruleset::log_rule::Ruleset;

/// All that was looked at.
#[derive(Debug)]
pub struct Facts {
    /// What this process may do; acctd is taken to be started alike.
    pub capabilities: CapabilitySet,
    /// The lowest nice value that it may give itself.
    pub lowest_nice: i32,
    /// What a netlink socket gets of the receive buffer that is asked for, in bytes.
    pub receive_buffer: usize,
    /// Each group that is bound, with who has it, as far as that can be seen; `None` where it cannot.
    pub taken: Option<Vec<(u16, Option<String>)>>,
    /// The rules that are loaded, or why they cannot be read.
    pub ruleset: Result<Ruleset, String>,
    /// nft is not installed.
    pub lacks_nft: bool,
    /// The interfaces that there are; none where `ip` is not installed.
    pub interfaces: Vec<Interface>,
    /// IPv4 and IPv6 packets are forwarded.
    pub forwarding: [bool; 2],
    /// Global IPv6 addresses are in use.
    pub has_global_ip6: bool,
    /// The log directory.
    pub directory: Directory,
    /// Whether the kernel knows the time; `None` if it does not say.
    pub is_clock_synchronised: Option<bool>,
    /// Why times would not be in the zone that is asked for.
    pub time_zone: Option<Trouble>,
    /// What the cross-check needs of the kernel.
    pub kernel: Kernel,
    /// What interfaces do to packets.
    pub links: InterfaceFacts,
}

/// A network interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// It is administratively up.
    pub is_up: bool,
    /// The bridge that it is a port of.
    pub bridge: Option<String>,
    /// IPv6 is switched off on it.
    pub is_ip6_disabled: bool,
    /// It hands flows to hardware, past the kernel (`hw-tc-offload`).
    pub offloads_flows: bool,
    /// Its addresses, with their networks.
    pub addresses: Vec<IpNet>,
}

/// The log directory, or the nearest one above it that is there.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts")]
pub struct Directory {
    /// It.
    pub existing: PathBuf,
    /// It is no directory.
    pub is_a_file: bool,
    /// Files may be made in it.
    pub is_writable: bool,
    /// `intervals.jsonl` is there and cannot be appended to.
    pub jsonl_error: Option<String>,
    /// It is mounted read-only.
    pub is_read_only: bool,
    /// It is in memory, and lost with the next boot.
    pub is_in_memory: bool,
    /// Free for this user, in bytes.
    pub free_bytes: u64,
    /// Files that can still be made; `None` where the file system has no such limit.
    pub free_files: Option<u64>,
}

/// The kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its version, as in 6.1.
    pub version: (u32, u32),
    /// It has NFLOG, or a module for it.
    pub has_nflog: bool,
    /// Connection tracking is at work in this network namespace, and puts fragments together.
    pub tracks_connections: bool,
    /// It has its types with it (BTF).
    pub has_btf: bool,
    /// It compiles eBPF programs; `None` where it does not say.
    pub compiles_bpf: Option<bool>,
}

impl Facts {
    /// Whether packets of that family are forwarded.
    #[must_use]
    pub fn forwards(&self, family: Family) -> bool {
        let [ip4, ip6] = self.forwarding;
        match family {
            Family::Ip4 => ip4,
            Family::Ip6 => ip6,
        }
    }

    /// The interface with this name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.name == name)
    }

    /// None of the addresses is this host's, as far as its addresses are known.
    #[must_use]
    pub fn are_of_others(&self, nets: &[IpNet]) -> bool {
        let own = || self.interfaces.iter().flat_map(|it| &it.addresses);
        let is_for_us = |net: &IpNet| {
            net.addr().is_multicast()
                || net.addr() == IpAddr::from(Ipv4Addr::BROADCAST)
                || own().any(|own| net.contains(&own.addr()) || net.contains(&own.broadcast()))
        };
        own().next().is_some() && !nets.iter().any(is_for_us)
    }
}
