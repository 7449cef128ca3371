//! Findings that are not about rules: privileges, groups, the cross-check, the disk, the clock.

use rustix::thread::CapabilitySet;

use crate::config::Config;
use crate::config::crosscheck::AttachMode;
use crate::doctor::facts::{Directory, Facts};
use crate::doctor::finding::{Findings, Severity};
use crate::model::prefix::Family;
use crate::nflog::socket::WANTED_RECEIVE_BUFFER;

const LITTLE_SPACE: u64 = 100_000_000;
const FEW_FILES: u64 = 1_000;

pub(super) fn privileges(config: &Config, facts: &Facts, all: &mut Findings) {
    let has = |capability| facts.capabilities.contains(capability);
    if !has(CapabilitySet::NET_ADMIN) {
        all.error(
            "no-cap-net-admin",
            "CAP_NET_ADMIN is missing: no group can be read".into(),
            "run acctd as root, or grant it: AmbientCapabilities=CAP_NET_ADMIN in its unit".into(),
        );
    }
    if config.crosscheck.is_some() && !may_load(facts) {
        all.error(
            "no-cap-bpf",
            "CAP_BPF and CAP_PERFMON are missing: no cross-check".into(),
            "grant them, or leave --crosscheck out".into(),
        );
    }
    if config.priority < facts.lowest_nice && !has(CapabilitySet::SYS_NICE) {
        all.warning(
            "no-cap-sys-nice",
            format!(
                "the nice value of --priority {} is not allowed: packets may be lost sooner on a busy machine",
                config.priority
            ),
            format!(
                "grant CAP_SYS_NICE or LimitNICE={}, or start with --priority 0",
                config.priority
            ),
        );
    }
    if facts.receive_buffer < WANTED_RECEIVE_BUFFER {
        all.warning(
            "small-receive-buffer",
            format!(
                "sockets get a receive buffer of {} KiB instead of {}: packets are lost sooner under load",
                facts.receive_buffer / 1024,
                WANTED_RECEIVE_BUFFER / 1024
            ),
            format!("sysctl -w net.core.rmem_max={}", WANTED_RECEIVE_BUFFER / 2),
        );
    }
}

fn may_load(facts: &Facts) -> bool {
    let has = |capability| facts.capabilities.contains(capability);
    has(CapabilitySet::BPF | CapabilitySet::PERFMON) || has(CapabilitySet::SYS_ADMIN)
}

pub(super) fn groups(config: &Config, facts: &Facts, all: &mut Findings) {
    if !facts.kernel.has_nflog {
        all.error(
            "no-nflog",
            "this kernel has no NFLOG, and no module for it".into(),
            "use one with CONFIG_NETFILTER_NETLINK_LOG".into(),
        );
    }
    for (group, owner) in facts.bound_groups.iter().flatten() {
        if config.groups.iter().all(|other| other.group.0 != *group) {
            continue;
        }
        match owner {
            Some(owner) if owner.starts_with("pid 1 (") => all.note(
                "kept-for-acctd",
                format!("the socket of group {group} is kept by the service manager"),
                "nothing: the next acctd of that unit takes it over".into(),
            ),
            Some(owner) if owner.ends_with(" (acctd)") => all.note(
                "already-running",
                format!("{owner} already reads group {group}"),
                "nothing, if that is the acctd that you want to check".into(),
            ),
            owner => {
                let shown = owner
                    .as_deref()
                    .unwrap_or("a process that is not visible from here");
                all.error(
                    "group-taken",
                    format!("group {group} is taken by {shown}"),
                    "stop it, or choose another group for acctd and its rules".into(),
                );
            }
        }
    }
}

