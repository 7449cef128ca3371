//! The configuration of a run. [`Config::resolve`] makes it from flags and checks that they fit together.

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

/// The configuration of a run.
#[derive(Clone, Debug)]
pub struct Config {
    /// At least one, no group twice, in the order in which go-nflog-acctd opens them.
    pub groups: Vec<GroupConfig>,
    /// The most prefixes in each group's ledger.
    pub max_prefixes: usize,
    /// The length of an interval; each has a file.
    pub interval: Interval,
    /// How often to save the open interval; `None` for never.
    pub checkpoint: Option<Duration>,
    /// The most rows that wait for the disk before intervals are merged.
    pub backlog: usize,
    /// Where to write the files.
    pub log_directory: PathBuf,
    /// Of file names and rows.
    pub zone: Zone,
    /// Log to syslog instead of stderr.
    pub syslog: bool,
    /// Log more details; `debug` implies it.
    pub verbose: bool,
    /// Log each packet.
    pub debug: bool,
    /// Where to answer over HTTP; may be empty.
    pub listen: Vec<ListenAddress>,
    /// How many threads read groups.
    pub n_threads: usize,
    /// The nice value of the process.
    pub priority: i32,
    /// The user to become at the start, if any.
    pub user: Option<User>,
    /// Where to write a CPU profile, if one is wanted.
    pub cpuprofile: Option<PathBuf>,
    /// How long the kernel may hold packets back before it sends its batch.
    pub flush_timeout: Duration,
    /// `None` if there is no cross-check.
    pub crosscheck: Option<CrossCheckConfig>,
}

impl Config {
    /// The lowest group. It is part of the names of temporary files and checkpoints, so that several
    /// acctd can share a log directory.
    #[must_use]
    pub fn tag(&self) -> NflogGroup {
        // There is at least one.
        let groups = self.groups.iter().map(|group| group.group);
        groups.min().unwrap_or(NflogGroup(0))
    }
}
