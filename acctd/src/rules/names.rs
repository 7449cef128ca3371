//! Names in the rules that acctd loads.

/// Of acctd's chains in iptables.
pub(crate) const CHAIN_PREFIX: &str = "ACCTD-";
