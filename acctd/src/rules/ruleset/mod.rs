//! The loaded rules of nft and iptables as a graph, and which packets reach those that log to an NFLOG group. Pure: the
//! output of the programs is passed in.
//!
//! ```text
//!  nft -j list ruleset ─► nft ──────┐
//!                                   ├─► model ─► walk ─► log rules, with their conditions and the verdicts before them
//!  iptables-…-save ─────► iptables ─┘
//! ```
//!
//! nft also prints tables of iptables-nft, but not always in full. Such tables are read from `iptables-nft-save`, and
//! those of iptables-legacy from `iptables-legacy-save`.

pub(crate) mod condition;
mod earlier;
mod iptables;
pub(crate) mod log_rule;
pub(crate) mod model;
mod nft;
mod nft_text;
pub(crate) mod reading;
mod sets;
mod walk;

#[cfg(test)]
mod tests;
