//! The cross-check: a TC program counts the same prefixes in the kernel, and the file has both counts in
//! each row. No other folder uses eBPF, and without `--crosscheck` nothing here runs.
//!
//! ```text
//!  packets ─► TC program ─► epoch map ─► epochs (drain) ─► counts ─► reconcile ─► verdicts in the rows
//!             interfaces, object         stamps, vlans               (with the ledgers of NFLOG)
//! ```

pub(crate) mod addresses;
pub(crate) mod attach;
#[expect(unsafe_code, reason = "bpf(2) has no safe interface")]
pub(crate) mod bpf_syscall;
pub(crate) mod claims;
pub(crate) mod clsact;
pub(crate) mod delays;
pub(crate) mod device_map;
pub(crate) mod epoch_map;
pub(crate) mod epochs;
pub(crate) mod interfaces;
pub(crate) mod link_events;
pub mod object;
pub(crate) mod outcome;
pub(crate) mod pins;
pub(crate) mod reconcile;
pub mod report;
pub(crate) mod sampler;
pub(crate) mod session;
pub(crate) mod tc_netlink;
pub mod verdicts;
pub(crate) mod vlans;
