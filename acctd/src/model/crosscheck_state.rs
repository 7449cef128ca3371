//! The state of a running cross-check, for status and metrics.

use std::time::Duration;

/// Whether an interface is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceState {
    /// The interface's name.
    pub interface: String,
    /// Whether the programs are attached to it.
    pub is_attached: bool,
    /// Why its packets, or some of them, are not checked.
    pub problem: Option<String>,
}

impl InterfaceState {
    /// An interface before the first attempt to attach, or after the cross-check has ended.
    #[must_use]
    pub fn unattached(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            is_attached: false,
            problem: None,
        }
    }
}

/// How often a program ran and how long it took. The kernel measures it if `kernel.bpf_stats_enabled` is set.
#[derive(Clone, Copy, Debug)]
pub struct ProgramRun {
    /// The program's name.
    pub program: &'static str,
    /// Since it was loaded.
    pub n_runs: u64,
    /// The sum over all runs.
    pub time: Duration,
}
