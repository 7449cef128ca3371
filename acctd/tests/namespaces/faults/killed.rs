//! acctd is killed: what is saved is there once, and what is not is no more than a checkpoint's worth.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use testkit::traffic::TrafficArgs;

use crate::errors::fails;
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, read_files, totals};
use crate::waiting::{wait_until, wait_until_kept, wait_until_saved};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::FaultPoints,
        "killed_between_any_two_steps_of_writing_each_interval_is_there_once",
        killed_between_any_two_steps_of_writing,
    ),
    (
        Needs::FaultPoints,
        "killed_while_it_recovers_each_interval_is_there_once",
        killed_while_it_recovers,
    ),
    (
        Needs::FaultPoints,
        "killed_while_it_saves_the_checkpoint_before_holds",
        killed_while_it_saves,
    ),
    (
        Needs::Namespace,
        "killed_and_started_again_the_interval_goes_on_with_a_gap",
        the_interval_goes_on,
    ),
    (
        Needs::Namespace,
        "killed_and_started_with_other_flags_the_interval_has_a_file_of_its_own",
        other_flags,
    ),
    (
        Needs::Namespace,
        "a_damaged_or_foreign_checkpoint_is_set_aside",
        a_damaged_checkpoint,
    ),
    (
        Needs::Namespace,
        "a_second_acctd_for_the_same_directory_is_refused_with_the_pid_of_the_first",
        a_second_acctd,
    ),
    (
        Needs::Namespace,
        "a_clean_stop_leaves_no_checkpoint",
        a_clean_stop,
    ),
    (
        Needs::Root,
        "killed_with_a_cross_check_what_is_recovered_is_not_checked",
        with_a_cross_check,
    ),
];

pub(super) const ONE_INTERVAL: &[&str] =
    &["-interval=36500d", "-checkpoint=100ms", "-ip4-src-group=5"];

/// Each file has one line, with the same sums.
pub(super) fn ensure_files_and_lines_agree(rig: &Rig) -> Result<()> {
    let files = rig.files()?;
    let summaries = rig.summaries()?;
    ensure!(summaries.len() == files.len(), "{summaries:?}");
    let directory = rig.log_directory();
    for summary in &summaries {
        let name = summary["file"].as_str().context("a name")?;
        let path = directory.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        ensure!(text.ends_with('\n'), "{name} is torn");
        let rows = u64::try_from(text.lines().count())? - 1;
        ensure!(summary["rows"] == rows, "{name}: {rows} rows, {summary}");
    }
    Ok(())
}

/// acctd with a fault, until it is counting or has been killed.
fn faulty(rig: &Rig, point: &str, args: &[&str]) -> Result<Acctd> {
    Acctd::spawn(rig.acctd_command().env("ACCTD_KILL_AT", point).args(args))
}

pub(super) fn ensure_killed(acctd: Acctd, point: &str) -> Result<()> {
    let ended = acctd.wait()?;
    ensure!(
        ended.code.is_none(),
        "{point} was not reached: {:?}",
        ended.log
    );
    Ok(())
}

pub(super) fn wait_for_checkpoint(rig: &Rig) -> Result<()> {
    wait_until("there is a checkpoint", || {
        Ok(n_with_ending(rig, "checkpoint")? > 0)
    })
}

fn n_with_ending(rig: &Rig, ending: &str) -> Result<usize> {
    let names = names(&rig.log_directory())?;
    let with_ending = names
        .iter()
        .filter(|name| Path::new(name).extension().is_some_and(|it| it == ending));
    Ok(with_ending.count())
}

pub(super) fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

