//! Collects the output of the programs until the ruleset is complete.

use std::collections::{BTreeMap, BTreeSet};

use super::log_rule::{Ruleset, Unreadable};
use super::model::Chain;
use super::{iptables, nft, walk};
use crate::model::prefix::Family;
use crate::rules::devices::Devices;
use crate::rules::nft_objects::Object;

#[derive(Debug, Default)]
pub(crate) struct Reading {
    chains: Vec<Chain>,
    /// Tables with rules that nft does not show in full, and the number of these rules.
    hidden: BTreeMap<String, usize>,
    /// Tables of iptables-nft with extensions, of which nft may not show all.
    with_extensions: BTreeSet<String>,
    unreadable: Vec<Unreadable>,
}

impl Reading {
    /// Adds the output of `nft -j list ruleset`; `dormant` are the disabled tables.
    pub(crate) fn add_nft(
        &mut self,
        objects: &[Object],
        devices: &Devices,
        dormant: &BTreeSet<String>,
    ) {
        let read = nft::read(objects, devices, dormant);
        self.chains.extend(read.chains);
        self.hidden.extend(read.hidden);
        self.with_extensions.extend(read.with_extensions);
    }

    /// Whether nft may not have shown all rules of iptables for this family.
    pub(crate) fn lacks_iptables(&self, family: Family) -> bool {
        let prefix = format!("{} ", nft_family(family));
        let has = |table: &String| table.starts_with(&prefix);
        self.with_extensions.iter().any(has) || self.hidden.keys().any(has)
    }

    /// Replaces the tables that nft has shown by the output of `iptables-nft-save`, at the same place, so that the order
    /// of loading is kept.
    pub(crate) fn replace_by_iptables_nft(&mut self, text: &str, family: Family) {
        let mut saved = iptables::read(text, family);
        for name in text.lines().filter_map(|line| line.strip_prefix('*')) {
            let shown = format!("{} {name}", nft_family(family));
            let at = self.chains.iter().position(|chain| chain.table == shown);
            self.chains.retain(|chain| chain.table != shown);
            self.hidden.remove(&shown);
            let is_of_it = |chain: &Chain| chain.place.is_of_table(name);
            let (own, others) = saved.into_iter().partition(is_of_it);
            saved = others;
            let own: Vec<Chain> = own;
            let at = at.unwrap_or(self.chains.len());
            self.chains.splice(at..at, own);
        }
    }

    /// Adds the output of `iptables-save` or `ip6tables-save`.
    pub(crate) fn add_iptables(&mut self, text: &str, family: Family) {
        self.chains.extend(iptables::read(text, family));
    }

    pub(crate) fn add_unreadable(&mut self, what: String, cure: String) {
        self.unreadable.push(Unreadable { what, cure });
    }

    pub(crate) fn hidden(&self) -> &BTreeMap<String, usize> {
        &self.hidden
    }

    pub(crate) fn finish(self) -> Ruleset {
        let mut ruleset = Ruleset {
            unreadable: self.unreadable,
            ..Ruleset::default()
        };
        walk::walk(&self.chains, &mut ruleset);
        ruleset
    }
}

fn nft_family(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "ip",
        Family::Ip6 => "ip6",
    }
}
