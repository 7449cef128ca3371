//! `nf_tables`' rules as far as they log to groups, kept up to date from the kernel's notifications. Pure:
//! datagrams are handed in, which may be anything.
//!
//! A transaction comes as messages that say what it has removed and added, and one that ends it (`NEWGEN`).
//! What is true in between was never so for a packet.

use std::collections::{BTreeMap, BTreeSet};

use netlink_packet_core::NlasIterator;

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
/// `enum nf_tables_msg_types`.
pub const GET_TABLE: u16 = SUBSYSTEM | 1;
/// As [`GET_TABLE`].
pub const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const DEL_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DEL_RULE: u16 = SUBSYSTEM | 8;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;

const NETLINK_HEADER: usize = 16;
const NFGENMSG: usize = 4;

/// A table: the family's number and the name.
type Table = (u8, Vec<u8>);

/// A rule that logs to a group.
#[derive(Debug)]
struct Rule {
    chain: Vec<u8>,
    groups: Vec<u16>,
}

/// The rules that log to groups.
#[derive(Debug, Default)]
pub struct Ruleset {
    /// By table and handle.
    rules: BTreeMap<(Table, u64), Rule>,
    /// Tables that are switched off (`flags dormant`).
    dormant: BTreeSet<Table>,
}

impl Ruleset {
    /// Takes in the messages of a datagram. Returns whether a transaction has ended in it.
    pub fn apply(&mut self, datagram: &[u8]) -> bool {
        let mut has_ended = false;
        let mut rest = datagram;
        while let Some((kind, body, next)) = split_message(rest) {
            has_ended |= kind == NEW_GENERATION;
            // If a message is malformed, skip it.
            let _no_such = self.apply_message(kind, body);
            rest = next;
        }
        has_ended
    }

    /// How many rules log to a group.
    #[must_use]
    pub fn n_rules(&self, group: u16) -> usize {
        let awake = self.rules.iter();
        let awake = awake.filter(|((table, _), _)| !self.dormant.contains(table));
        awake
            .filter(|(_, rule)| rule.groups.contains(&group))
            .count()
    }

    fn apply_message(&mut self, kind: u16, body: &[u8]) -> Option<()> {
        let family = *body.first()?;
        let attributes = body.get(NFGENMSG..)?;
        // The table's name is the first attribute of each of them.
        let table = (family, attribute(attributes, 1)?.to_vec());
        match kind {
            NEW_TABLE => {
                const NFT_TABLE_F_DORMANT: u32 = 1;
                let flags = attribute(attributes, 2).and_then(|flags| flags.first_chunk());
                let flags = flags.map_or(0, |flags| u32::from_be_bytes(*flags));
                if flags & NFT_TABLE_F_DORMANT == 0 {
                    self.dormant.remove(&table);
                } else {
                    self.dormant.insert(table);
                }
            }
            DEL_TABLE => {
                self.rules.retain(|(of, _), _| *of != table);
                self.dormant.remove(&table);
            }
            DEL_CHAIN => {
                let chain = attribute(attributes, 3)?;
                self.rules
                    .retain(|(of, _), rule| *of != table || rule.chain != chain);
            }
            NEW_RULE => {
                let chain = attribute(attributes, 2)?.to_vec();
                let handle = handle(attributes)?;
                let groups = groups(attribute(attributes, 4).unwrap_or_default());
                if !groups.is_empty() {
                    self.rules.insert((table, handle), Rule { chain, groups });
                }
            }
            DEL_RULE => {
                self.rules.remove(&(table, handle(attributes)?));
            }
            _ => {}
        }
        Some(())
    }
}