pub(super) fn send(rig: &Rig, count: u64) -> Result<()> {
    rig.send(&TrafficArgs {
        sources: 10,
        count,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    Ok(())
}

/// In the order in which they are reached.
const STEPS: [&str; 8] = [
    "created",
    "prepared",
    "recorded",
    "renamed",
    "published",
    "retired",
    "line",
    "forgotten",
];

/// Sends, waits until all of it is saved, and has acctd killed at this step of its last file.
pub(super) fn kill_at(rig: &Rig, step: &str) -> Result<()> {
    let acctd = faulty(rig, step, ONE_INTERVAL)?;
    acctd.wait_for_line("Started accounting")?;
    send(rig, 1_000)?;
    wait_until_saved(&rig.log_directory(), 1_000)?;
    acctd.signal(Signal::TERM)?;
    ensure_killed(acctd, step)
}

fn killed_between_any_two_steps_of_writing() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    for (n, step) in (1..).zip(STEPS) {
        kill_at(&rig, step)?;
        rig.acctd(ONE_INTERVAL)?.finish()?;
        ensure_all_is_there_once(&rig, 1_000 * n).with_context(|| step)?;
    }
    Ok(())
}

pub(super) fn ensure_all_is_there_once(rig: &Rig, packets: u64) -> Result<()> {
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == packets);
    let files = rig.files()?;
    ensure!(totals(&files, true) == (ip4, NONE), "{files:?}");
    ensure!(rig.summed("source_packets")? == packets);
    ensure_files_and_lines_agree(rig)
}

fn killed_while_it_recovers() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    for (n, step) in (1..).zip(["retired", "forgotten"]) {
        kill_at(&rig, "recorded")?;
        ensure_killed(faulty(&rig, step, ONE_INTERVAL)?, step)?;
        rig.acctd(ONE_INTERVAL)?.finish()?;
        ensure_all_is_there_once(&rig, 1_000 * n).with_context(|| step)?;
    }
    Ok(())
}

fn killed_while_it_saves() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let mut saved = NONE;
    for step in ["saving#2", "created"] {
        // The second checkpoint, or the file: both leave the first checkpoint.
        let acctd = faulty(&rig, step, ONE_INTERVAL)?;
        acctd.wait_for_line("Started accounting")?;
        // All wait for it at once, and so are in the first one.
        acctd.signal(Signal::STOP)?;
        send(&rig, 1_000)?;
        acctd.signal(Signal::CONT)?;
        saved.packets += 1_000;
        saved.bytes += 100_000;
        wait_for_checkpoint(&rig)?;
        if step == "saving#2" {
            send(&rig, 1)?;
        } else {
            acctd.signal(Signal::TERM)?;
        }
        ensure_killed(acctd, step)?;
        ensure!(n_with_ending(&rig, "tmp")? == 1);
        rig.acctd(ONE_INTERVAL)?.finish()?;
        let files = rig.files()?;
        ensure!(totals(&files, true) == (saved, NONE), "{step}: {files:?}");
    }
    Ok(())
}

fn the_interval_goes_on() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    save_and_kill(&rig)?;
    let started = checkpoint_name(&rig)?;
    // Twice, so that what was recovered is saved again.
    for packets in [1_500, 2_000] {
        let acctd = rig.acctd(ONE_INTERVAL)?;
        acctd.wait_for_line("packets of the current interval are recovered")?;
        send(&rig, 500)?;
        wait_until_saved(&rig.log_directory(), packets)?;
        ensure!(checkpoint_name(&rig)? == started);
        acctd.stop(Signal::KILL)?;
    }
    rig.acctd(ONE_INTERVAL)?.finish()?;
    let files = rig.files()?;
    ensure!(files.len() == 1, "{files:?}");
    ensure_all_is_there_once(&rig, 2_000)?;
    let summaries = rig.summaries()?;
    let gaps = summaries[0]["gaps"].as_array().context("gaps")?;
    ensure!(gaps.len() == 3, "{gaps:?}");
    for gap in gaps {
        ensure!(gap["cause"] == "killed" && gap["groups"][0] == 5, "{gap}");
        ensure!(gap["start"].as_str() < gap["end"].as_str(), "{gap}");
    }
    Ok(())
}

/// Kills an acctd when all of 1,000 packets are in its checkpoint.
fn save_and_kill(rig: &Rig) -> Result<()> {
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(rig, 1_000)?;
    wait_until_saved(&rig.log_directory(), 1_000)?;
    acctd.stop(Signal::KILL)?;
    Ok(())
}

pub(super) fn checkpoint_name(rig: &Rig) -> Result<String> {
    let mut names = names(&rig.log_directory())?;
    names.retain(|name| name.ends_with(".checkpoint"));
    ensure!(names.len() == 1, "{names:?}");
    Ok(names.remove(0))
}

