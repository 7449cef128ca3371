//! What the command line means: everything downstream takes a [`Config`], whose values are
//! possible and fit together.

pub mod crosscheck;
pub mod listen_address;

use std::path::PathBuf;
use std::time::Duration;

use crate::config::crosscheck::CrossCheckConfig;
use crate::config::listen_address::ListenAddress;
use crate::model::group::{GroupConfig, NflogGroup};
use crate::model::interval::Interval;
use crate::model::zone::Zone;
use crate::process::user::User;

/// A run of acctd, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The groups, in the order in which go-nflog-acctd opens them. No group stands in it twice.
    pub groups: Vec<GroupConfig>,
    /// The most prefixes in one group's ledger.
    pub max_prefixes: usize,
    /// The length of a period.
    pub interval: Interval,
    /// How often what is open is saved; `None` for never.
    pub checkpoint: Option<Duration>,
    /// The most rows that wait for the disk before intervals are put together.
    pub backlog: usize,
    /// Where the files go.
    pub log_directory: PathBuf,
    /// The time zone of file names and rows.
    pub zone: Zone,
    /// Syslog instead of stderr.
    pub syslog: bool,
    /// More in the log.
    pub verbose: bool,
    /// Each packet in the log.
    pub debug: bool,
    /// Where to answer over HTTP; nowhere if empty.
    pub listen: Vec<ListenAddress>,
    /// Threads that read groups.
    pub n_threads: usize,
    /// Nice value.
    pub priority: i32,
    /// Who to become; nobody else if there is none.
    pub user: Option<User>,
    /// Where the CPU profile goes.
    pub cpuprofile: Option<PathBuf>,
    /// How long the kernel may hold packets back before it hands its batch over.
    pub flush_timeout: Duration,
    /// The cross-check, if there is one.
    pub crosscheck: Option<CrossCheckConfig>,
}

impl Config {
    /// The lowest group: by it, processes that share a log directory tell their files apart.
    #[must_use]
    pub fn tag(&self) -> NflogGroup {
        // There is at least one.
        let groups = self.groups.iter().map(|group| group.group);
        groups.min().unwrap_or(NflogGroup(0))
    }
}
