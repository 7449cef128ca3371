//! What is accounted: an IP prefix, held as the masked address in the smallest integer that
//! has room for it. Four bytes a key instead of seventeen is most of what makes a ledger of a
//! million prefixes small.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::BitAnd;

use ipnet::{Ipv4Net, Ipv6Net, PrefixLenError};
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6, and the size of the part of a header that acctd reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// IPv4.
    Ip4,
    /// IPv6.
    Ip6,
}

impl Family {
    /// The version field of the IP header, and the digit in flag names and log lines.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Ip4 => 4,
            Self::Ip6 => 6,
        }
    }

    /// Bytes of a packet that hold its addresses and its length: the IPv4 header without
    /// options (RFC 791), the fixed IPv6 header (RFC 8200).
    #[must_use]
    pub fn header_length(self) -> usize {
        match self {
            Self::Ip4 => 20,
            Self::Ip6 => 40,
        }
    }
}

/// Which of a packet's two addresses is accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// The source address: columns `SourceBytes`, `SourcePackets`.
    Source,
    /// The destination address: columns `DestBytes`, `DestPackets`.
    Dest,
}

impl Side {
    /// The word for it in the columns and in go-nflog-acctd's log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "Source",
            Self::Dest => "Dest",
        }
    }
}

/// A prefix length that fits its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixLength {
    /// An IPv4 network of this length, at 0.0.0.0: only its mask is used.
    Ip4(Ipv4Net),
    /// An IPv6 network of this length, at `::`.
    Ip6(Ipv6Net),
}

impl PrefixLength {
    /// Refuses a length over 32 (IPv4) or 128 (IPv6).
    pub fn new(family: Family, length: u8) -> Result<Self, PrefixLenError> {
        Ok(match family {
            Family::Ip4 => Self::Ip4(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, length)?),
            Family::Ip6 => Self::Ip6(Ipv6Net::new(Ipv6Addr::UNSPECIFIED, length)?),
        })
    }

    /// The length in bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::Ip4(net) => net.prefix_len(),
            Self::Ip6(net) => net.prefix_len(),
        }
    }

    /// The family it belongs to.
    #[must_use]
    pub fn family(self) -> Family {
        match self {
            Self::Ip4(_) => Family::Ip4,
            Self::Ip6(_) => Family::Ip6,
        }
    }
}

/// An address cut to the bits that a prefix length can leave set.
///
/// The order of keys is the order of the addresses they stand for.
pub trait PrefixKey: Copy + Ord + Hash + Debug + Send + BitAnd<Output = Self> + 'static {
    /// The family whose addresses it holds.
    const FAMILY: Family;

    /// The first bytes of an address in network order. `address` has the family's full length;
    /// a shorter one reads as zero, which the decoder has ruled out before.
    fn from_address(address: &[u8]) -> Self;

    /// The mask of a prefix length of this family: `key & mask` is the prefix.
    fn mask(length: PrefixLength) -> Self;

    /// The prefix's address, its host bits zero.
    fn address(self) -> IpAddr;

    /// The key of `0.0.0.0` or `::`.
    const ZERO: Self;
}

/// An IPv4 prefix of any length.
impl PrefixKey for u32 {
    const FAMILY: Family = Family::Ip4;
    const ZERO: Self = 0;

    #[inline]
    fn from_address(address: &[u8]) -> Self {
        address
            .first_chunk()
            .map_or(0, |bytes| Self::from_be_bytes(*bytes))
    }

    fn mask(length: PrefixLength) -> Self {
        match length {
            PrefixLength::Ip4(net) => net.netmask().to_bits(),
            PrefixLength::Ip6(_) => 0,
        }
    }

    fn address(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self))
    }
}

/// An IPv6 prefix of at most 64 bits: half the key, and the usual case.
impl PrefixKey for u64 {
    const FAMILY: Family = Family::Ip6;
    const ZERO: Self = 0;

    #[inline]
    fn from_address(address: &[u8]) -> Self {
        address
            .first_chunk()
            .map_or(0, |bytes| Self::from_be_bytes(*bytes))
    }

    fn mask(length: PrefixLength) -> Self {
        // The upper half of the 128 bits.
        u64::try_from(<u128 as PrefixKey>::mask(length) >> 64).unwrap_or(0)
    }

    fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(u128::from(self) << 64))
    }
}

/// An IPv6 prefix of any length.
impl PrefixKey for u128 {
    const FAMILY: Family = Family::Ip6;
    const ZERO: Self = 0;

    #[inline]
    fn from_address(address: &[u8]) -> Self {
        address
            .first_chunk()
            .map_or(0, |bytes| Self::from_be_bytes(*bytes))
    }

    fn mask(length: PrefixLength) -> Self {
        match length {
            PrefixLength::Ip4(_) => 0,
            PrefixLength::Ip6(net) => net.netmask().to_bits(),
        }
    }

    fn address(self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip6(length: u8) -> PrefixLength {
        PrefixLength::new(Family::Ip6, length).unwrap()
    }

    #[test]
    fn a_prefix_length_must_fit_its_family() {
        assert!(PrefixLength::new(Family::Ip4, 32).is_ok());
        assert!(PrefixLength::new(Family::Ip4, 33).is_err());
        assert!(PrefixLength::new(Family::Ip6, 128).is_ok());
        assert!(PrefixLength::new(Family::Ip6, 129).is_err());
    }

    #[test]
    fn masks_cut_at_every_length() {
        for length in 0..=32 {
            let ip4 = PrefixLength::new(Family::Ip4, length).unwrap();
            assert_eq!(u32::mask(ip4).count_ones(), u32::from(length));
        }
        for length in 0..=128 {
            assert_eq!(u128::mask(ip6(length)).leading_ones(), u32::from(length));
            let upper = u32::from(length.min(64));
            assert_eq!(u64::mask(ip6(length)).leading_ones(), upper);
        }
    }

    #[test]
    fn both_ip6_keys_name_the_same_prefix() {
        let address: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let octets = address.octets();
        let half = u64::from_address(&octets) & u64::mask(ip6(56));
        let full = u128::from_address(&octets) & u128::mask(ip6(56));
        assert_eq!(half.address(), full.address());
        assert_eq!(full.address(), "2001:db8:1::".parse::<IpAddr>().unwrap());
    }
}
