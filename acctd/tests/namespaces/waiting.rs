//! Waits: each ends when something is so, however long that takes on a machine that does other things too.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use acctd::output::checkpoint::{Checkpoint, Saved};
use acctd::restart::checksummed;
use anyhow::{Context as _, Result, bail};

use crate::rig::{Acctd, Rig};

/// Far more than anything takes that a test waits for, also on an emulated processor.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(5);

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > end {
            bail!("not so after {PATIENCE:?}: {what}");
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// So many lines of the log have this in them.
pub(crate) fn wait_for_lines(acctd: &Acctd, part: &str, count: usize) -> Result<()> {
    let n_lines = || acctd.count_lines(part);
    wait_until(&format!("{count} lines with {part:?}"), || {
        Ok(n_lines() >= count)
    })
    .with_context(|| acctd.log().join("\n"))
}

/// So many intervals more have their files.
pub(crate) fn wait_for_files(acctd: &Acctd, count: usize) -> Result<()> {
    const WRITTEN: &str = "Stats file";
    wait_for_lines(acctd, WRITTEN, acctd.count_lines(WRITTEN) + count)
}

/// acctd has read all that was logged until now: the kernel holds nothing back, and no socket has anything.
pub(crate) fn wait_until_all_is_read(acctd: &Acctd) -> Result<()> {
    /// `NETLINK_NETFILTER`, in the second column; the fifth is what waits, in bytes.
    const NETFILTER: &str = "12";
    let net = format!("/proc/{}/net", acctd.pid());
    wait_until("all is read", || {
        let groups = fs::read_to_string(format!("{net}/netfilter/nfnetlink_log"))?;
        let sockets = fs::read_to_string(format!("{net}/netlink"))?;
        let mut sockets = sockets
            .lines()
            .filter(|line| column(line, 1) == Some(NETFILTER));
        Ok(is_handed_over(&groups) && sockets.all(|line| column(line, 4) == Some("0")))
    })
}

/// The kernel holds nothing back of what was logged, be it read or not.
pub(crate) fn wait_until_handed_over(acctd: &Acctd) -> Result<()> {
    let table = format!("/proc/{}/net/netfilter/nfnetlink_log", acctd.pid());
    wait_until("the kernel has handed the last batch over", || {
        Ok(is_handed_over(&fs::read_to_string(&table)?))
    })
}

/// By the kernel's table of groups, whose third column are the packets of a batch that is not full.
pub(crate) fn is_handed_over(groups: &str) -> bool {
    groups.lines().all(|line| column(line, 2) == Some("0"))
}

fn column(line: &str, at: usize) -> Option<&str> {
    line.split_whitespace().nth(at)
}

/// There is a checkpoint with so many packets.
pub(crate) fn wait_until_saved(directory: &Path, packets: u64) -> Result<()> {
    wait_until(&format!("{packets} packets are in a checkpoint"), || {
        Ok(n_saved(directory)? >= packets)
    })
}

/// So many packets are in files.
pub(crate) fn wait_until_written(rig: &Rig, packets: u64) -> Result<()> {
    wait_until(&format!("{packets} packets are in files"), || {
        // A line may be half there.
        let in_files = rig.summed("source_packets");
        Ok(in_files.is_ok_and(|in_files| in_files >= packets))
    })
}

/// So many packets are in files, or in a checkpoint: no kill takes them away.
pub(crate) fn wait_until_kept(rig: &Rig, packets: u64) -> Result<()> {
    wait_until(&format!("{packets} packets are kept"), || {
        // A checkpoint has gone when its interval's line comes, so in this order none is counted twice.
        let in_files = rig.summed("source_packets").unwrap_or(0);
        Ok(in_files + n_saved(&rig.log_directory())? >= packets)
    })
}

/// Packets in the checkpoint that there is.
fn n_saved(directory: &Path) -> Result<u64> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|it| it != "checkpoint") {
            continue;
        }
        // It may be gone by now, with its interval.
        let Ok(bytes) = fs::read(&path) else {
            continue;
        };
        let saved = checksummed::read::<Saved>(&bytes).and_then(Checkpoint::from_saved);
        return Ok(saved.context("a checkpoint")?.n_packets());
    }
    Ok(0)
}
