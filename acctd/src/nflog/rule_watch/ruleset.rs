//! The rules of `nf_tables` that log to groups, kept up to date from the kernel's announcements. Pure: datagrams
//! are passed in, and may have any content.
//!
//! A transaction is announced as messages that say what it has removed and added, and one that ends it
//! (`NEWGEN`). No packet ever saw a state in between.
//!
//! Packets reach the rules of a chain with a hook, and those of a chain to which a reached rule jumps. The elements
//! of verdict maps are not read: a rule with a verdict map may jump to any chain of its table.

use std::collections::{BTreeMap, BTreeSet};

use crate::nflog::message::{Message, NFGENMSG, attributes};

/// `NFNL_SUBSYS_NFTABLES << 8`.
const SUBSYSTEM: u16 = 10 << 8;
/// `enum nf_tables_msg_types`.
pub(crate) const GET_TABLE: u16 = SUBSYSTEM | 1;
pub(crate) const GET_CHAIN: u16 = SUBSYSTEM | 4;
pub(crate) const GET_RULE: u16 = SUBSYSTEM | 7;
const NEW_TABLE: u16 = SUBSYSTEM;
const DEL_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const DEL_CHAIN: u16 = SUBSYSTEM | 5;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const DEL_RULE: u16 = SUBSYSTEM | 8;
const NEW_GENERATION: u16 = SUBSYSTEM | 15;

const NFTA_CHAIN_HOOK: u16 = 4;

/// The tables, by the family's number and the name.
#[derive(Default)]
pub(crate) struct Ruleset(BTreeMap<(u8, Vec<u8>), Table>);

#[derive(Default)]
struct Table {
    /// `flags dormant`: the table is switched off.
    is_dormant: bool,
    /// Chains with a hook.
    hooked: BTreeSet<Vec<u8>>,
    /// Rules that log or jump, by handle.
    rules: BTreeMap<u64, Rule>,
}

#[derive(Default)]
struct Rule {
    chain: Vec<u8>,
    /// The groups to which the rule logs.
    groups: Vec<u16>,
    /// The chains to which it jumps.
    targets: Vec<Vec<u8>>,
    /// It has a verdict map.
    has_map: bool,
}

impl Ruleset {
    /// Applies the messages of a datagram. Returns whether one of them ends a transaction.
    pub(crate) fn apply(&mut self, datagram: &[u8]) -> bool {
        let mut has_ended = false;
        let mut rest = datagram;
        while let Some((message, next)) = Message::split_off(rest) {
            has_ended |= message.kind == NEW_GENERATION;
            // If a message is malformed, skip it.
            let _malformed = self.apply_message(message.kind, message.body());
            rest = next;
        }
        has_ended
    }

    /// How many rules that packets reach log to each group.
    pub(crate) fn n_rules(&self) -> BTreeMap<u16, usize> {
        let mut n_rules = BTreeMap::new();
        for table in self.0.values().filter(|table| !table.is_dormant) {
            for rule in table.rules.values().filter(|rule| !rule.groups.is_empty()) {
                if table.is_reached(&rule.chain, &mut BTreeSet::new()) {
                    for group in &rule.groups {
                        *n_rules.entry(*group).or_default() += 1;
                    }
                }
            }
        }
        n_rules
    }

    fn apply_message(&mut self, kind: u16, body: &[u8]) -> Option<()> {
        let family = *body.first()?;
        let attributes = body.get(NFGENMSG..)?;
        let is_about_tables = matches!(
            kind,
            NEW_TABLE | DEL_TABLE | NEW_CHAIN | DEL_CHAIN | NEW_RULE | DEL_RULE
        );
        if !is_about_tables {
            return None;
        }
        // The table's name is the first attribute of each of them.
        let name = (family, attribute(attributes, 1)?.to_vec());
        if kind == DEL_TABLE {
            self.0.remove(&name);
            return None;
        }
        let table = self.0.entry(name).or_default();
        match kind {
            NEW_TABLE => {
                const NFT_TABLE_F_DORMANT: u32 = 1;
                let flags = attribute(attributes, 2).and_then(|flags| flags.first_chunk());
                let flags = flags.map_or(0, |flags| u32::from_be_bytes(*flags));
                table.is_dormant = flags & NFT_TABLE_F_DORMANT != 0;
            }
            NEW_CHAIN => {
                let chain = attribute(attributes, 3)?.to_vec();
                if attribute(attributes, NFTA_CHAIN_HOOK).is_some() {
                    table.hooked.insert(chain);
                } else {
                    table.hooked.remove(&chain);
                }
            }
            // With a hook, the message removes devices from the chain, and the chain stays. Before Linux 6.5 it
            // may also be deleted: then each of its rules is announced.
            DEL_CHAIN if attribute(attributes, NFTA_CHAIN_HOOK).is_none() => {
                let chain = attribute(attributes, 3)?;
                table.hooked.remove(chain);
                table.rules.retain(|_, rule| rule.chain != chain);
            }
            NEW_RULE => {
                let mut rule = Rule {
                    chain: attribute(attributes, 2)?.to_vec(),
                    ..Rule::default()
                };
                let handle = handle(attributes)?;
                rule.read(attribute(attributes, 4).unwrap_or_default());
                if rule.has_map || !(rule.groups.is_empty() && rule.targets.is_empty()) {
                    table.rules.insert(handle, rule);
                }
            }
            DEL_RULE => {
                table.rules.remove(&handle(attributes)?);
            }
            _ => {}
        }
        Some(())
    }
}

