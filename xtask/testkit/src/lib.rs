//! What acctd's demo, tests and benchmarks stand on: throwaway network
//! namespaces, the packet counters of nftables as an independent witness, and
//! a traffic generator that says exactly what it sent.
//!
//! ```text
//! netns ─► Namespace ── veth pair ── Namespace     (no root needed: a user namespace will do)
//!             │ traffic: frames ─────► │ nft: counters
//! ```
//!
//! This crate must build before `cargo xtask setup` has run, so it depends
//! neither on acctd nor on anything that links a C library of netfilter's.

#![allow(
    missing_docs,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    reason = "nobody outside of this workspace uses it"
)]

pub mod cgroup;
pub mod process;
pub mod usage;

pub mod debian;
pub mod programs;
pub mod python;
pub mod unpacked;

pub mod netns;
pub mod veth;

pub mod group_socket;
pub mod nft;
pub mod rows;

pub mod craft;
pub mod mac;
#[expect(
    unsafe_code,
    reason = "packet socket addresses and options exist only in the C interface"
)]
mod packet_socket;
pub mod traffic;

pub mod link;

pub mod daemon;
pub mod interrupt;
pub mod print;
pub mod table;
