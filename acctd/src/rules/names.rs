//! Names of what acctd loads into the firewall.

/// What the names of chains of ours begin with.
pub(crate) const CHAIN_PREFIX: &str = "ACCTD-";
