//! Which packets are logged on which hook, for nft and iptables alike. Pure.
//!
//! Each scenario counts a packet once: in each direction, no packet passes two of the hooks. If possible, the hook is
//! one where packets have a time stamp (prerouting, input, forward, and egress of netdev): on output and postrouting,
//! `nfulnl_log_packet` sends none.

use std::collections::BTreeSet;

use thiserror::Error;

use crate::cli::commands::{Format, RulesArgs, Scenario};
use crate::cli::flags::{GroupFlags, GroupList};
use crate::model::group::NflogGroup;
use crate::model::prefix::{Family, Side};
use crate::rules::devices::patterns_overlap;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    /// Of this interface, in nft's family netdev.
    Egress(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) hook: Hook,
    pub(crate) family: Family,
    /// The accounted address.
    pub(crate) side: Side,
    /// Input interface for the source side, output interface for the destination side.
    pub(crate) interface: Option<String>,
    /// Several groups share the packets by CPU.
    pub(crate) groups: Vec<NflogGroup>,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The rules are for a bridge, not for IP.
    pub(crate) is_bridge: bool,
    /// In the order of their hooks.
    pub(crate) rules: Vec<Rule>,
    /// After `--fan-out`.
    pub(crate) groups: GroupFlags,
    /// Bytes to copy; `None` for the size of the header.
    pub(crate) snaplen: Option<u32>,
    /// Packets per batch.
    pub(crate) threshold: u32,
    /// Possible CPUs, including those that are offline.
    pub(crate) n_cpus: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum PlanError {
    #[error("name the interfaces on the side of the accounted addresses: --lan eth1,eth2")]
    NoLan,
    #[error("--lan is for the scenarios router and bridge: acctd rules router --lan …")]
    LanOfHost,
    #[error("--forwarded is for the scenarios router and bridge; a host forwards nothing")]
    ForwardedOfHost,
    /// Flag, name, and what is wrong with it.
    #[error("--{0} {1:?}: {2}")]
    Interface(&'static str, String, &'static str),
    #[error("--fan-out {0}: the highest group is 65535")]
    NoGroupLeft(u16),
    #[error("--fan-out {0}, but --{1} has a list of {2}: give one group, or leave --fan-out out")]
    ListAndFanOut(u16, &'static str, usize),
    /// The group, both flags, and a hint. A group has one socket, which acctd reads for one direction.
    #[error("group {0} is used for --{1} and for --{2}: each direction needs its own groups{3}")]
    GroupTwice(NflogGroup, &'static str, &'static str, &'static str),
    #[error(
        "--fan-out {0}: rules spread packets by CPU, and this machine has {1}: at most --fan-out {1}"
    )]
    FewerCpus(u16, usize),
    #[error("--fan-out: rules spread packets by CPU, and this machine has one: omit --fan-out")]
    OneCpu,
    #[error("{0} needs nft: omit --format iptables")]
    NeedsNft(&'static str),
}

/// The groups in the manual of go-nflog-acctd.
const GO_NFLOG_ACCTD_GROUPS: [u16; 4] = [4, 5, 6, 7];

impl Plan {
    pub(crate) fn new(args: &RulesArgs) -> Result<Self, PlanError> {
        Self::for_cpus(args, n_possible_cpus())
    }

    pub(crate) fn for_cpus(args: &RulesArgs, n_cpus: usize) -> Result<Self, PlanError> {
        let lan = interfaces("lan", &args.lan, true)?;
        let egress = interfaces("egress-hook", &args.egress_hook, false)?;
        match args.scenario {
            Scenario::Host if !lan.is_empty() => return Err(PlanError::LanOfHost),
            Scenario::Host if args.forwarded => return Err(PlanError::ForwardedOfHost),
            Scenario::Router | Scenario::Bridge if lan.is_empty() => return Err(PlanError::NoLan),
            _ => {}
        }
        let is_bridge = args.scenario == Scenario::Bridge;
        if args.format == Format::Iptables {
            if is_bridge {
                return Err(PlanError::NeedsNft("a bridge"));
            }
            if !egress.is_empty() {
                return Err(PlanError::NeedsNft("--egress-hook"));
            }
        }
        match args.fan_out {
            Some(_) if n_cpus == 1 => return Err(PlanError::OneCpu),
            Some(n) if usize::from(n) > n_cpus => return Err(PlanError::FewerCpus(n, n_cpus)),
            _ => {}
        }
        let groups = fan_out(&args.groups, args.fan_out)?;
        let mut rules = Vec::new();
        for (_, family, side, list) in groups.directions() {
            let rule = |hook, interface| Rule {
                hook,
                family,
                side,
                interface,
                groups: list.0.clone(),
            };
            let each = |names: &[String], hook: fn(&str) -> (Hook, Option<&str>)| {
                let places = names.iter().map(|name| hook(name));
                let rules = places.map(|(hook, name)| rule(hook, name.map(str::to_owned)));
                rules.collect::<Vec<_>>()
            };
            match (side, args.scenario, args.forwarded) {
                _ if list.0.is_empty() => {}
                (Side::Source, Scenario::Host, _) => rules.push(rule(Hook::Input, None)),
                (Side::Source, _, false) => {
                    rules.extend(each(&lan, |name| (Hook::Prerouting, Some(name))));
                }
                (Side::Source, _, true) => {
                    rules.extend(each(&lan, |name| (Hook::Forward, Some(name))));
                }
                (Side::Dest, ..) if !egress.is_empty() => {
                    rules.extend(each(&egress, |name| (Hook::Egress(name.to_owned()), None)));
                }
                (Side::Dest, Scenario::Host, _) => rules.push(rule(Hook::Output, None)),
                (Side::Dest, _, is_forwarded_only) => {
                    rules.extend(each(&lan, |name| (Hook::Forward, Some(name))));
                    if !is_forwarded_only {
                        rules.extend(each(&lan, |name| (Hook::Output, Some(name))));
                    }
                }
            }
        }
        rules.sort_by_key(|rule| rule.hook.order());
        Ok(Self {
            is_bridge,
            rules,
            groups,
            snaplen: args.snaplen,
            threshold: args.threshold,
            n_cpus,
        })
    }

    /// Names and patterns.
    pub(crate) fn interfaces(&self) -> BTreeSet<&str> {
        let names = self.rules.iter().filter_map(Rule::interface);
        names.collect()
    }

    /// Groups to which no CPU logs, because there are more groups than CPUs.
    pub(crate) fn without_cpu(&self) -> Vec<NflogGroup> {
        let lists = self.groups.directions().map(|(.., list)| list);
        let left = lists
            .iter()
            .flat_map(|list| list.0.iter().skip(self.n_cpus));
        left.copied().collect()
    }

    pub(crate) fn snaplen(&self, rule: &Rule) -> u32 {
        /// On the egress hook, a packet begins with its Ethernet header, which may have two VLAN tags.
        const LINK_LAYER: u32 = 22;
        let header = u32::try_from(rule.family.header_length()).unwrap_or(40);
        let front = match rule.hook {
            Hook::Egress(_) => LINK_LAYER,
            _ => 0,
        };
        self.snaplen.unwrap_or(header + front)
    }

    /// Each CPU with the group that it logs to.
    pub(crate) fn by_cpu(
        &self,
        groups: &[NflogGroup],
    ) -> impl Iterator<Item = (usize, NflogGroup)> {
        (0..self.n_cpus).map(move |cpu| (cpu, groups[cpu % groups.len()]))
    }
}

impl Hook {
    /// In the order in which a packet passes them.
    fn order(&self) -> u8 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Egress(_) => 4,
        }
    }

    /// nft's name; iptables uses the same in capitals.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Egress(_) => "egress",
        }
    }
}