impl Table {
    /// Whether packets reach a chain. Chains in `seen` are not followed again.
    fn is_reached<'t>(&'t self, chain: &'t [u8], seen: &mut BTreeSet<&'t [u8]>) -> bool {
        let jumps_here = |rule: &Rule| rule.has_map || rule.targets.iter().any(|it| it == chain);
        self.hooked.contains(chain)
            || (seen.insert(chain)
                && self
                    .rules
                    .values()
                    .any(|rule| jumps_here(rule) && self.is_reached(&rule.chain, seen)))
    }
}

impl Rule {
    fn read(&mut self, expressions: &[u8]) {
        for (_, expression) in values(expressions) {
            // Most are of other kinds.
            let _other = self.read_expression(expression);
        }
    }

    fn read_expression(&mut self, expression: &[u8]) -> Option<()> {
        const NFTA_LOG_GROUP: u16 = 1;
        const NFTA_LOOKUP_DREG: u16 = 3;
        /// `NFT_REG_VERDICT`.
        const VERDICT: [u8; 4] = [0; 4];
        /// In `struct xt_nflog_info`.
        const GROUP_AT: usize = 4;
        let name = attribute(expression, 1)?;
        let data = attribute(expression, 2)?;
        match name {
            b"log\0" => {
                let group = attribute(data, NFTA_LOG_GROUP)?;
                self.groups.push(u16::from_be_bytes(*group.first_chunk()?));
            }
            // Of iptables-nft.
            b"target\0" if attribute(data, 1)? == b"NFLOG\0" => {
                let info = attribute(data, 3)?.get(GROUP_AT..)?;
                self.groups.push(u16::from_ne_bytes(*info.first_chunk()?));
            }
            b"immediate\0" => {
                // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT and NFTA_VERDICT_CHAIN.
                let chain = attribute(attribute(attribute(data, 2)?, 2)?, 2)?;
                self.targets.push(chain.to_vec());
            }
            b"lookup\0" => self.has_map |= attribute(data, NFTA_LOOKUP_DREG)? == VERDICT,
            _ => {}
        }
        Some(())
    }
}

fn handle(attributes: &[u8]) -> Option<u64> {
    let value = attribute(attributes, 3)?;
    Some(u64::from_be_bytes(*value.first_chunk()?))
}

/// The first attribute of this type.
fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    let found = values(bytes).find(|(found, _)| *found == kind);
    found.map(|(_, value)| value)
}