pub(super) fn crosscheck(config: &Config, facts: &Facts, all: &mut Findings) {
    let Some(crosscheck) = &config.crosscheck else {
        return;
    };
    if let Some(error) = &facts.crosscheck_error
        && may_load(facts)
    {
        // The text ends with what to do.
        let (what, cure) = error
            .rsplit_once("; ")
            .unwrap_or((error, "leave --crosscheck out"));
        all.error(
            "crosscheck-not-loaded",
            format!("the cross-check cannot start: {what}"),
            cure.to_owned(),
        );
    }
    let (major, minor) = facts.kernel.version;
    if crosscheck.attach == AttachMode::Tcx && (major, minor) < (6, 6) {
        all.error(
            "no-tcx",
            format!(
                "--crosscheck-attach tcx requires Linux 6.6, and this is Linux {major}.{minor}"
            ),
            "leave --crosscheck-attach out".into(),
        );
    }
    if !facts.kernel.has_btf {
        all.note(
            "no-btf",
            "this kernel has no BTF (/sys/kernel/btf/vmlinux)".into(),
            "nothing, unless a program of your own needs it".into(),
        );
    }
    if facts.kernel.has_bpf_jit == Some(false) {
        all.warning(
            "bpf-jit-off",
            "this kernel interprets eBPF programs: the cross-check costs many times as much".into(),
            "sysctl -w net.core.bpf_jit_enable=1".into(),
        );
    }
    let has_ip6 = config
        .groups
        .iter()
        .any(|group| group.prefix_length.family() == Family::Ip6);
    for watched in &crosscheck.watched {
        let name = &watched.interface;
        let Some(interface) = facts.interface(name) else {
            all.warning(
                "crosscheck-no-interface",
                format!("there is no interface {name} to cross-check: until it exists, differences are 'not checked'"),
                "nothing, if it is created later: acctd attaches then; else name another one, 'ip -br link' lists all".into(),
            );
            continue;
        };
        if !interface.is_up {
            all.warning(
                "crosscheck-interface-down",
                format!("cross-checked interface {name} is down"),
                format!("ip link set {name} up"),
            );
        }
        if let Some(bridge) = interface.master("bridge") {
            all.warning(
                "crosscheck-port-of-bridge",
                format!("{name} is a port of {bridge}: bridged packets pass no IP rule, and are reported as 'uncovered'"),
                format!("cross-check {bridge} instead"),
            );
        }
        if interface.is_ip6_disabled && has_ip6 {
            all.warning(
                "crosscheck-ip6-disabled",
                format!("IPv6 is disabled on {name}: its IPv6 packets pass no rule, and are reported as 'uncovered'"),
                format!("sysctl -w net.ipv6.conf.{name}.disable_ipv6=0"),
            );
        }
    }
}

pub(super) fn directory(config: &Config, found: &Directory, all: &mut Findings) {
    let wanted = config.log_directory.display();
    let existing = found.existing.display();
    if found.is_a_file {
        all.error(
            "directory-is-a-file",
            format!("log directory {wanted}: {existing} is not a directory"),
            "move it, or choose another directory with --log-directory".into(),
        );
        return;
    }
    if found.is_read_only {
        all.error(
            "directory-read-only",
            format!("log directory {wanted}: {existing} is mounted read-only"),
            format!("mount -o remount,rw the file system of {existing}"),
        );
    } else if !found.is_writable {
        all.error(
            "directory-not-writable",
            format!("log directory {wanted}: this user cannot write to {existing}"),
            "change its owner or mode, or choose another with --log-directory".into(),
        );
    } else if let Some(error) = &found.jsonl_error {
        all.error(
            "jsonl-not-writable",
            format!(
                "cannot append to {wanted}/{}: {error}",
                crate::model::columns::JOURNAL
            ),
            "change its owner or mode, or move it away".into(),
        );
    }
    if found.free_bytes == 0 || found.free_files == Some(0) {
        all.error(
            "disk-full",
            format!("log directory {wanted}: its disk is full"),
            "free some space; until then, intervals wait in memory".into(),
        );
    } else if found.free_bytes < LITTLE_SPACE || found.free_files.is_some_and(|it| it < FEW_FILES) {
        all.warning(
            "disk-nearly-full",
            format!(
                "log directory {wanted}: {} and {} files are free",
                crate::model::human::bytes(found.free_bytes),
                found
                    .free_files
                    .map_or("any number of".into(), |it| it.to_string())
            ),
            "free some space".into(),
        );
    }
    if found.is_in_memory {
        all.note(
            "directory-in-memory",
            format!("log directory {wanted} is in memory: a reboot loses its files"),
            "choose a directory on a disk, if you need the files".into(),
        );
    }
}

pub(super) fn machine(facts: &Facts, all: &mut Findings) {
    if facts.kernel.tracks_connections {
        all.note(
            "fragments-are-put-together",
            "connection tracking is active: it reassembles fragments, so they are logged as one packet".into(),
            "nothing: the cross-check takes account of them".into(),
        );
    }
    if facts.is_clock_synchronised == Some(false) {
        all.warning(
            "clock-not-synchronised",
            "this machine's clock is not synchronised: intervals begin and end by this clock"
                .into(),
            "timedatectl set-ntp true, or install chrony".into(),
        );
    }
    if let Some(trouble) = &facts.time_zone {
        let severity = if trouble.is_usage() {
            Severity::Error
        } else {
            Severity::Warning
        };
        // The text ends with what to do.
        let text = trouble.to_string();
        let (what, cure) = text
            .split_once("; ")
            .or(text.split_once(": "))
            .unwrap_or((&text, ""));
        all.add(severity, "time-zone", what.to_owned(), cure.to_owned());
    }
}