impl Rule {
    fn interface(&self) -> Option<&str> {
        match &self.hook {
            Hook::Egress(interface) => Some(interface),
            _ => self.interface.as_deref(),
        }
    }

    /// For the rule's comment.
    pub(crate) fn description(&self) -> String {
        let version = self.family.version();
        let (way, address) = match self.side {
            Side::Source => ("from", "source"),
            Side::Dest => ("to", "destination"),
        };
        let passing = self.interface().map(|name| format!(" {way} {name}"));
        let passing = passing.unwrap_or_default();
        format!("acctd: IPv{version}{passing}, by {address}")
    }
}

/// Includes CPUs that are offline: a CPU without a rule would log nothing.
fn n_possible_cpus() -> usize {
    // `0-3`; Documentation/admin-guide/cputopology.rst.
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
    let last = possible.trim().rsplit(['-', ',']).next();
    let last: Option<usize> = last.and_then(|last| last.parse().ok());
    let online = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    last.map_or_else(online, |last| last + 1)
}

/// Checks that the names are valid, and that no two match the same interface.
fn interfaces(
    flag: &'static str,
    names: &[String],
    may_match: bool,
) -> Result<Vec<String>, PlanError> {
    for (at, name) in names.iter().enumerate() {
        let wrong = |why| Err(PlanError::Interface(flag, name.clone(), why));
        let stem = match name.strip_suffix('*') {
            Some(_) if !may_match => return wrong("an egress hook belongs to one interface: no *"),
            Some(stem) => stem,
            None => name,
        };
        // IFNAMSIZ of linux/if.h, and dev_valid_name, for which 0xa0 is a space.
        let is_space = |byte: u8| matches!(byte, b' ' | 0x09..=0x0d | 0xa0);
        let is_invalid = |byte: u8| is_space(byte) || matches!(byte, b'/' | b':' | 0);
        if matches!(stem, "" | "." | "..") || stem.len() >= 16 || stem.bytes().any(is_invalid) {
            return wrong("is not a valid interface name");
        }
        if stem.contains(|letter: char| "\"*'\\;{}!".contains(letter) || letter.is_control()) {
            return wrong(
                "has a character that rules cannot contain; rename it: ip link set … name …",
            );
        }
        if stem.ends_with('+') {
            return wrong("is a pattern of iptables; acctd's patterns end in *, as in lan*");
        }
        if names[..at]
            .iter()
            .any(|other| patterns_overlap(other, name))
        {
            return wrong("overlaps with another one: packets would be counted twice");
        }
    }
    Ok(names.to_vec())
}