/// The attributes up to the first that is malformed.
fn values(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let found = attributes(bytes, 0).map_while(|found| found);
    found.filter_map(|(kind, value)| Some((kind, bytes.get(value)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nflog::message::request;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = request(kind, 0, 0, 0, &[]);
        bytes.extend(attributes.concat());
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
    }

    fn expression(name: &[u8], data: &[u8]) -> Vec<u8> {
        attr(1, &[attr(1, name), attr(2 | 0x8000, data)].concat())
    }

    fn rule(kind: u16, table: &str, handle: u64, expressions: &[Vec<u8>]) -> Vec<u8> {
        rule_in("chain", kind, table, handle, expressions)
    }

    fn rule_in(
        chain: &str,
        kind: u16,
        table: &str,
        handle: u64,
        expressions: &[Vec<u8>],
    ) -> Vec<u8> {
        let name = |text: &str| format!("{text}\0").into_bytes();
        let mut attributes = vec![
            attr(1, &name(table)),
            attr(2, &name(chain)),
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

    fn immediate(verdict: &[Vec<u8>]) -> Vec<u8> {
        let verdict = attr(2 | 0x8000, &verdict.concat());
        let data = [
            attr(1, &0_u32.to_be_bytes()),
            attr(2 | 0x8000, &attr(2 | 0x8000, &verdict[4..])),
        ];
        expression(b"immediate\0", &data.concat())
    }

    fn jump(chain: &str) -> Vec<u8> {
        const NFT_JUMP: i32 = -3;
        let name = format!("{chain}\0");
        immediate(&[attr(1, &NFT_JUMP.to_be_bytes()), attr(2, name.as_bytes())])
    }

    fn chain(kind: u16, table: &str, name: &str, is_hooked: bool) -> Vec<u8> {
        let text = |text: &str| format!("{text}\0").into_bytes();
        let mut attributes = vec![attr(1, &text(table)), attr(3, &text(name))];
        if is_hooked {
            attributes.push(attr(4 | 0x8000, &attr(1, &[0; 4])));
        }
        message(kind, &attributes)
    }

    /// Groups 4 to 7.
    fn count(ruleset: &Ruleset) -> [usize; 4] {
        let n_rules = ruleset.n_rules();
        [4, 5, 6, 7].map(|group| n_rules.get(&group).copied().unwrap_or(0))
    }

    fn end() -> Vec<u8> {
        message(NEW_GENERATION, &[attr(1, &7_u32.to_be_bytes())])
    }

    #[test]
    fn rules_are_counted_by_the_groups_that_they_log_to() {
        let mut ruleset = Ruleset::default();
        let counter = expression(b"counter\0", &[]);
        let added = [
            chain(NEW_CHAIN, "a", "chain", true),
            chain(NEW_CHAIN, "b", "chain", true),
            rule(NEW_RULE, "a", 1, &[counter.clone(), log(5)]),
            rule(NEW_RULE, "a", 2, &[nflog(5)]),
            rule(NEW_RULE, "b", 2, &[log(4), log(6)]),
            rule(NEW_RULE, "b", 3, &[counter]),
        ];
        assert!(!ruleset.apply(&added.concat()));
        assert!(ruleset.apply(&end()));
        assert_eq!(count(&ruleset), [1, 2, 1, 0]);
        // Handles are unique within a table only.
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
    fn a_rule_counts_while_packets_reach_its_chain() {
        let mut ruleset = Ruleset::default();
        let accept = immediate(&[attr(1, &1_i32.to_be_bytes())]);
        let added = [
            chain(NEW_CHAIN, "a", "input", true),
            chain(NEW_CHAIN, "a", "middle", false),
            chain(NEW_CHAIN, "a", "logs", false),
            rule_in("logs", NEW_RULE, "a", 1, &[log(5), accept]),
            rule_in("logs", NEW_RULE, "a", 2, &[jump("logs")]),
            rule_in("middle", NEW_RULE, "a", 3, &[jump("logs")]),
        ];
        ruleset.apply(&added.concat());
        assert_eq!(count(&ruleset), [0; 4], "nothing leads there");
        ruleset.apply(&rule_in("input", NEW_RULE, "a", 4, &[jump("middle")]));
        assert_eq!(count(&ruleset), [0, 1, 0, 0]);
        // A chain of the same name in another table.
        ruleset.apply(&rule_in("logs", NEW_RULE, "b", 1, &[log(6)]));
        assert_eq!(count(&ruleset), [0, 1, 0, 0]);
        ruleset.apply(&rule_in("middle", DEL_RULE, "a", 3, &[]));
        assert_eq!(count(&ruleset), [0; 4]);
        let lookup = |to: u32| {
            let data = [attr(1, b"map\0"), attr(3, &to.to_be_bytes())];
            expression(b"lookup\0", &data.concat())
        };
        ruleset.apply(&rule_in("middle", NEW_RULE, "a", 5, &[lookup(1)]));
        assert_eq!(count(&ruleset), [0; 4], "a map of addresses");
        ruleset.apply(&rule_in("middle", NEW_RULE, "a", 6, &[lookup(0)]));
        assert_eq!(count(&ruleset), [0, 1, 0, 0], "a map of verdicts");
        ruleset.apply(&chain(DEL_CHAIN, "a", "input", true));
        assert_eq!(count(&ruleset), [0, 1, 0, 0], "a device of several is gone");
        ruleset.apply(&chain(DEL_CHAIN, "a", "input", false));
        assert_eq!(count(&ruleset), [0; 4]);
    }

    #[test]
    fn any_input_is_read_without_a_panic() {
        let rule = rule(NEW_RULE, "a", 1, &[log(5), nflog(6), jump("b")]);
        let all = [chain(NEW_CHAIN, "a", "chain", true), rule, end()].concat();
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
