//! The rules of iptables-legacy that log to groups. The kernel does not announce changes, so acctd asks for them. A
//! table is only returned whole, so it is read only if its size has changed, and once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::nflog::socket_option::{Iptables, iptables};

/// How many rules that packets reach log to each group.
pub(crate) type NRules = BTreeMap<u16, usize>;

/// The tables of the network namespace in which this was opened.
pub(crate) struct Legacy(Vec<FamilyTables>);

struct FamilyTables {
    layout: &'static Layout,
    /// The names of existing tables: a request for another one would create it.
    names: File,
    socket: OwnedFd,
    tables: BTreeMap<String, Table>,
}

struct Table {
    info: Info,
    n_rules: NRules,
}

/// The differences between `struct ipt_entry` and `ip6t_entry`.
struct Layout {
    family: AddressFamily,
    names: &'static str,
    target_offset: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        family: AddressFamily::INET,
        names: "/proc/thread-self/net/ip_tables_names",
        target_offset: 88,
    },
    Layout {
        family: AddressFamily::INET6,
        names: "/proc/thread-self/net/ip6_tables_names",
        target_offset: 140,
    },
];

impl Legacy {
    /// Opens the tables of this thread's network namespace, those that this process may read.
    pub(crate) fn open() -> Self {
        let opened = LAYOUTS.iter().filter_map(|layout| {
            let (kind, flags) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
            Some(FamilyTables {
                layout,
                names: File::open(layout.names).ok()?,
                socket: rustix::net::socket_with(layout.family, kind, flags, None).ok()?,
                tables: BTreeMap::new(),
            })
        });
        Self(opened.collect())
    }

    /// Reads the tables that have changed in size, or all if `reads_all`. If a table cannot be read, its old
    /// counts stay.
    pub(crate) fn refresh(&mut self, reads_all: bool) {
        for family in &mut self.0 {
            // The next refresh tries again.
            let _failed = family.refresh(reads_all);
        }
    }

    /// Over all tables.
    pub(crate) fn n_rules(&self) -> NRules {
        let mut n_rules = NRules::new();
        for table in self.0.iter().flat_map(|family| family.tables.values()) {
            for (group, n) in &table.n_rules {
                *n_rules.entry(*group).or_default() += n;
            }
        }
        n_rules
    }
}

impl FamilyTables {
    fn refresh(&mut self, reads_all: bool) -> io::Result<()> {
        let mut names = String::new();
        self.names.rewind()?;
        self.names.read_to_string(&mut names)?;
        self.tables
            .retain(|known, _| names.lines().any(|name| name == known));
        for name in names.lines() {
            let info = Info::of(&self.socket, name)?;
            let known = self.tables.get(name);
            if reads_all || known.is_none_or(|known| known.info != info) {
                let entries = iptables(&self.socket, Iptables::Entries(info.size()), name)?;
                let n_rules = n_rules(&entries, &info, self.layout);
                self.tables.insert(name.to_owned(), Table { info, n_rules });
            }
        }
        Ok(())
    }
}

/// `struct ipt_getinfo` after the name: a mask of the table's hooks; for each of the five hooks, where its chain
/// begins, then for each, where its policy is; the number of entries; their size.
#[derive(PartialEq, Eq)]
struct Info([u32; 13]);

impl Info {
    fn of(socket: &OwnedFd, name: &str) -> io::Result<Self> {
        let bytes = iptables(socket, Iptables::Info, name)?;
        let mut info = [0; 13];
        for (number, bytes) in info.iter_mut().zip(bytes.as_chunks().0) {
            *number = u32::from_ne_bytes(*bytes);
        }
        Ok(Self(info))
    }

    fn size(&self) -> u32 {
        self.0[12]
    }

    /// Where the chains of the table's hooks begin.
    fn begins(&self) -> impl Iterator<Item = usize> {
        let is_there = |hook: &usize| self.0[0] & (1 << hook) != 0;
        (0..5)
            .filter(is_there)
            .map(|hook| self.0[1 + hook] as usize)
    }

    /// Whether a policy is here, which ends its chain.
    fn is_policy(&self, at: usize) -> bool {
        self.0[6..11].iter().any(|policy| *policy as usize == at)
    }
}

/// An entry: a rule, a policy, or a chain's head.
struct Entry<'e> {
    length: usize,
    target: &'e [u8],
    /// What follows the target's header.
    data: &'e [u8],
}

impl<'e> Entry<'e> {
    fn read(entries: &'e [u8], at: usize, layout: &Layout) -> Option<Self> {
        /// `struct xt_entry_target`: size, name, revision.
        const NAME_AT: usize = 2;
        const NAME_END: usize = 31;
        const HEAD: usize = 32;
        let entry = entries.get(at..)?;
        let offset = |at: usize| {
            let bytes = entry.get(at..)?.first_chunk()?;
            Some(usize::from(u16::from_ne_bytes(*bytes)))
        };
        let length = offset(layout.target_offset + 2)?;
        let target = entry.get(offset(layout.target_offset)?..length)?;
        let name = target.get(NAME_AT..NAME_END)?;
        Some(Self {
            length,
            target: name.split(|byte| *byte == 0).next()?,
            data: target.get(HEAD..)?,
        })
    }