/// Applies `--fan-out` and the defaults, and checks that no two directions share a group.
fn fan_out(given: &GroupFlags, n_groups: Option<u16>) -> Result<GroupFlags, PlanError> {
    let mut groups = given.clone();
    if groups
        .directions()
        .iter()
        .all(|(.., list)| list.0.is_empty())
    {
        let step = n_groups.unwrap_or(1);
        let firsts = GO_NFLOG_ACCTD_GROUPS.map(|group| {
            let first = (group - GO_NFLOG_ACCTD_GROUPS[0]) * step + GO_NFLOG_ACCTD_GROUPS[0];
            GroupList(vec![NflogGroup(first)])
        });
        let [ip4_dst_group, ip4_src_group, ip6_dst_group, ip6_src_group] = firsts;
        groups = GroupFlags {
            ip4_src_group,
            ip4_dst_group,
            ip6_src_group,
            ip6_dst_group,
        };
    }
    if let Some(n) = n_groups {
        let flags = given.directions().map(|(flag, ..)| flag);
        for (flag, list) in flags.into_iter().zip(groups.lists_mut()) {
            match list.0[..] {
                [] => {}
                [first] => {
                    let last = first.0.checked_add(n - 1);
                    let last = last.ok_or(PlanError::NoGroupLeft(n))?;
                    list.0 = (first.0..=last).map(NflogGroup).collect();
                }
                _ => return Err(PlanError::ListAndFanOut(n, flag, list.0.len())),
            }
        }
    }
    let directions = groups.directions();
    for (at, (flag, .., list)) in directions.iter().enumerate() {
        for (other, .., earlier) in &directions[..at] {
            if let Some(&group) = list.0.iter().find(|group| earlier.0.contains(group)) {
                let hint = match n_groups {
                    Some(_) => ", and --fan-out also uses the groups after each given one",
                    None => "",
                };
                return Err(PlanError::GroupTwice(group, other, flag, hint));
            }
        }
    }
    Ok(groups)
}

