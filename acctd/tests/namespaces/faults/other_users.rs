//! acctd as an ordinary user, and what root needs for an ordinary user's files.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Signal, getpriority_process};
use testkit::netns::Privilege;

use super::privilege::{
    DAC_OVERRIDE, FOR_A_CROSS_CHECK, NET_ADMIN, Rights, ensure_counted, ensure_cross_checked,
    ensure_each_thread_has, of_an_ordinary_user, some_traffic, warnings,
};
use crate::errors::{NOBODY, as_nobody_with, set_mode};
use crate::rig::{Acctd, LOG_AND_DROP, Rig};
use crate::waiting::{wait_for_lines, wait_until_saved};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "privileges_for_what_is_another_users_are_kept_and_that_is_said",
        what_is_another_users,
    ),
    (
        Needs::Root,
        "privileges_for_pins_in_another_users_directory_are_kept",
        pins_in_another_users_directory,
    ),
    (
        Needs::Root,
        "an_ordinary_user_with_cap_net_admin_counts_exactly",
        an_ordinary_user_counts,
    ),
    (
        Needs::Root,
        "an_ordinary_user_with_three_capabilities_cross_checks_exactly",
        an_ordinary_user_cross_checks,
    ),
];

fn make_for(path: &Path, owner: u32, mode: u32) -> Result<()> {
    fs::create_dir(path)?;
    chown(path, Some(owner), Some(owner))?;
    set_mode(path, mode)
}

/// Root needs a capability for that. A file that was opened at the start does not matter.
fn what_is_another_users() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    set_mode(rig.scratch(), 0o755)?;
    let directory = rig.log_directory();
    let theirs = rig.scratch().join("theirs");
    make_for(&directory, NOBODY, 0o755)?;
    make_for(&theirs, NOBODY, 0o755)?;
    let profile = format!("-cpuprofile={}", theirs.join("profile").display());
    let args = ["-interval=1s", "-ip4-src-group=5", &profile];
    let mut n_sent = 0;
    let mut run = |kept: Option<&Path>| -> Result<()> {
        let acctd = rig.acctd(&args)?;
        let also = kept.map_or(0, |_| DAC_OVERRIDE);
        ensure_each_thread_has(&acctd, Rights::only(NET_ADMIN | also))?;
        some_traffic(&rig, 10_000)?;
        n_sent += 10_000;
        let ended = acctd.finish()?;
        ensure!(warnings(&ended).is_empty(), "{:?}", ended.log);
        let said = ended.line("so acctd keeps CAP_DAC_OVERRIDE");
        ensure!(said.is_ok() == kept.is_some(), "{:?}", ended.log);
        if let (Some(path), Ok(said)) = (kept, said) {
            let expected = format!(
                "{} belongs to another user, so acctd keeps CAP_DAC_OVERRIDE to access it; to avoid that, chown it to uid 0",
                path.display()
            );
            ensure!(said.ends_with(&expected), "{said}");
        }
        for entry in fs::read_dir(&directory)? {
            let name = entry?.file_name();
            ensure!(
                !name.to_string_lossy().starts_with('.'),
                "{} is left",
                name.display()
            );
        }
        ensure_counted(&rig, n_sent)
    };
    run(Some(&directory))?;
    // As the line says.
    chown(&directory, Some(0), Some(0))?;
    run(None)?;
    let summaries = directory.join("intervals.jsonl");
    chown(&summaries, Some(NOBODY), Some(NOBODY))?;
    run(Some(&summaries))?;
    chown(&summaries, Some(0), Some(0))?;
    run(None)?;
    ensure!(fs::metadata(theirs.join("profile"))?.len() > 0);
    what_another_users_acctd_has_left(&rig, n_sent)
}

/// What it counted until it was killed is taken in.
fn what_another_users_acctd_has_left(rig: &Rig, n_before: u64) -> Result<()> {
    let directory = rig.log_directory();
    set_mode(&directory, 0o777)?;
    set_mode(&directory.join("intervals.jsonl"), 0o666)?;
    let mut theirs = as_nobody_with(rig, "+net_admin")?;
    theirs
        .args(["-interval=36500d", "-checkpoint=100ms", "-ip4-src-group=5"])
        .arg("-log-directory")
        .arg(&directory);
    let theirs = Acctd::spawn(&mut theirs)?;
    theirs.wait_for_line("Started accounting")?;
    some_traffic(rig, 1_000)?;
    wait_until_saved(&directory, 1_000)?;
    theirs.stop(Signal::KILL)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    acctd.wait_for_line(".checkpoint belongs to another user, so acctd keeps CAP_DAC_OVERRIDE")?;
    acctd.wait_for_line("1000 packets of the current interval are recovered")?;
    acctd.finish()?;
    ensure_counted(rig, n_before + 1_000)
}

