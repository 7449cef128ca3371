//! What doctor knows of this machine, without a judgement on it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use rustix::thread::CapabilitySet;

use crate::doctor::interface_facts::InterfaceFacts;
use crate::model::prefix::Family;
use crate::process::time_zone::ZoneError;
use crate::rules::interfaces::Interface;
use crate::rules::ruleset::log_rule::Ruleset;

#[derive(Debug)]
pub(crate) struct Facts {
    /// The effective capabilities of this process. The daemon is assumed to start with the same.
    pub(crate) capabilities: CapabilitySet,
    /// The lowest nice value that this process may set for itself.
    pub(crate) lowest_nice: i32,
    /// The receive buffer that the kernel grants a netlink socket, in bytes.
    pub(crate) receive_buffer: usize,
    /// Each bound group with its owner, if that is visible; `None` if the kernel's table cannot be read.
    pub(crate) bound_groups: Option<Vec<(u16, Option<String>)>>,
    /// The loaded rules, or why they cannot be read.
    pub(crate) ruleset: Result<Ruleset, String>,
    pub(crate) is_nft_missing: bool,
    /// All interfaces; empty if `ip` is not installed.
    pub(crate) interfaces: Vec<Interface>,
    /// Whether the host forwards IPv4 and IPv6.
    pub(crate) forwarding: [bool; 2],
    pub(crate) has_global_ip6: bool,
    pub(crate) directory: Directory,
    /// `None` if the kernel does not say.
    pub(crate) is_clock_synchronised: Option<bool>,
    /// Why times would not be in the configured zone.
    pub(crate) time_zone: Option<ZoneError>,
    pub(crate) kernel: Kernel,
    /// Why the cross-check's programs and maps cannot be loaded.
    pub(crate) crosscheck_error: Option<String>,
    pub(crate) links: InterfaceFacts,
}

/// The log directory, or its nearest ancestor that exists.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts")]
pub(crate) struct Directory {
    pub(crate) existing: PathBuf,
    /// `existing` is not a directory.
    pub(crate) is_a_file: bool,
    pub(crate) is_writable: bool,
    /// Why acctd cannot append to an existing `intervals.jsonl`.
    pub(crate) jsonl_error: Option<String>,
    pub(crate) is_read_only: bool,
    /// On tmpfs or ramfs: a reboot loses its files.
    pub(crate) is_in_memory: bool,
    /// Free for this user.
    pub(crate) free_bytes: u64,
    /// Free inodes; `None` if the file system has no such limit.
    pub(crate) free_files: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Major and minor, as in 6.1.
    pub(crate) version: (u32, u32),
    /// NFLOG is built in, or there is a module for it.
    pub(crate) has_nflog: bool,
    /// Connection tracking is active in this network namespace, so it reassembles fragments.
    pub(crate) tracks_connections: bool,
    pub(crate) has_btf: bool,
    /// `None` if the kernel does not say.
    pub(crate) has_bpf_jit: Option<bool>,
}

impl Facts {
    pub(crate) fn forwards(&self, family: Family) -> bool {
        let [ip4, ip6] = self.forwarding;
        match family {
            Family::Ip4 => ip4,
            Family::Ip6 => ip6,
        }
    }

    pub(crate) fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|it| it.name == name)
    }

    /// Whether none of these networks has an address of this host. If no address of this host is known, the answer
    /// is no.
    pub(crate) fn are_foreign(&self, nets: &[IpNet]) -> bool {
        let own = || self.interfaces.iter().flat_map(|it| &it.addresses);
        let is_for_us = |net: &IpNet| {
            net.addr().is_multicast()
                || net.addr() == IpAddr::from(Ipv4Addr::BROADCAST)
                || own().any(|own| net.contains(&own.addr()) || net.contains(&own.broadcast()))
        };
        own().next().is_some() && !nets.iter().any(is_for_us)
    }
}
