//! Nobody, and the kernel alone: no process receives anything.

use std::process::Command;

use anyhow::{Context as _, Result};
use testkit::nft;

use crate::{
    receiver::{Counted, Place, Receiver},
    setup::{Family, Setup},
};

/// A rule that only counts: what a packet costs without accounting.
pub(crate) struct Nobody;

impl Receiver for Nobody {
    fn name(&self) -> &'static str {
        "nobody"
    }

    fn statement(&self, _setup: &Setup) -> String {
        String::new()
    }

    fn command(&self, _place: &Place<'_>) -> Result<Option<Command>> {
        Ok(None)
    }

    fn groups(&self) -> Vec<u16> {
        Vec::new()
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        Ok(Counted::packets(place.stage.seen()?))
    }
}

/// A dynamic set of nftables whose elements have counters.
pub(crate) struct NftSet;

impl Receiver for NftSet {
    fn name(&self) -> &'static str {
        "nft-set"
    }

    fn objects(&self, setup: &Setup) -> String {
        let kind = match setup.family {
            Family::Ip4 => "ipv4_addr",
            Family::Ip6 => "ipv6_addr",
        };
        format!("counter done {{}}\nset acct {{ type {kind}; flags dynamic; size 4194304; }}")
    }

    fn statement(&self, setup: &Setup) -> String {
        let prefix = match setup.family {
            Family::Ip4 => "ip saddr",
            Family::Ip6 => "ip6 saddr and ffff:ffff:ffff:ffff::",
        };
        format!("update @acct {{ {prefix} counter }} counter name done")
    }

    fn command(&self, _place: &Place<'_>) -> Result<Option<Command>> {
        Ok(None)
    }

    fn groups(&self) -> Vec<u16> {
        Vec::new()
    }

    /// A rule ends where it cannot update the set. To list a million elements would take nft a minute
    /// and gigabytes.
    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        let counters = nft::counters(&place.stage.link.host)?;
        let done = counters.get("done").context("nft has lost the counter")?;
        Ok(Counted::packets(done.packets))
    }
}
