//! What is to be said of a running cross-check.

use std::time::Duration;

/// How an interface is checked, for whoever asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceState {
    /// Its name.
    pub interface: String,
    /// Whether acctd's programs are on it.
    pub is_attached: bool,
    /// What keeps its packets, or some of them, from being checked.
    pub trouble: Option<String>,
}

impl InterfaceState {
    /// Of one that acctd has not looked at, or does not look at any more.
    #[must_use]
    pub fn unattached(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            is_attached: false,
            trouble: None,
        }
    }
}

/// What a program has done, where the kernel measures it (`kernel.bpf_stats_enabled`).
#[derive(Clone, Copy, Debug)]
pub struct ProgramRun {
    /// Its name.
    pub program: &'static str,
    /// How often it ran.
    pub n_runs: u64,
    /// For how long.
    pub time: Duration,
}
