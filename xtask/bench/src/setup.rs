//! What is measured: which packets, by which rule.

use std::{fmt, str::FromStr};

use anyhow::Result;
use serde::Serialize;
use testkit::{link::Link, traffic::TrafficArgs};

/// The family of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub(crate) enum Family {
    #[value(name = "4")]
    Ip4,
    #[value(name = "6")]
    Ip6,
}

impl Family {
    /// What a rule has to copy of a packet.
    pub(crate) fn snaplen(self) -> u32 {
        match self {
            Self::Ip4 => 20,
            Self::Ip6 => 40,
        }
    }

    /// The family's word in nft.
    pub(crate) fn nft(self) -> &'static str {
        match self {
            Self::Ip4 => "ipv4",
            Self::Ip6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip4 => "IPv4",
            Self::Ip6 => "IPv6",
        })
    }
}

/// How many source prefixes, and whether they are known when the measurement begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Prefixes {
    pub(crate) count: u32,
    /// Each packet that is measured is the first of its prefix.
    pub(crate) new: bool,
}

impl fmt::Display for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.count, if self.new { " new" } else { "" })
    }
}

impl FromStr for Prefixes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, new) = match text.strip_suffix("new") {
            Some(digits) => (digits.trim_end(), true),
            None => (text, false),
        };
        match digits.parse() {
            Ok(count @ 1..=4_000_000) => Ok(Self { count, new }),
            _ => Err("expected 1 to 4000000, or for example 1000000new".to_owned()),
        }
    }
}

/// Packets that are measured in a turn.
const PACKETS: u64 = 1_000_000;
/// At a fixed rate, for how many seconds.
const SECONDS_AT_A_RATE: u64 = 3;

/// The rule's queue-thresholds, on the command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Thresholds {
    /// The rule's queue-threshold
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "50,5000"
    )]
    pub(crate) threshold: Vec<u32>,
}

/// One setup, in which each receiver has its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Setup {
    pub(crate) family: Family,
    pub(crate) prefixes: Prefixes,
    /// The rule's queue-threshold: packets that the kernel hands over at once.
    pub(crate) threshold: u32,
    /// Packets a second; 0 is as fast as the generator can.
    pub(crate) rate: u32,
    /// Packets that are measured.
    pub(crate) packets: u64,
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} prefixes, threshold {}, ",
            self.family, self.prefixes, self.threshold
        )?;
        match self.rate {
            0 => f.write_str("full speed"),
            rate => write!(f, "{rate} packets/s"),
        }
    }
}

impl Setup {
    /// At full speed [`PACKETS`], at a rate those of [`SECONDS_AT_A_RATE`].
    pub(crate) fn new(family: Family, prefixes: Prefixes, threshold: u32, rate: u32) -> Self {
        Self {
            family,
            prefixes,
            threshold,
            rate,
            packets: match rate {
                0 => PACKETS,
                rate => u64::from(rate) * SECONDS_AT_A_RATE,
            },
        }
    }

    /// A packet from each prefix, before the measurement; nothing where they are to be new.
    pub(crate) fn warm_up(&self, link: &Link) -> Result<Option<TrafficArgs>> {
        if self.prefixes.new {
            return Ok(None);
        }
        Ok(Some(TrafficArgs {
            count: self.prefixes.count.into(),
            ..self.one_of_each(link)?
        }))
    }

    /// The packets that are measured. Known prefixes come in another order than at first: what a
    /// receiver keeps in that order would else come through the caches like an array.
    pub(crate) fn traffic(&self, link: &Link) -> Result<TrafficArgs> {
        Ok(TrafficArgs {
            count: self.packets,
            rate: self.rate,
            scattered: true,
            ..self.one_of_each(link)?
        })
    }

    fn one_of_each(&self, link: &Link) -> Result<TrafficArgs> {
        let (source, dest) = match self.family {
            Family::Ip4 => ("10.0.0.0/8", "192.0.2.1/32"),
            Family::Ip6 => ("2001:db8::1/32", "2001:db9::1/128"),
        };
        Ok(TrafficArgs {
            sources: self.prefixes.count,
            ..link.traffic(source, dest)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_a_number_and_may_be_new() {
        let parsed = |text: &str| text.parse::<Prefixes>().map(|p| (p.count, p.new));
        assert_eq!(parsed("65536"), Ok((65_536, false)));
        assert_eq!(parsed("1000000new"), Ok((1_000_000, true)));
        for text in ["", "0", "new", "4000001", "-1"] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