    /// The group to which the rule logs.
    fn group(&self) -> Option<u16> {
        /// In `struct xt_nflog_info`.
        const GROUP_AT: usize = 4;
        let group = self.data.get(GROUP_AT..)?.first_chunk()?;
        (self.target == b"NFLOG").then_some(u16::from_ne_bytes(*group))
    }

    /// The offset to which the rule jumps; verdicts are negative.
    fn jump(&self) -> Option<usize> {
        let verdict = i32::from_ne_bytes(*self.data.first_chunk()?);
        usize::try_from(verdict)
            .ok()
            .filter(|_| self.target.is_empty())
    }

    fn is_head_of_a_chain(&self) -> bool {
        self.target == b"ERROR"
    }
}

fn n_rules(entries: &[u8], info: &Info, layout: &Layout) -> NRules {
    let mut n_rules = NRules::new();
    let mut seen = BTreeSet::new();
    let mut begins: Vec<usize> = info.begins().collect();
    while let Some(mut at) = begins.pop() {
        while seen.insert(at)
            && let Some(entry) = Entry::read(entries, at, layout)
            && !entry.is_head_of_a_chain()
        {
            if let Some(group) = entry.group() {
                *n_rules.entry(group).or_default() += 1;
            }
            begins.extend(entry.jump());
            if info.is_policy(at) {
                break;
            }
            at += entry.length;
        }
    }
    n_rules
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPT: i32 = -2;

    fn target(name: &str, data: &[u8]) -> Vec<u8> {
        let mut target = vec![0; 32];
        target[2..2 + name.len()].copy_from_slice(name.as_bytes());
        target.extend(data);
        target
    }

    fn verdict(verdict: i32) -> Vec<u8> {
        target("", &verdict.to_ne_bytes())
    }

    fn nflog(group: u16) -> Vec<u8> {
        let mut data = vec![0; 72];
        data[4..6].copy_from_slice(&group.to_ne_bytes());
        target("NFLOG", &data)
    }

    fn head(name: &str) -> Vec<u8> {
        target("ERROR", name.as_bytes())
    }

    /// The entries in a row, and where each begins.
    fn entries(layout: &Layout, targets: &[Vec<u8>]) -> (Vec<u8>, Vec<u32>) {
        let (mut entries, mut begins) = (Vec::new(), Vec::new());
        for target in targets {
            begins.push(u32::try_from(entries.len()).unwrap());
            let target_at = layout.target_offset + 32;
            let mut entry = vec![0; target_at];
            for (at, offset) in [(0, target_at), (2, target_at + target.len())] {
                let offset = u16::try_from(offset).unwrap().to_ne_bytes();
                entry[layout.target_offset + at..][..2].copy_from_slice(&offset);
            }
            entries.extend(entry);
            entries.extend(target);
        }
        (entries, begins)
    }

    /// A table with only the hook input.
    fn n_of(layout: &Layout, targets: impl Fn(&[u32]) -> Vec<Vec<u8>>) -> NRules {
        let (_, begins) = entries(layout, &targets(&[0; 9]));
        let (entries, _) = entries(layout, &targets(&begins));
        // The kernel fills the fields of other hooks with such numbers.
        let mut info = Info([u32::MAX; 13]);
        info.0[0] = 1 << 1;
        info.0[2] = begins[0];
        info.0[7] = begins[2];
        n_rules(&entries, &info, layout)
    }

    #[test]
    fn rules_count_if_packets_reach_them() {
        for layout in &LAYOUTS {
            let table = |to: usize| {
                move |begins: &[u32]| {
                    vec![
                        nflog(5),
                        verdict(i32::try_from(begins[to]).unwrap()),
                        // The policy.
                        verdict(ACCEPT),
                        head("logs"),
                        nflog(6),
                        nflog(5),
                        verdict(-5),
                        head("other"),
                        nflog(7),
                    ]
                }
            };
            assert_eq!(n_of(layout, table(4)), NRules::from([(5, 2), (6, 1)]));
            assert_eq!(n_of(layout, table(8)), NRules::from([(5, 1), (7, 1)]));
            // After a rule without a target comes the next one.
            assert_eq!(n_of(layout, table(2)), NRules::from([(5, 1)]));
        }
    }

    #[test]
    fn any_input_is_read_without_a_panic() {
        let (all, begins) = entries(&LAYOUTS[0], &[nflog(5), verdict(0), head("x")]);
        let mut info = Info([u32::MAX; 13]);
        info.0[..2].copy_from_slice(&[1, begins[0]]);
        for length in 0..all.len() {
            n_rules(&all[..length], &info, &LAYOUTS[0]);
        }
        for at in 0..all.len() {
            for value in [0, 1, 0xff] {
                let mut changed = all.clone();
                changed[at] = value;
                n_rules(&changed, &info, &LAYOUTS[0]);
            }
        }
    }
}
