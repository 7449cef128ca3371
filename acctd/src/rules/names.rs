//! Names of what acctd loads into the firewall.

/// What the names of chains of ours begin with.
pub const OURS: &str = "ACCTD-";
