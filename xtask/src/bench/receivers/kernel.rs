//! Nobody, and the kernel alone: no process receives anything.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{Counted, Place, Receiver, Setup};
use crate::bench::setup::Family;

/// A rule that only counts: what a packet costs without accounting.
pub(crate) struct Nobody;

impl Receiver for Nobody {
    fn name(&self) -> &'static str {
        "(a counter alone)"
    }

    fn statement(&self, _setup: &Setup) -> String {
        String::new()
    }

    fn command(&self, _place: &Place<'_>) -> Result<Option<Command>> {
        Ok(None)
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        Ok(Counted {
            packets: place.stage.seen()?,
            datagrams: None,
        })
    }
}

/// A dynamic set of nftables whose elements have counters.
pub(crate) struct NftSet;

impl Receiver for NftSet {
    fn name(&self) -> &'static str {
        "nft dynamic set"
    }

    fn objects(&self, setup: &Setup) -> String {
        let kind = match setup.family {
            Family::Ip4 => "ipv4_addr",
            Family::Ip6 => "ipv6_addr",
        };
        format!("set acct {{ type {kind}; flags dynamic; size 4194304; }}")
    }

    fn statement(&self, setup: &Setup) -> String {
        let prefix = match setup.family {
            Family::Ip4 => "ip saddr",
            Family::Ip6 => "ip6 saddr and ffff:ffff:ffff:ffff::",
        };
        format!("update @acct {{ {prefix} counter }}")
    }

    fn command(&self, _place: &Place<'_>) -> Result<Option<Command>> {
        Ok(None)
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        let words = ["nft", "-j", "list", "set", "inet", "bench", "acct"];
        let json = place.stage.router.run(&words)?;
        let listing: Listing = serde_json::from_str(&json).context("nft's list of the set")?;
        let sets = listing.nftables.into_iter().filter_map(|object| object.set);
        Ok(Counted {
            packets: sets
                .flat_map(|set| set.elem)
                .map(|element| element.elem.counter.packets)
                .sum(),
            datagrams: None,
        })
    }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Set {
    #[serde(default)]
    elem: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    elem: Inner,
}

#[derive(Deserialize)]
struct Inner {
    counter: xtask::nft::Count,
}
