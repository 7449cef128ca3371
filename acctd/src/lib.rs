//! acctd: IP accounting from NFLOG groups into one CSV per interval.
//!
//! ```text
//!  nft/iptables log rule ─► netlink datagram
//!                              │  nflog          socket, messages, attributes, IP header
//!                              ▼
//!                            count               the period of each packet's time stamp,
//!                              │                 prefix → bytes, packets; one task per group
//!                              ▼
//!                            close               when a period is over, and what is in it
//!                              │                 (and what TC counted: crosscheck)
//!                              ▼
//!                            output              rows sorted and merged, CSV, intervals.jsonl
//! ```
//!
//! Imports go one way: down the order of modules below. ARCHITECTURE.md says why.

pub mod archive;
pub mod cli;
pub mod doctor;
pub mod explain;
pub mod report;
pub mod rules;
pub mod ship;
pub mod top;

pub mod daemon;

pub(crate) mod client;
pub mod close;
pub(crate) mod files;
pub mod process;
pub mod restart;
pub(crate) mod startup;

pub mod count;
pub mod crosscheck;
pub mod nflog;
pub mod observe;
pub mod output;
pub(crate) mod sampling;

pub mod config;
pub mod model;

pub(crate) mod fault_points;
#[cfg(test)]
mod parity;
#[cfg(test)]
mod testing;
