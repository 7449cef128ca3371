//! The cross-check: a TC program counts the same prefixes in the kernel, and both numbers stand
//! beside each other in the same file. This is the one door to eBPF; without `--crosscheck` nothing
//! here runs.
//!
//! ```text
//!  packets ─► TC program ─► epoch map ─► epochs (drain) ─► counts ─► reconcile ─► verdicts in the rows
//!             interfaces, object         stamps, vlans               (with the ledgers of NFLOG)
//! ```

pub mod addresses;
pub mod attach;
#[expect(unsafe_code, reason = "bpf(2) has no safe interface")]
pub mod bpf_syscall;
pub mod claims;
pub mod clsact;
pub mod delays;
pub mod device_map;
pub mod epochs;
pub mod interfaces;
pub mod link_events;
pub mod object;
pub mod outcome;
pub mod pins;
pub mod reconcile;
pub mod report;
pub mod session;
pub mod stamps;
pub mod tc_netlink;
pub mod verdicts;
pub mod vlans;
