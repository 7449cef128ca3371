//! Switches the TC programs' sampling on and off, and reads what they sample (`acctd_common::sample`).

use std::fmt;
use std::net::IpAddr;

use acctd_common::contract::{SIDE_DEST, SIDE_SOURCE};
use acctd_common::sample::{self, ASKED_BITS, AskedKey, MAX_ASKED, Sample, Sampling};
use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, MapData, RingBuf};
use ipnet::IpNet;

/// The section of [`sample::SAMPLING`], by which aya names its map.
const SECTION: &str = ".bss";

/// The maps by which the programs sample.
pub(crate) struct Sampler {
    switch: Array<MapData, Sampling>,
    asked: LpmTrie<MapData, AskedKey, u32>,
    samples: RingBuf<MapData>,
}

impl fmt::Debug for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sampler").finish_non_exhaustive()
    }
}

impl Sampler {
    /// Takes the maps of a loaded object; `None` if the object does not sample.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Option<Self>> {
        let maps = [SECTION, sample::ASKED, sample::SAMPLES].map(|name| ebpf.take_map(name));
        let [Some(switch), Some(asked), Some(samples)] = maps else {
            return Ok(None);
        };
        let made = || -> Result<Self> {
            Ok(Self {
                switch: switch.try_into()?,
                asked: asked.try_into()?,
                samples: samples.try_into()?,
            })
        };
        made().context("the maps of the samples").map(Some)
    }

    /// Samples packets of these prefixes, of both sides, at most `limit` per window and hook.
    pub(crate) fn start(&mut self, prefixes: &[IpNet], limit: u64) -> Result<()> {
        if prefixes.len() > MAX_ASKED as usize / 2 {
            bail!("more than {} prefixes", MAX_ASKED / 2);
        }
        self.stop()?;
        // What an earlier one has left.
        while self.samples.next().is_some() {}
        let left: Vec<_> = self.asked.keys().collect::<Result<_, _>>()?;
        for key in left {
            self.asked.remove(&key)?;
        }
        for prefix in prefixes {
            for side in [SIDE_SOURCE, SIDE_DEST] {
                self.asked.insert(&asked_key(prefix, side), 1, 0)?;
            }
        }
        let sampling = Sampling {
            limit,
            ..Sampling::default()
        };
        Ok(self.switch.set(0, sampling, 0)?)
    }

    /// What was sampled since the last call.
    pub(crate) fn read(&mut self, into: &mut Vec<Sample>) {
        while let Some(item) = self.samples.next() {
            into.extend(Sample::parse(&item));
        }
    }

    /// Switches sampling off. Returns how many samples found no room.
    pub(crate) fn stop(&mut self) -> Result<u64> {
        let sampling = self.switch.get(&0, 0)?;
        self.switch.set(0, Sampling::default(), 0)?;
        Ok(sampling.n_lost)
    }
}

fn asked_key(prefix: &IpNet, side: u8) -> Key<AskedKey> {
    let mut key = AskedKey {
        version: 6,
        side,
        ..AskedKey::default()
    };
    match prefix.network() {
        IpAddr::V4(network) => {
            key.version = 4;
            key.address[..4].copy_from_slice(&network.octets());
        }
        IpAddr::V6(network) => key.address = network.octets(),
    }
    Key::new(ASKED_BITS + u32::from(prefix.prefix_len()), key)
}
