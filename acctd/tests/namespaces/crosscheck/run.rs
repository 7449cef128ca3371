//! One run of acctd with a cross-check, in a single interval, and all that it wrote.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::nft::Count;

use super::{Checked, CheckedRow, checked, sum};
use crate::rig::{NONE, Rig};

/// What a run has come to.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) interval: Checked,
    /// acctd's own log.
    pub(super) log: Vec<String>,
}

impl Run {
    /// Starts acctd with these flags, has `traffic` happen, and reads what acctd wrote, which is
    /// then removed.
    pub(super) fn of(
        rig: &Rig,
        args: &[&str],
        traffic: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let acctd = rig.acctd(&[&["-interval=36500d", "-utc"], args].concat())?;
        traffic()?;
        // What comes just before the end is uncertain, where it has no stamp that both sides share.
        thread::sleep(Duration::from_millis(300));
        let log = acctd.finish()?.log;
        let mut intervals = checked(rig)?;
        std::fs::remove_dir_all(rig.log_directory())?;
        let interval = intervals.pop().context("an interval")?;
        ensure!(intervals.is_empty(), "not at midnight, please");
        ensure!(interval.lost == 0 && interval.crosscheck.comparable);
        ensure!(interval.crosscheck.allowed == 0, "{interval:?}");
        Ok(Self { interval, log })
    }

    pub(super) fn rows(&self) -> BTreeMap<IpAddr, CheckedRow> {
        let rows = self.interval.rows.iter();
        rows.map(|row| (row.ip, row.clone())).collect()
    }

    /// The sum of one column over the rows of a family.
    pub(super) fn total(&self, ip4: bool, column: fn(&CheckedRow) -> Count) -> Count {
        let rows = self.interval.rows.iter();
        sum(rows.filter(|row| row.ip.is_ipv4() == ip4), column)
    }

    /// Packets without a prefix, by reason.
    pub(super) fn uncounted(&self) -> &BTreeMap<String, Count> {
        &self.interval.crosscheck.uncounted
    }

    pub(super) fn explained_by_fragments(&self) -> u64 {
        self.interval.crosscheck.explained_by_fragments
    }

    /// The log line with this in it.
    pub(super) fn line(&self, part: &str) -> Result<&str> {
        let mut lines = self.log.iter().map(String::as_str);
        lines
            .find(|line| line.contains(part))
            .with_context(|| format!("no line with {part:?} in the log:\n{}", self.log.join("\n")))
    }
}

/// A row whose packets came from it: NFLOG's count, the kernel's, and the verdict.
pub(super) fn from(ip: IpAddr, source: Count, tc_source: Count, verdict: &str) -> CheckedRow {
    CheckedRow {
        ip,
        source,
        tc_source,
        dest: NONE,
        tc_dest: NONE,
        verdict: verdict.to_owned(),
        wire: None,
    }
}

/// The same for packets that went to it.
pub(super) fn to(ip: IpAddr, dest: Count, tc_dest: Count, verdict: &str) -> CheckedRow {
    CheckedRow {
        ip,
        source: NONE,
        tc_source: NONE,
        dest,
        tc_dest,
        verdict: verdict.to_owned(),
        wire: None,
    }
}

pub(super) fn count(packets: u64, bytes: u64) -> Count {
    Count { packets, bytes }
}

pub(super) fn add(sum: &mut Count, count: Count) {
    sum.packets += count.packets;
    sum.bytes += count.bytes;
}

/// `after` less `before`.
pub(super) fn since(before: Count, after: Count) -> Count {
    count(after.packets - before.packets, after.bytes - before.bytes)
}