fn other_flags() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    save_and_kill(&rig)?;
    // Other groups, and so another lowest one, and another prefix length.
    let acctd = rig.acctd(&[
        "-interval=36500d",
        "-ip4-src-group=3,5",
        "-ip4-prefix-length=24",
    ])?;
    acctd.wait_for_line("1000 packets of")?;
    send(&rig, 500)?;
    acctd.finish()?;
    let files = rig.files()?;
    // Of one second, the later file has a suffix and comes first.
    let mut rows: Vec<usize> = files.iter().map(|file| file.rows.len()).collect();
    rows.sort_unstable();
    ensure!(rows == [1, 10], "{files:?}");
    ensure_all_is_there_once(&rig, 1_500)
}

fn a_damaged_checkpoint() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let directory = rig.log_directory();
    fs::create_dir_all(&directory)?;
    save_and_kill(&rig)?;
    let torn = directory.join(checkpoint_name(&rig)?);
    let bytes = fs::read(&torn)?;
    fs::write(&torn, &bytes[..bytes.len() - 7])?;
    let foreign = ".acctd-5-12.checkpoint";
    fs::write(directory.join(foreign), "something else")?;
    fs::write(directory.join(".acctd-5-13.commit"), "something else")?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    acctd.wait_for_line("is not used: it is incomplete or changed")?;
    acctd.wait_for_line(".acctd-5-12.checkpoint is not used: it is of another program")?;
    acctd.wait_for_line(".acctd-5-13.commit is not used: it is of another program")?;
    send(&rig, 500)?;
    acctd.finish()?;
    let damaged: Vec<String> = names(&directory)?
        .into_iter()
        .filter(|name| name.ends_with(".damaged"))
        .collect();
    ensure!(damaged.len() == 3, "{damaged:?}");
    for name in damaged {
        fs::remove_file(directory.join(name))?;
    }
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(counted.packets == 500, "{counted:?}");
    Ok(())
}

fn a_second_acctd() -> Result<()> {
    let rig = Rig::new()?;
    let first = rig.acctd(&["-ip4-src-group=4,5"])?;
    let other = rig.router.peer()?;
    let mut second = other.command(rig.acctd_path());
    second.arg("-log-directory").arg(rig.log_directory());
    let output = second.arg("-ip6-src-group=4").output()?;
    let expected = format!(
        "is in use by pid {} (acctd) for group 4: stop it, or choose another directory with --log-directory",
        first.pid()
    );
    crate::errors::complains(&output, 1, &expected)?;
    // Other groups may share the directory.
    rig.acctd(&["-ip6-src-group=6"])?.finish()?;
    first.finish()?;
    ensure!(rig.files()?.len() == 2);
    fails(&rig, &["-ip4-src-group=5", "-checkpoint=1ms"], 2, "100 ms")
}

fn a_clean_stop() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-checkpoint=100ms", "-ip4-src-group=5"])?;
    rig.send(&TrafficArgs {
        count: 3_000,
        rate: 1_000,
        ..rig.traffic("10.0.0.1/32", "172.16.0.1/32")?
    })?;
    acctd.finish()?;
    let names = names(&rig.log_directory())?;
    ensure!(names.iter().all(|name| !name.starts_with('.')), "{names:?}");
    ensure!(totals(&read_files(&rig.log_directory())?, true).0.packets == 3_000);
    Ok(())
}

fn with_a_cross_check() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let args = [
        "-interval=1s",
        "-checkpoint=100ms",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ];
    for round in 1..=5 {
        let acctd = rig.acctd(&args)?;
        rig.send(&TrafficArgs {
            count: 3_000,
            rate: 2_000,
            ..rig.traffic("10.0.0.1/32", "172.16.0.1/32")?
        })?;
        wait_until_kept(&rig, 3_000 * round)?;
        acctd.stop(Signal::KILL)?;
    }
    let ended = rig.acctd(&args)?.finish()?;
    for alarm in ["uncovered", "extra"] {
        ensure!(ended.line(alarm).is_err(), "{:?}", ended.log);
    }
    for summary in rig.summaries()? {
        let verdicts = &summary["crosscheck"]["verdicts"];
        for alarm in ["uncovered", "extra"] {
            ensure!(verdicts[alarm]["prefixes"] == 0, "{summary}");
        }
    }
    ensure!(rig.summed("source_packets")? == 15_000);
    Ok(())
}
