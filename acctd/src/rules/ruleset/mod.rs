//! The rules that are loaded, by nft and by iptables, and where a packet meets those that log to an NFLOG
//! group. Pure: what the programs print is passed in.
//!
//! ```text
//!  nft -j list ruleset ─► nft ──────┐
//!                                   ├─► model ─► walk ─► log rules, each with what must hold and what is before it
//!  iptables-…-save ─────► iptables ─┘
//! ```
//!
//! nft also prints what iptables-nft has loaded, but not in full: such tables are read from what
//! `iptables-nft-save` prints. The rules of the older iptables come from `iptables-legacy-save`.

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
