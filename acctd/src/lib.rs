//! acctd: IP accounting from NFLOG groups into one CSV per interval.
//!
//! ```text
//!  nft/iptables log rule ─► netlink datagram
//!                              │  nflog_socket   receive, one task per group (reader)
//!                              ▼  decode         messages, attributes, IP header
//!                           accumulator          the period of each packet's time stamp
//!                              │  ledger         prefix → bytes, packets
//!                              ▼  timeline       when a period is over
//!                            engine              ledgers handed over whole
//!                              │                 (and what TC counted: crosscheck)
//!                              ▼  rows           sorted and merged
//!                            writer ─► csv_writer, summary
//! ```
//!
//! The arrows run one way: nothing below reaches back into what is above it. ARCHITECTURE.md has
//! the reasons.

pub mod cli;
pub mod config;
pub mod go_flags;

#[expect(
    unsafe_code,
    reason = "takes descriptors over that are known by their numbers"
)]
pub mod inherited;
pub mod network_namespace;
#[expect(
    unsafe_code,
    reason = "borrows the descriptor that the nflog crate gives as a number"
)]
pub mod nflog_socket;
pub mod nflog_table;
pub mod preflight;
pub mod privilege;
#[expect(
    unsafe_code,
    reason = "hands values and what they point to to setsockopt, and a buffer to getsockopt"
)]
pub mod socket_option;

pub mod decode;
pub mod prefix;

pub mod counts;
pub mod ledger;

pub mod accumulator;
pub mod binding;
pub mod checkpoint;
pub mod handover;
pub mod interval;
pub mod overruns;
pub mod pace;
pub mod reader;
pub mod timeline;

pub mod crosscheck;

pub mod coarsen;
pub mod commit;
pub mod csv_writer;
pub mod directory_lock;
pub(crate) mod fault_points;
pub mod human;
pub mod log_directory;
pub mod naming;
pub mod recovery;
pub mod rows;
pub mod rule_watch;
pub mod sealed;
pub mod summary;
pub mod time_zone;
pub mod whole_file;
pub mod writer;

pub mod doctor;
pub mod external;
pub mod rules;
pub mod status;

pub mod listen;
pub mod metrics;
pub mod process_usage;
pub mod vitals;

pub mod daemon;
pub mod engine;
pub mod logging;
pub mod monitor;
pub mod profile;
pub mod service_manager;
pub mod shutdown;
pub mod user;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod testing;
