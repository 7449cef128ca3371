//! If a file cannot be written, it is written later, or acctd reports what is lost.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use testkit::netns::Namespace;
use testkit::traffic::TrafficArgs;

use crate::errors::fails;
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "a_full_disk_delays_files_and_loses_nothing",
        a_full_disk_delays_files,
    ),
    (
        Needs::Namespace,
        "a_file_size_limit_delays_files_and_loses_nothing",
        a_file_size_limit_delays_files,
    ),
    (
        Needs::Namespace,
        "a_disk_that_stays_full_ends_in_an_error_that_says_what_is_lost",
        a_disk_that_stays_full,
    ),
    (
        Needs::Namespace,
        "a_summary_file_that_cannot_be_written_holds_up_no_csv",
        a_summary_file_that_cannot_be_written,
    ),
    (
        Needs::Namespace,
        "a_log_directory_that_was_removed_is_made_again",
        a_log_directory_that_was_removed,
    ),
];

pub(crate) fn mount_tmpfs(namespace: &Namespace, rig: &Rig, options: &str) -> Result<()> {
    let directory = rig.log_directory();
    fs::create_dir_all(&directory)?;
    let directory = directory.to_str().context("a path of ASCII")?;
    namespace.run(&["mount", "-t", "tmpfs", "-o", options, "none", directory])?;
    Ok(())
}

pub(crate) fn fill(rig: &Rig) -> Result<()> {
    let filler = rig.log_directory().join("filler");
    let filler = filler.to_str().context("a path of ASCII")?;
    // Until nothing is left, to the last byte.
    let script = format!("cat /dev/zero > {filler} 2>/dev/null; test -s {filler}");
    rig.router.run(&["sh", "-c", &script])?;
    Ok(())
}

fn a_full_disk_delays_files() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    fill(&rig)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5"])?;
    let traffic = TrafficArgs {
        sources: 100,
        rate: 10_000,
        count: 40_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    };
    rig.send(&traffic)?;
    let warning = acctd.wait_for_line("No space left on device")?;
    ensure!(
        warning.contains("are not written; counting continues"),
        "{warning}"
    );
    let directory = rig.log_directory();
    let shown = directory.to_str().context("a path of ASCII")?;
    // The directory's contents are only seen from within the mount namespace.
    let listed = rig.router.run(&["ls", shown])?;
    ensure!(
        listed
            .split_whitespace()
            .all(|name| name == "filler" || name == "intervals.jsonl"),
        "{listed}"
    );
    rig.router.run(&["rm", &format!("{shown}/filler")])?;
    acctd.wait_for_line("Stats file")?;
    acctd.finish()?;
    copy_out(&rig)?;
    let files = rig.files()?;
    crate::rig::ensure_contiguous(&files)?;
    let (counted, ip4) = (totals(&files, true), rig.counter("v4")?);
    ensure!(
        ip4.packets == 40_000 && counted == (ip4, NONE),
        "{counted:?} != {ip4:?}"
    );
    ensure!(rig.summaries()?.len() == files.len());
    Ok(())
}

/// `ulimit -f` or systemd's `LimitFSIZE=`: the kernel kills who does not handle SIGXFSZ.
fn a_file_size_limit_delays_files() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let mut command = rig.router.command("sh");
    command
        // In blocks of 512 bytes: too few for a file with 1,000 rows, enough for the lines of many empty intervals.
        .args(["-c", "ulimit -S -f 16 && exec \"$0\" \"$@\""])
        .arg(rig.acctd_path())
        .args(["-interval=1s", "-ip4-src-group=5", "-log-directory"])
        .arg(rig.log_directory());
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    let traffic = TrafficArgs {
        sources: 1_000,
        count: 1_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    };
    rig.send(&traffic)?;
    let warning = acctd.wait_for_line("packets) are not written; counting continues")?;
    ensure!(warning.contains("File too large"), "{warning}");
    rig.send(&traffic)?;
    lift_file_size_limit(acctd.pid())?;
    acctd.finish()?;
    let files = rig.files()?;
    crate::rig::ensure_contiguous(&files)?;
    let (counted, ip4) = (totals(&files, true), rig.counter("v4")?);
    ensure!(
        ip4.packets == 2_000 && counted == (ip4, NONE),
        "{counted:?} != {ip4:?}"
    );
    ensure!(rig.summaries()?.len() == files.len());
    Ok(())
}

fn lift_file_size_limit(pid: u32) -> Result<()> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(pid, Resource::Fsize, unlimited).context("prlimit")?;
    Ok(())
}

/// Copies the log directory of the mount namespace to where the test sees it.
pub(crate) fn copy_out(rig: &Rig) -> Result<()> {
    let directory = rig.log_directory();
    let shown = directory.to_str().context("a path of ASCII")?;
    let script = format!(
        "cp -r {shown} {shown}.copy && umount {shown} && mv {shown}.copy/* {shown} && rmdir {shown}.copy"
    );
    rig.router.run(&["sh", "-c", &script])?;
    Ok(())
}

fn a_disk_that_stays_full() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=64k")?;
    fill(&rig)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    rig.send(&TrafficArgs {
        count: 100,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    let ended = acctd.stop(rustix::process::Signal::TERM)?;
    ensure!(ended.code == Some(1), "{:?}", ended.log);
    ensure!(
        ended.took > Duration::from_secs(5),
        "it gave up after {:?}",
        ended.took
    );
    let error = ended.line("error: ")?;
    ensure!(error.contains("No space left on device"), "{error}");
    ensure!(
        error.contains("1 intervals (100 packets) are not written; gave up"),
        "{error}"
    );
    Ok(())
}

fn a_summary_file_that_cannot_be_written() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let summary = rig.log_directory().join("intervals.jsonl");
    fs::create_dir_all(&summary)?;
    fails(&rig, &["-ip4-src-group=5"], 1, "cannot append to")?;
    fs::remove_dir(&summary)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5"])?;
    wait_until("it is there", || Ok(summary.exists()))?;
    let aside = rig.scratch().join("aside");
    fs::create_dir(&aside)?;
    // At once, because acctd appends at any time.
    renameat_with(CWD, &aside, CWD, &summary, RenameFlags::EXCHANGE)?;
    rig.send(&TrafficArgs {
        count: 3_000,
        rate: 1_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.wait_for_line("whose files are complete; counting continues")?;
    fs::remove_dir(&summary)?;
    acctd.finish()?;
    let files = rig.files()?;
    crate::rig::ensure_contiguous(&files)?;
    ensure!(totals(&files, true) == (rig.counter("v4")?, NONE));
    // The lines were written later, except those in the file that was put aside.
    let n_aside = fs::read_to_string(&aside)?.lines().count();
    ensure!(rig.summaries()?.len() + n_aside == files.len());
    Ok(())
}

fn a_log_directory_that_was_removed() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    let mode =
        || -> Result<u32> { Ok(fs::metadata(rig.log_directory())?.permissions().mode() & 0o777) };
    ensure!(mode()? == 0o750, "{:o}", mode()?);
    fs::remove_dir_all(rig.log_directory())?;
    rig.send(&TrafficArgs {
        count: 100,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.finish()?.line("was missing and is created again")?;
    ensure!(mode()? == 0o750, "{:o}", mode()?);
    ensure!(totals(&rig.files()?, true) == (rig.counter("v4")?, NONE));
    Ok(())
}
