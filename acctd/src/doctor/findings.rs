//! What the facts mean for acctd with these flags: findings, each with its cure. Pure.

use rustix::thread::CapabilitySet;
use serde::Serialize;

use super::facts::{Directory, Facts};
use super::interfaces;
use super::ruleset::{Hook, LogRule, Ruleset, interface_of};
use crate::config::{Config, GroupConfig};
use crate::crosscheck::AttachMode;
use crate::nflog_socket::{WANTED_RECEIVE_BUFFER, copy_range};
use crate::prefix::{Family, Side};
use crate::rules::plan::match_alike;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not work.
    Error,
    /// Something is not counted, or not as one thinks.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its name, the same in all versions.
    pub id: &'static str,
    /// What is wrong and where.
    pub what: String,
    /// What to do: a command, if there is one.
    pub cure: String,
}

/// Fewer bytes than this are soon gone.
const LITTLE_SPACE: u64 = 100_000_000;
const FEW_FILES: u64 = 1_000;
/// Batches of fewer packets wake acctd too often to be cheap.
const SMALL_THRESHOLD: u32 = 10;

/// All that is wrong, worst first.
#[must_use]
pub fn findings(config: &Config, facts: &Facts) -> Vec<Finding> {
    let mut all = Findings(Vec::new());
    privileges(config, facts, &mut all);
    groups(config, facts, &mut all);
    match &facts.ruleset {
        Ok(ruleset) => rules(config, facts, ruleset, &mut all),
        Err(error) => all.warning(
            "rules-unreadable",
            format!("the rules cannot be read: {error}"),
            "run acctd doctor as root".into(),
        ),
    }
    crosscheck(config, facts, &mut all);
    directory(config, &facts.directory, &mut all);
    machine(facts, &mut all);
    all.0.extend(interfaces::findings(config, &facts.links));
    // Those that were found first stay first.
    all.0.sort_by_key(|finding| finding.severity);
    all.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, severity: Severity, id: &'static str, what: String, cure: String) {
        self.0.push(Finding {
            severity,
            id,
            what,
            cure,
        });
    }

    fn error(&mut self, id: &'static str, what: String, cure: String) {
        self.add(Severity::Error, id, what, cure);
    }

    fn warning(&mut self, id: &'static str, what: String, cure: String) {
        self.add(Severity::Warning, id, what, cure);
    }

    fn note(&mut self, id: &'static str, what: String, cure: String) {
        self.add(Severity::Note, id, what, cure);
    }
}