fn pins_in_another_users_directory() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let bpffs = rig.scratch().join("bpf");
    fs::create_dir(&bpffs)?;
    let shown = bpffs.to_str().context("a path of ASCII")?;
    rig.router.run(&["mount", "-t", "bpf", "bpf", shown])?;
    rig.router.run(&["mkdir", &format!("{shown}/theirs")])?;
    rig.router
        .run(&["chown", "65534", &format!("{shown}/theirs")])?;
    for (directory, also) in [
        (format!("{shown}/theirs"), DAC_OVERRIDE),
        (format!("{shown}/theirs/below"), DAC_OVERRIDE),
        (format!("{shown}/ours"), 0),
        (shown.to_owned(), 0),
    ] {
        let pin = format!("-crosscheck-pin={directory}");
        let args = [
            "-interval=36500d",
            "-ip4-src-group=5",
            "-crosscheck=lan0",
            &pin,
        ];
        let acctd = rig.acctd(&args)?;
        let expected = Rights::only(FOR_A_CROSS_CHECK | also);
        ensure_each_thread_has(&acctd, expected).with_context(|| directory.clone())?;
        let pinned = || rig.router.run(&["ls", &directory]);
        ensure!(pinned()?.contains("ACCTD_EPOCHS"), "{}", pinned()?);
        acctd.finish()?;
        ensure!(!pinned()?.contains("ACCTD"), "{}", pinned()?);
    }
    Ok(())
}

const NO_PRIORITY: &str = "Failed to set priority -19: Permission denied (os error 13); packets may be lost sooner on a busy machine: grant CAP_SYS_NICE, raise LimitNICE (ulimit -e), or start with --priority 0";

fn an_ordinary_user_counts() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    set_mode(rig.scratch(), 0o777)?;
    let as_it_is = format!("-priority={}", getpriority_process(None)?);
    let mut n_sent = 0;
    for (capabilities, more, expected) in [
        // The buffer beyond net.core.rmem_max comes with CAP_NET_ADMIN, the priority does not.
        ("+net_admin", "-priority=-19", &[NO_PRIORITY][..]),
        // As the warning says.
        ("+net_admin,+sys_nice", "-priority=-19", &[]),
        ("+net_admin", &as_it_is, &[]),
    ] {
        let mut command = as_nobody_with(&rig, capabilities)?;
        command
            .args(["-interval=1s", "-ip4-src-group=5", more, "-log-directory"])
            .arg(rig.log_directory());
        let acctd = Acctd::spawn(&mut command)?;
        acctd.wait_for_line("Started accounting")?;
        ensure_each_thread_has(&acctd, of_an_ordinary_user(NET_ADMIN)?)?;
        some_traffic(&rig, 20_000)?;
        n_sent += 20_000;
        let ended = acctd.finish()?;
        ensure!(warnings(&ended) == expected, "{:?}", ended.log);
        ensure_counted(&rig, n_sent)?;
    }
    Ok(())
}

fn an_ordinary_user_cross_checks() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    set_mode(rig.scratch(), 0o777)?;
    let mut command = as_nobody_with(&rig, "+net_admin,+bpf,+perfmon")?;
    command
        .args(["-interval=1s", "-ip4-src-group=5", "-crosscheck=lan0"])
        .arg("-log-directory")
        .arg(rig.log_directory());
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    ensure_each_thread_has(&acctd, of_an_ordinary_user(FOR_A_CROSS_CHECK)?)?;
    some_traffic(&rig, 20_000)?;
    wait_for_lines(&acctd, "Stats file", 2)?;
    let ended = acctd.finish()?;
    ensure!(warnings(&ended) == [NO_PRIORITY], "{:?}", ended.log);
    ensure_cross_checked(&rig, 20_000)
}
