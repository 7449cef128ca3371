//! IP prefixes. A prefix is the masked address, in the smallest integer that it fits into: 4 bytes for IPv4
//! instead of 17 for an `IpAddr`. This keeps a ledger of a million prefixes small.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::BitAnd;

use ipnet::{IpNet, PrefixLenError};
use serde::{Deserialize, Serialize};

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// RFC 791.
    Ip4,
    /// RFC 8200.
    Ip6,
}

impl Family {
    /// The version in the IP header, in flag names and in log lines: 4 or 6.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Ip4 => 4,
            Self::Ip6 => 6,
        }
    }

    /// How many bytes contain the addresses and the length: the IPv4 header without options, or the fixed
    /// IPv6 header.
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
    /// Its name in the columns and in go-nflog-acctd's log lines.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "Source",
            Self::Dest => "Dest",
        }
    }
}

/// A prefix length that is valid for its family.
///
/// Held as the network of this length at 0.0.0.0 or `::`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLength(IpNet);

impl PrefixLength {
    /// Fails if `length` is more than 32 (IPv4) or 128 (IPv6).
    pub fn new(family: Family, length: u8) -> Result<Self, PrefixLenError> {
        let zero = match family {
            Family::Ip4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::Ip6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        IpNet::new(zero, length).map(Self)
    }

    /// The length in bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0.prefix_len()
    }

    /// The family of the addresses.
    #[must_use]
    pub fn family(self) -> Family {
        match self.0 {
            IpNet::V4(_) => Family::Ip4,
            IpNet::V6(_) => Family::Ip6,
        }
    }
}

/// An integer that holds a masked address. Keys have the same order as their addresses.
pub trait PrefixKey: Copy + Ord + Hash + Debug + Send + BitAnd<Output = Self> + 'static {
    /// The family whose addresses it holds.
    const FAMILY: Family;

    /// The first bytes of an address in network order. The decoder ensures that `address` has the family's
    /// length; a shorter one gives zero.
    fn from_address(address: &[u8]) -> Self;

    /// The mask of this length: `key & mask` is the prefix. Zero if the length is of the other family.
    fn mask(length: PrefixLength) -> Self;

    /// The first address of the prefix.
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
        match length.0 {
            IpNet::V4(net) => net.netmask().to_bits(),
            IpNet::V6(_) => 0,
        }
    }

    fn address(self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self))
    }
}

/// An IPv6 prefix of at most 64 bits, which is the usual case.
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
        match length.0 {
            IpNet::V4(_) => 0,
            IpNet::V6(net) => net.netmask().to_bits(),
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
    fn both_ip6_keys_have_the_same_address() {
        let address: Ipv6Addr = "2001:db8:1:2:3:4:5:6".parse().unwrap();
        let octets = address.octets();
        let half = u64::from_address(&octets) & u64::mask(ip6(56));
        let full = u128::from_address(&octets) & u128::mask(ip6(56));
        assert_eq!(half.address(), full.address());
        assert_eq!(full.address(), "2001:db8:1::".parse::<IpAddr>().unwrap());
    }
}