/// The first message: its type, what follows `nlmsghdr`, and what follows the message.
#[must_use]
pub fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let length = usize::try_from(length).ok()?;
    let body = bytes.get(NETLINK_HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

fn handle(attributes: &[u8]) -> Option<u64> {
    let value = attribute(attributes, 3)?;
    Some(u64::from_be_bytes(*value.first_chunk()?))
}

/// The groups that a rule's expressions log to.
fn groups(expressions: &[u8]) -> Vec<u16> {
    let expressions = NlasIterator::new(expressions).map_while(Result::ok);
    expressions
        .filter_map(|expression| group_of(expression.value()))
        .collect()
}

fn group_of(expression: &[u8]) -> Option<u16> {
    const NFTA_LOG_GROUP: u16 = 1;
    /// In `struct xt_nflog_info`.
    const GROUP_AT: usize = 4;
    let name = attribute(expression, 1)?;
    let data = attribute(expression, 2)?;
    match name {
        b"log\0" => {
            let group = attribute(data, NFTA_LOG_GROUP)?;
            Some(u16::from_be_bytes(*group.first_chunk()?))
        }
        // Of iptables-nft.
        b"target\0" if attribute(data, 1)? == b"NFLOG\0" => {
            let info = attribute(data, 3)?.get(GROUP_AT..)?;
            Some(u16::from_ne_bytes(*info.first_chunk()?))
        }
        _ => None,
    }
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    /// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
    const FLAGS: u16 = 0xc000;
    let mut rest = attributes;
    loop {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let found = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?) & !FLAGS;
        let value = rest.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let body = [vec![1, 0, 0, 0], attributes.concat()].concat();
        let length = u32::try_from(NETLINK_HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn expression(name: &[u8], data: &[u8]) -> Vec<u8> {
        attr(1, &[attr(1, name), attr(2 | 0x8000, data)].concat())
    }

    fn rule(kind: u16, table: &str, handle: u64, expressions: &[Vec<u8>]) -> Vec<u8> {
        let name = |text: &str| format!("{text}\0").into_bytes();
        let mut attributes = vec![
            attr(1, &name(table)),
            attr(2, &name("chain")),
            attr(3, &handle.to_be_bytes()),
        ];
        attributes.push(attr(4 | 0x8000, &expressions.concat()));
        message(kind, &attributes)
    }

    fn log(group: u16) -> Vec<u8> {
        expression(b"log\0", &attr(1, &group.to_be_bytes()))
    }

    fn nflog(group: u16) -> Vec<u8> {
        let mut info = vec![0; 80];
        info[4..6].copy_from_slice(&group.to_ne_bytes());
        let data = [attr(1, b"NFLOG\0"), attr(2, &[0; 4]), attr(3, &info)].concat();
        expression(b"target\0", &data)
    }

    fn end() -> Vec<u8> {
        message(NEW_GENERATION, &[attr(1, &7_u32.to_be_bytes())])
    }

    #[test]
    fn rules_are_counted_by_the_groups_that_they_log_to() {
        let mut ruleset = Ruleset::default();
        let counter = expression(b"counter\0", &[]);
        let added = [
            rule(NEW_RULE, "a", 1, &[counter.clone(), log(5)]),
            rule(NEW_RULE, "a", 2, &[nflog(5)]),
            rule(NEW_RULE, "b", 2, &[log(4), log(6)]),
            rule(NEW_RULE, "b", 3, &[counter]),
        ];
        assert!(!ruleset.apply(&added.concat()));
        assert!(ruleset.apply(&end()));
        let count = |ruleset: &Ruleset| [4, 5, 6, 7].map(|group| ruleset.n_rules(group));
        assert_eq!(count(&ruleset), [1, 2, 1, 0]);
        // Handles are a table's own.
        ruleset.apply(&rule(DEL_RULE, "a", 2, &[]));
        assert_eq!(count(&ruleset), [1, 1, 1, 0]);
        let dormant =
            |flags: u32| message(NEW_TABLE, &[attr(1, b"b\0"), attr(2, &flags.to_be_bytes())]);
        ruleset.apply(&dormant(1));
        assert_eq!(count(&ruleset), [0, 1, 0, 0]);
        ruleset.apply(&dormant(0));
        assert_eq!(count(&ruleset), [1, 1, 1, 0]);
        ruleset.apply(&message(DEL_TABLE, &[attr(1, b"b\0")]));
        assert_eq!(count(&ruleset), [0, 1, 0, 0]);
        ruleset.apply(&message(DEL_CHAIN, &[attr(1, b"a\0"), attr(3, b"chain\0")]));
        assert_eq!(count(&ruleset), [0; 4]);
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic() {
        let all = [rule(NEW_RULE, "a", 1, &[log(5), nflog(6)]), end()].concat();
        for length in 0..all.len() {
            Ruleset::default().apply(&all[..length]);
        }
        for at in 0..all.len() {
            for value in [0, 1, 3, 0xff] {
                let mut changed = all.clone();
                changed[at] = value;
                Ruleset::default().apply(&changed);
            }
        }
    }
}