pub(super) fn list_text(list: &GroupList) -> String {
    let numbers: Vec<String> = list.0.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cli::commands::{Cli, Command};

    pub(in crate::rules) fn plan(args: &[&str]) -> Result<Plan, PlanError> {
        let args = ["acctd", "rules"].iter().chain(args).map(Into::into);
        match Cli::parse_args(args).unwrap().command {
            Some(Command::Rules(args)) => Plan::for_cpus(&args, 4),
            _ => unreachable!("the command is rules"),
        }
    }

    #[test]
    fn groups_without_a_cpu_are_named() {
        let args = ["-ip4-src-group=5,10-14", "-ip4-dst-group=4"];
        let left = plan(&args).unwrap().without_cpu();
        assert_eq!(left, [NflogGroup(13), NflogGroup(14)]);
    }

    #[test]
    fn names_may_have_characters_of_the_shell_and_others() {
        let plan = plan(&["router", "--lan=a$b(é,x&y#*,w`z"]).unwrap();
        assert_eq!(plan.interfaces().len(), 3);
    }

    fn numbers(list: &GroupList) -> Vec<u16> {
        list.0.iter().map(|group| group.0).collect()
    }

    #[test]
    fn the_default_groups_are_those_of_go_nflog_acctd() {
        let groups = plan(&[]).unwrap().groups;
        assert_eq!(numbers(&groups.ip4_dst_group), [4]);
        assert_eq!(numbers(&groups.ip4_src_group), [5]);
        assert_eq!(numbers(&groups.ip6_dst_group), [6]);
        assert_eq!(numbers(&groups.ip6_src_group), [7]);
        let groups = plan(&["--fan-out=2"]).unwrap().groups;
        assert_eq!(numbers(&groups.ip4_dst_group), [4, 5]);
        assert_eq!(numbers(&groups.ip6_src_group), [10, 11]);
    }

    #[test]
    fn directions_without_a_group_have_no_rule() {
        let plan = plan(&["router", "--lan=eth1", "-ip6-src-group=7"]).unwrap();
        assert_eq!(plan.rules.len(), 1);
        assert_eq!(plan.rules[0].hook, Hook::Prerouting);
        assert_eq!(
            plan.rules[0].description(),
            "acctd: IPv6 from eth1, by source"
        );
    }

    #[test]
    fn contradictory_flags_are_rejected() {
        for (args, part) in [
            (&["router"][..], "--lan eth1"),
            (&["host", "--lan=eth1"], "router and bridge"),
            (&["host", "--forwarded"], "forwards nothing"),
            (&["router", "--lan=ppp*,ppp0"], "counted twice"),
            (&["router", "--lan=eth1,eth1"], "counted twice"),
            (&["router", "--lan=a b"], "is not a valid"),
            (&["router", "--lan=*"], "is not a valid"),
            (&["router", "--lan=a:1"], "is not a valid"),
            (&["router", "--lan=a*b"], "has a character"),
            (&["router", "--lan=lan+"], "end in *"),
            (&["router", "--lan=lan+*"], "end in *"),
            (&["host", "--fan-out=64"], "at most --fan-out"),
            (&["host", "--egress-hook=eth*"], "no *"),
            (&["bridge", "--lan=p1", "--format=iptables"], "needs nft"),
            (&["--egress-hook=eth0", "--format=iptables"], "needs nft"),
            (&["-ip4-src-group=5", "-ip6-src-group=5"], "group 5 is used"),
            (
                &["-ip4-src-group=5", "-ip4-dst-group=6", "--fan-out=2"],
                "also uses the groups after",
            ),
            (&["-ip4-src-group=5,6", "--fan-out=2"], "list of 2"),
            (
                &["-ip4-src-group=65535", "--fan-out=2"],
                "highest group is 65535",
            ),
        ] {
            let error = plan(args).unwrap_err().to_string();
            assert!(error.contains(part), "{args:?}: {error}");
        }
    }
}
