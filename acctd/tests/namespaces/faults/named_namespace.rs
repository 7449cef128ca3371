//! A network namespace with a name is deleted and created again: acctd follows it, or ends and says why.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};
use testkit::process;

use super::kernel::{ONE_INTERVAL, gaps};
use crate::rig::{Acctd, Rig, totals};
use crate::waiting::{is_handed_over, wait_for_lines, wait_until};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "the_namespace_of_the_group_is_deleted_and_made_again",
        the_namespace_is_made_again,
    ),
    (
        Needs::Root,
        "the_namespace_of_a_cross_check_is_deleted_and_made_again",
        the_namespace_of_a_cross_check_is_made_again,
    ),
    (
        Needs::Root,
        "the_namespace_is_made_again_and_acctd_may_not_enter_it",
        acctd_may_not_enter,
    ),
];

/// A namespace with a name, as `ip netns` makes them, gone when dropped.
pub(super) struct Named(String);

impl Named {
    pub(super) fn make() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let named = Self(format!("acctd-test-{}-{number}", std::process::id()));
        named.add()?;
        Ok(named)
    }

    fn add(&self) -> Result<()> {
        process::output(Command::new("ip").args(["netns", "add", &self.0]))?;
        self.run(&["ip", "link", "set", "lo", "up"])?;
        let rules = "table inet rig {
            counter v4 {}
            chain input {
                type filter hook input priority 0
                ip protocol icmp counter name v4 log group 5 snaplen 20 queue-threshold 50
            }
        }";
        self.run(&["nft", rules])?;
        Ok(())
    }

    fn delete(&self) -> Result<()> {
        process::output(Command::new("ip").args(["netns", "del", &self.0]))?;
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["netns", "exec", &self.0])
            .args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        process::output(&mut self.command(words))
    }

    /// So many requests and as many replies, of 84 bytes.
    fn ping(&self, count: u32) -> Result<()> {
        let count = count.to_string();
        self.run(&["ping", "-q", "-c", &count, "-i", "0.01", "127.0.0.1"])?;
        wait_until("the kernel has handed the last batch over", || {
            let groups = self.run(&["cat", "/proc/net/netfilter/nfnetlink_log"])?;
            Ok(is_handed_over(&groups))
        })
    }

    pub(super) fn acctd(&self, rig: &Rig, before: &[&str]) -> Result<Acctd> {
        let mut command = self.command(before);
        command
            .arg(rig.acctd_path())
            .args(ONE_INTERVAL)
            .arg("-log-directory")
            .arg(rig.log_directory());
        let acctd = Acctd::spawn(&mut command)?;
        acctd.wait_for_line("Started accounting")?;
        Ok(acctd)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // A test that failed in between has no namespace.
        let _gone = self.delete();
    }
}

fn the_namespace_is_made_again() -> Result<()> {
    let rig = Rig::new()?;
    let named = Named::make()?;
    let acctd = named.acctd(&rig, &[])?;
    named.ping(10)?;
    named.delete()?;
    acctd.wait_for_line("is gone: nothing more is logged there")?;
    // Twice, so that it is followed from one to the next.
    for round in 1..=2 {
        named.add()?;
        acctd.wait_for_line("deleted and created again")?;
        wait_for_lines(&acctd, "is bound again", round)?;
        named.ping(10)?;
        if round == 1 {
            named.delete()?;
        }
    }
    acctd.finish()?;
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(
        (counted.packets, counted.bytes) == (60, 60 * 84),
        "{counted:?}"
    );
    let summaries = rig.summaries()?;
    let gaps = summaries[0]["gaps"].as_array().context("no gaps")?;
    ensure!(gaps.len() == 2, "{gaps:?}");
    Ok(())
}

/// Its interfaces are not those of the new one, so accounting continues alone.
fn the_namespace_of_a_cross_check_is_made_again() -> Result<()> {
    let rig = Rig::new()?;
    let named = Named::make()?;
    let acctd = named.acctd(&rig, &["env", "ACCTD_CROSSCHECK=lo"])?;
    named.ping(10)?;
    named.delete()?;
    named.add()?;
    acctd.wait_for_line(
        "the cross-check has failed: its interfaces went with their network namespace",
    )?;
    acctd.wait_for_line("is bound again")?;
    named.ping(10)?;
    acctd.finish()?;
    let summaries = rig.summaries()?;
    ensure!(summaries.len() == 1, "{summaries:?}");
    ensure!(
        summaries[0]["source_packets"] == 40 && summaries[0]["crosscheck"]["comparable"] == false,
        "{summaries:?}"
    );
    ensure!(gaps(&rig, "unbound")?.len() == 1, "{summaries:?}");
    Ok(())
}

fn acctd_may_not_enter() -> Result<()> {
    let rig = Rig::new()?;
    let named = Named::make()?;
    let acctd = named.acctd(&rig, &["setpriv", "--bounding-set=-sys_admin", "--"])?;
    named.ping(10)?;
    named.delete()?;
    named.add()?;
    let ended = acctd.wait()?;
    ensure!(ended.code == Some(1), "{:?}", ended.log);
    let error = ended.line("error: ")?;
    ensure!(
        error.contains(
            "was deleted and created again, and cannot be entered: Operation not permitted"
        ) && error.contains("start acctd again"),
        "{error}"
    );
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(counted.packets == 20, "{counted:?}");
    Ok(())
}