fn privileges(config: &Config, facts: &Facts, all: &mut Findings) {
    let has = |capability| facts.capabilities.contains(capability);
    if !has(CapabilitySet::NET_ADMIN) {
        all.error(
            "no-cap-net-admin",
            "CAP_NET_ADMIN is missing: no group can be read".into(),
            "run acctd as root, or grant it: AmbientCapabilities=CAP_NET_ADMIN in its unit".into(),
        );
    }
    let may_load =
        has(CapabilitySet::BPF | CapabilitySet::PERFMON) || has(CapabilitySet::SYS_ADMIN);
    if config.crosscheck.is_some() && !may_load {
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

fn groups(config: &Config, facts: &Facts, all: &mut Findings) {
    if !facts.kernel.has_nflog {
        all.error(
            "no-nflog",
            "this kernel has no NFLOG, and no module for it".into(),
            "use one with CONFIG_NETFILTER_NETLINK_LOG".into(),
        );
    }
    for (group, owner) in facts.taken.iter().flatten() {
        if config.groups.iter().all(|other| other.group.0 != *group) {
            continue;
        }
        match owner {
            Some(owner) if owner.starts_with("pid 1 (") => all.note(
                "kept-for-acctd",
                format!("the socket of group {group} is kept by the service manager"),
                "nothing: the next acctd of that unit goes on with it".into(),
            ),
            Some(owner) if owner.ends_with(" (acctd)") => all.note(
                "already-running",
                format!("group {group} is read by {owner} already"),
                "nothing: it is that acctd which this is about".into(),
            ),
            owner => {
                let shown = owner
                    .as_deref()
                    .unwrap_or("a process that cannot be seen from here");
                all.error(
                    "group-taken",
                    format!("group {group} is taken by {shown}"),
                    "stop it, or choose another group for acctd and its rules".into(),
                );
            }
        }
    }
}

fn rules(config: &Config, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    for group in &config.groups {
        rules_of_group(group, facts, ruleset, all);
    }
    for (side, family) in [Side::Source, Side::Dest]
        .into_iter()
        .flat_map(|side| [(side, Family::Ip4), (side, Family::Ip6)])
    {
        let is_of =
            |group: &&GroupConfig| group.side == side && group.prefix_length.family() == family;
        let groups: Vec<u16> = config
            .groups
            .iter()
            .filter(is_of)
            .map(|it| it.group.0)
            .collect();
        doubles(side, family, &groups, ruleset, all);
    }
    for name in &ruleset.flowtables {
        all.warning(
            "flowtable",
            format!("flowtable {name}: packets of its flows pass no rule behind the first few"),
            "take the rule with 'flow add' out, or log on the netdev egress hook: acctd rules --egress-hook".into(),
        );
    }
    for interface in facts.interfaces.iter().filter(|it| it.offloads_flows) {
        let name = &interface.name;
        all.warning(
            "hardware-offload",
            format!("{name} may forward flows in hardware, past all rules (hw-tc-offload)"),
            format!("ethtool -K {name} hw-tc-offload off"),
        );
    }
    let has_ip6 = config
        .groups
        .iter()
        .any(|group| group.prefix_length.family() == Family::Ip6);
    if facts.has_global_ip6 && !has_ip6 {
        all.warning(
            "ip6-not-counted",
            "this machine has global IPv6 addresses, and no group is read for IPv6".into(),
            "give acctd --ip6-src-group and --ip6-dst-group, and rules for them: acctd rules"
                .into(),
        );
    }
    let ours = |group: &u16| config.groups.iter().any(|other| other.group.0 == *group);
    let mut unread: Vec<u16> = Vec::new();
    for rule in &ruleset.log_rules {
        let is_read = facts
            .taken
            .iter()
            .flatten()
            .any(|(group, _)| *group == rule.group);
        if facts.taken.is_some() && !is_read && !ours(&rule.group) && !unread.contains(&rule.group)
        {
            unread.push(rule.group);
            all.warning(
                "group-unread",
                format!(
                    "{} logs to group {}, which nobody reads",
                    rule.place, rule.group
                ),
                format!(
                    "give acctd a flag for group {}, or take the rule away",
                    rule.group
                ),
            );
        }
    }
}

fn rules_of_group(config: &GroupConfig, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    let group = config.group.0;
    let family = config.prefix_length.family();
    let version = family.version();
    let rules: Vec<&LogRule> = ruleset
        .log_rules
        .iter()
        .filter(|rule| rule.group == group)
        .collect();
    if rules.is_empty() {
        no_rule(group, facts, ruleset, all);
        return;
    }
    if rules.iter().all(|rule| !rule.families.contains(&version)) {
        all.error(
            "wrong-family",
            format!("group {group} is read for IPv{version}, and its rules match no such packet"),
            format!("match 'meta nfproto ipv{version}' in {}", rules[0].place),
        );
        return;
    }
    if rules.iter().all(|rule| rule.is_never_reached) {
        let obstacle = rules[0].behind.as_deref().unwrap_or_default();
        all.error(
            "never-reached",
            format!(
                "no packet comes to {}, which logs to group {group}: {obstacle} is before it",
                rules[0].place
            ),
            "put the rule in front: acctd rules --apply makes a chain of its own".into(),
        );
        return;
    }
    for rule in rules {
        wrong_place(config, facts, ruleset, rule, all);
        badly_set(config, rule, all);
    }
}

fn no_rule(group: u16, facts: &Facts, ruleset: &Ruleset, all: &mut Findings) {
    let there = ruleset
        .unreachable
        .iter()
        .find(|(other, _)| *other == group);
    match there {
        Some((_, place)) => all.error(
            "chain-not-hooked",
            format!("no packet comes to {place}, which logs to group {group}"),
            "give the chain a hook, or jump to it from one that has".into(),
        ),
        None if facts.lacks_nft => all.error(
            "no-rule",
            format!("no rule logs to group {group}, as far as can be seen without nft"),
            "apt-get install nftables; acctd rules --apply".into(),
        ),
        None => all.error(
            "no-rule",
            format!("no rule of this network namespace logs to group {group}"),
            "acctd rules --apply".into(),
        ),
    }
}

/// What a rule copies, when it hands it over, and what it lets pass.
fn badly_set(config: &GroupConfig, rule: &LogRule, all: &mut Findings) {
    let (group, family) = (config.group, config.prefix_length.family());
    let version = family.version();
    let place = &rule.place;
    let link_layer = match rule.hook {
        Hook::Ingress | Hook::Egress => 14,
        _ => 0,
    };
    let needed = family.header_length() + link_layer;
    match rule.snaplen {
        Some(snaplen) if (snaplen as usize) < needed => all.error(
            "snaplen-too-small",
            format!(
                "{place} copies {snaplen} bytes to group {group}, less than an IPv{version} header: no packet can be counted"
            ),
            format!("'snaplen {needed}' (--nflog-size {needed}) in the rule"),
        ),
        _ => {}
    }
    if rule.is_nat {
        all.error(
            "nat-chain",
            format!("{place} is of type nat: only the first packet of each connection comes to group {group}"),
            "log in a chain of type filter: acctd rules --apply".into(),
        );
    }
    if rule.is_limited {
        all.error(
            "limited",
            format!("{place} has a limit: packets beyond it are not logged to group {group}"),
            "take the limit out of the rule".into(),
        );
    }
    if rule.families.len() > 1 {
        let other = if version == 4 { 6 } else { 4 };
        all.warning(
            "other-family",
            format!("{place} logs IPv{other} to group {group} too, which is read for IPv{version}: not counted"),
            format!("match 'meta nfproto ipv{version}' in the rule, and give IPv{other} a group of its own"),
        );
    }
    if let Some(obstacle) = &rule.behind {
        all.warning(
            "behind-verdict",
            format!(
                "{place} logs to group {group} behind {obstacle}: some packets do not come so far"
            ),
            "put the rule in front: acctd rules --apply makes a chain of its own".into(),
        );
    }
    if rule
        .threshold
        .is_some_and(|threshold| threshold < SMALL_THRESHOLD)
    {
        all.warning(
            "small-threshold",
            format!(
                "{place} hands {} packets at a time to group {group}: much CPU time for each",
                rule.threshold.unwrap_or(1)
            ),
            "'queue-threshold 50' (--nflog-threshold 50) in the rule".into(),
        );
    }
    if rule.snaplen.is_none() {
        let range = copy_range(family);
        let what = if rule.has_range {
            format!(
                "{place} has --nflog-range, which does nothing: {range} bytes are copied of each packet of group {group}"
            )
        } else {
            format!(
                "{place} has no snaplen: {range} bytes are copied of each packet of group {group}, more than is read"
            )
        };
        let cure = format!("'snaplen {needed}' (--nflog-size {needed}) in the rule");
        all.warning("no-snaplen", what, cure);
    }
}

/// A hook on which the address is not the one to account, or interfaces that it has no packets of.
fn wrong_place(
    config: &GroupConfig,
    facts: &Facts,
    ruleset: &Ruleset,
    rule: &LogRule,
    all: &mut Findings,
) {
    /// `NF_IP_PRI_NAT_DST` and `NF_IP_PRI_NAT_SRC` of `linux/netfilter_ipv4.h`.
    const DEST_NAT: i64 = -100;
    const SOURCE_NAT: i64 = 100;
    let (group, place) = (config.group, &rule.place);
    let hook = rule.hook.name();
    match (config.side, rule.hook) {
        (Side::Source, Hook::Output) => all.warning(
            "wrong-hook",
            format!("group {group} accounts the source, and {place} logs what this host sends: all is in the rows of its own addresses"),
            "read the group with --ip4-dst-group or --ip6-dst-group, or log on input".into(),
        ),
        (Side::Dest, Hook::Input) => all.warning(
            "wrong-hook",
            format!("group {group} accounts the destination, and {place} logs what is for this host: all is in the rows of its own addresses"),
            "read the group with --ip4-src-group or --ip6-src-group, or log on output".into(),
        ),
        (Side::Source, Hook::Postrouting) if ruleset.has_source_nat && rule.priority >= SOURCE_NAT => {
            all.warning(
                "address-after-nat",
                format!("group {group} accounts the source, and {place} logs on {hook} behind NAT: all is in the row of the router's address"),
                "log on prerouting or forward: acctd rules router --lan …".into(),
            );
        }
        (Side::Source, Hook::Egress) if ruleset.has_source_nat => all.warning(
            "address-after-nat",
            format!("group {group} accounts the source, and {place} logs on {hook} behind NAT: all is in the row of the router's address"),
            "log on prerouting or forward: acctd rules router --lan …".into(),
        ),
        (Side::Dest, Hook::Prerouting | Hook::Ingress)
            if (ruleset.has_source_nat || ruleset.has_dest_nat) && rule.priority < DEST_NAT =>
        {
            all.warning(
                "address-before-nat",
                format!("group {group} accounts the destination, and {place} logs on {hook} before NAT is undone: all is in the row of the router's address"),
                "log on forward or on the egress hook: acctd rules router --lan …".into(),
            );
        }
        _ => {}
    }
    for condition in &rule.conditions {
        let Some((_, name)) = interface_of(condition) else {
            continue;
        };
        if name.ends_with('*') {
            continue;
        }
        match facts.interface(name) {
            None => all.warning(
                "no-such-interface",
                format!(
                    "{place} logs to group {group} only for {name}, and there is no such interface"
                ),
                "ip -br link lists those that there are; acctd rules router --lan …".into(),
            ),
            Some(interface) => {
                if let Some(bridge) = &interface.bridge
                    && !rule.is_bridge
                    && !matches!(rule.hook, Hook::Ingress | Hook::Egress)
                {
                    all.warning(
                        "port-of-bridge",
                        format!("{place} logs to group {group} only for {name}, a port of {bridge}: IP sees {bridge} alone"),
                        format!("name {bridge} in the rule, or log what is bridged: acctd rules bridge --lan {name}"),
                    );
                }
            }
        }
    }
}

/// Rules of one direction that one packet meets both of.
fn doubles(side: Side, family: Family, groups: &[u16], ruleset: &Ruleset, all: &mut Findings) {
    let version = family.version();
    let rules: Vec<&LogRule> = ruleset
        .log_rules
        .iter()
        .filter(|rule| groups.contains(&rule.group) && rule.families.contains(&version))
        .collect();
    for (at, one) in rules.iter().enumerate() {
        let Some(other) = rules[..at].iter().find(|other| is_met_twice(one, other)) else {
            continue;
        };
        let (first, second) = (other.hook.name(), one.hook.name());
        let what = if one.place == other.place {
            format!("in {} twice", one.place)
        } else {
            format!(
                "on {first} in {} and on {second} in {}",
                other.place, one.place
            )
        };
        all.error(
            "logged-twice",
            format!(
                "IPv{version} packets are logged to group {} {what}: each is counted twice by its {}",
                one.group,
                side.name().to_lowercase()
            ),
            "take one of the rules away".into(),
        );
        // One of each kind says it.
        return;
    }
}

/// Only where it is certain.
fn is_met_twice(one: &LogRule, other: &LogRule) -> bool {
    let is_sound = |rule: &LogRule| !rule.is_never_reached && !rule.is_limited;
    // Frames of a bridge pass its hooks and not those of IP, unless br_netfilter has them do so.
    is_sound(one)
        && is_sound(other)
        && one.is_bridge == other.is_bridge
        && one.hook.shares_a_way_with(other.hook)
        && (match_the_same(one, other) || are_of_interfaces_that_go_together(one, other))
}

/// What one matches, the other matches too.
fn match_the_same(one: &LogRule, other: &LogRule) -> bool {
    one.conditions.is_subset(&other.conditions) || other.conditions.is_subset(&one.conditions)
}

/// Both match interfaces alone, and a packet may come and go by those of both.
fn are_of_interfaces_that_go_together(one: &LogRule, other: &LogRule) -> bool {
    let conditions = one.conditions.iter().chain(&other.conditions);
    if conditions
        .into_iter()
        .any(|condition| interface_of(condition).is_none())
    {
        return false;
    }
    let others: Vec<_> = other
        .conditions
        .iter()
        .filter_map(|it| interface_of(it))
        .collect();
    let own = one.conditions.iter().filter_map(|it| interface_of(it));
    own.into_iter().all(|(key, name)| {
        others
            .iter()
            .all(|(other_key, other_name)| key != *other_key || match_alike(name, other_name))
    })
}

fn crosscheck(config: &Config, facts: &Facts, all: &mut Findings) {
    let Some(crosscheck) = &config.crosscheck else {
        return;
    };
    let (major, minor) = facts.kernel.version;
    if crosscheck.attach == AttachMode::Tcx && (major, minor) < (6, 6) {
        all.error(
            "no-tcx",
            format!("this is Linux {major}.{minor}, and TCX came with 6.6"),
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
    if facts.kernel.compiles_bpf == Some(false) {
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
            all.error(
                "crosscheck-no-interface",
                format!("there is no interface {name} to cross-check"),
                "ip -br link lists those that there are".into(),
            );
            continue;
        };
        if !interface.is_up {
            all.warning(
                "crosscheck-interface-down",
                format!("interface {name}, which is to be cross-checked, is down"),
                format!("ip link set {name} up"),
            );
        }
        if let Some(bridge) = &interface.bridge {
            all.warning(
                "crosscheck-port-of-bridge",
                format!("{name} is a port of {bridge}: what is bridged on passes no rule of IP, and is called uncovered"),
                format!("cross-check {bridge} instead"),
            );
        }
        if interface.is_ip6_disabled && has_ip6 {
            all.warning(
                "crosscheck-ip6-disabled",
                format!("IPv6 is switched off on {name}: packets of it pass no rule, and are called uncovered"),
                format!("sysctl -w net.ipv6.conf.{name}.disable_ipv6=0"),
            );
        }
    }
}

fn directory(config: &Config, found: &Directory, all: &mut Findings) {
    let wanted = config.log_directory.display();
    let existing = found.existing.display();
    if found.is_a_file {
        all.error(
            "directory-is-a-file",
            format!("log directory {wanted}: {existing} is no directory"),
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
                crate::summary::FILE_NAME
            ),
            "change its owner or mode, or move it away".into(),
        );
    }
    if found.free_bytes == 0 || found.free_files == Some(0) {
        all.error(
            "disk-full",
            format!("log directory {wanted}: its disk is full"),
            "make room; intervals wait in memory until then".into(),
        );
    } else if found.free_bytes < LITTLE_SPACE || found.free_files.is_some_and(|it| it < FEW_FILES) {
        all.warning(
            "disk-nearly-full",
            format!(
                "log directory {wanted}: {} and {} files are free",
                crate::human::bytes(found.free_bytes),
                found
                    .free_files
                    .map_or("any number of".into(), |it| it.to_string())
            ),
            "make room".into(),
        );
    }
    if found.is_in_memory {
        all.note(
            "directory-in-memory",
            format!("log directory {wanted} is in memory: its files are gone with the next boot"),
            "choose one on a disk, if they are to last".into(),
        );
    }
}

fn machine(facts: &Facts, all: &mut Findings) {
    if facts.kernel.tracks_connections {
        all.note(
            "fragments-are-put-together",
            "connection tracking is at work: the fragments of a packet are logged as one".into(),
            "nothing: the cross-check counts them, and says so".into(),
        );
    }
    if facts.is_clock_synchronised == Some(false) {
        all.warning(
            "clock-not-synchronised",
            "nobody keeps this machine's clock: intervals begin and end when it says so".into(),
            "timedatectl set-ntp true, or install chrony".into(),
        );
    }
    if let Some(trouble) = &facts.time_zone {
        let severity = if trouble.is_usage() {
            Severity::Error
        } else {
            Severity::Warning
        };
        // Which says what to do.
        let text = trouble.to_string();
        let (what, cure) = text
            .split_once("; ")
            .or(text.split_once(": "))
            .unwrap_or((&text, ""));
        all.add(severity, "time-zone", what.to_owned(), cure.to_owned());
    }
}
