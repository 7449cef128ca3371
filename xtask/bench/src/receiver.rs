//! One of those who are measured: its configuration, how it is started and what it has counted.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use serde::Deserialize;
use testkit::rows;

use crate::{
    setup::{Family, Setup},
    stage::{GROUP, Stage},
};

/// One of those who are measured.
pub(crate) trait Receiver {
    /// As it stands in the table and after `--receivers`.
    fn name(&self) -> &str;

    /// What the rule does with a packet behind its counter.
    fn statement(&self, setup: &Setup) -> String {
        log_statement(setup, GROUP)
    }

    /// Other objects of the rule's table.
    fn objects(&self, _setup: &Setup) -> String {
        String::new()
    }

    /// What to start, to be run in a directory of its own; nothing where the kernel does it all.
    fn command(&self, place: &Place<'_>) -> Result<Option<Command>>;

    /// The groups that it binds; none where there is no process.
    fn groups(&self) -> Vec<u16> {
        vec![GROUP]
    }

    /// How long it waits on purpose, after the end of a period, for packets that are still to come.
    fn settle_time(&self) -> Duration {
        Duration::ZERO
    }

    /// How it is asked to end.
    fn stop_signal(&self) -> Signal {
        Signal::TERM
    }

    /// What it says it has counted, once it has ended.
    fn counted(&self, place: &Place<'_>) -> Result<Counted>;

    /// Whether it sometimes does not end although all is written.
    fn may_hang(&self) -> bool {
        false
    }

    /// Whether the run times of its eBPF programs are wanted.
    fn has_bpf_programs(&self) -> bool {
        false
    }
}

/// Where one measurement takes place.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) setup: &'a Setup,
    /// After how many seconds those who write files of periods begin a new one.
    pub(crate) interval: u32,
    /// Empty at first; standard output and error go to files of these names.
    pub(crate) directory: &'a Path,
}

impl Place<'_> {
    pub(crate) fn stdout(&self) -> PathBuf {
        self.directory.join("stdout")
    }
}

/// What a receiver has counted.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(crate) struct Counted {
    pub(crate) packets: u64,
    /// Netlink datagrams, where it says so.
    pub(crate) datagrams: Option<u64>,
}

impl Counted {
    pub(crate) fn packets(packets: u64) -> Self {
        Self {
            packets,
            datagrams: None,
        }
    }
}

pub(crate) fn log_statement(setup: &Setup, group: u16) -> String {
    format!(
        "log group {group} snaplen {} queue-threshold {}",
        setup.family.snaplen(),
        setup.threshold
    )
}

/// The flag of acctd, and of go-nflog-acctd, for this family's source addresses.
pub(crate) fn source_group_flag(family: Family) -> &'static str {
    match family {
        Family::Ip4 => "-ip4-src-group",
        Family::Ip6 => "-ip6-src-group",
    }
}

/// The sum of a column over the CSV files of a directory.
pub(crate) fn sum_of_column(directory: &Path, title: &str) -> Result<u64> {
    let mut sum = 0;
    for path in rows::paths(directory)? {
        let mut reader = csv::Reader::from_path(&path)?;
        let column = reader
            .headers()?
            .iter()
            .position(|name| name.trim() == title);
        let column = column.with_context(|| format!("{}: no column {title}", path.display()))?;
        let mut record = csv::ByteRecord::new();
        while reader.read_byte_record(&mut record)? {
            let cell = record.get(column).context("a row is too short")?;
            sum += std::str::from_utf8(cell)?.trim().parse::<u64>()?;
        }
    }
    Ok(sum)
}
