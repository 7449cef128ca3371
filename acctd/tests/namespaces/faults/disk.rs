//! The disk is full, read-only, slow or gone: what was counted waits, and is written in order.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use testkit::traffic::TrafficArgs;

use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, ensure_contiguous, totals};
use crate::unwritable::{copy_out, fill, mount_tmpfs};
use crate::waiting::{wait_until, wait_until_all_is_read, wait_until_saved};
use crate::{Case, Needs, listen};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "the_disk_is_full_for_three_intervals_and_then_has_room",
        the_disk_is_full,
    ),
    (
        Needs::Namespace,
        "the_directory_is_read_only_for_two_intervals",
        the_directory_is_read_only,
    ),
    (
        Needs::Namespace,
        "the_directory_is_replaced_by_another",
        the_directory_is_replaced,
    ),
    (
        Needs::Namespace,
        "the_disk_is_full_and_more_rows_wait_than_the_backlog_allows",
        more_rows_wait_than_allowed,
    ),
    (
        Needs::FaultPoints,
        "a_sync_of_a_file_fails_with_eio",
        a_sync_fails,
    ),
    (
        Needs::FaultPoints,
        "each_sync_of_a_file_takes_three_seconds",
        each_sync_takes_three_seconds,
    ),
    (
        Needs::FaultPoints,
        "the_disk_fails_between_a_commit_and_its_rename",
        the_disk_fails_within_a_commit,
    ),
    (
        Needs::FaultPoints,
        "a_disk_that_does_not_answer_is_said_and_what_waits_stays_within_its_bound",
        the_disk_does_not_answer,
    ),
    (
        Needs::Namespace,
        "a_checkpoint_that_the_disk_refused_is_saved_though_no_packet_comes",
        a_checkpoint_is_refused,
    ),
    (
        Needs::FaultPoints,
        "a_disk_that_does_not_answer_gets_its_time_at_the_stop_and_the_checkpoint_has_what_was_saved",
        the_disk_does_not_answer_at_the_stop,
    ),
];

/// With checkpoints that the disk does not take either.
const ARGS: &[&str] = &["-interval=1s", "-checkpoint=100ms", "-ip4-src-group=5"];

/// Steady traffic for so many seconds.
fn traffic(rig: &Rig, seconds: u64) -> Result<TrafficArgs> {
    Ok(TrafficArgs {
        sources: 100,
        rate: 10_000,
        count: 10_000 * seconds,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })
}

/// Each packet is in a row, and each second that was counted in a file.
fn ensure_all_is_there(rig: &Rig, packets: u64) -> Result<()> {
    let files = rig.files()?;
    ensure_contiguous(&files)?;
    let (counted, ip4) = (totals(&files, true), rig.counter("v4")?);
    ensure!(
        ip4.packets == packets && counted == (ip4, NONE),
        "{counted:?} != {ip4:?}"
    );
    ensure!(rig.summaries()?.len() == files.len());
    Ok(())
}

/// Written one after the other, as they were counted.
fn ensure_in_order(log: &[String]) -> Result<()> {
    let mut written: Vec<&str> = log
        .iter()
        .filter_map(|line| line.split_once("Stats file \"")?.1.split('"').next())
        .collect();
    let in_order = written.clone();
    written.sort_unstable();
    ensure!(written == in_order, "{in_order:?}");
    Ok(())
}

fn the_disk_is_full() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    let acctd = rig.acctd(ARGS)?;
    rig.send(&traffic(&rig, 2)?)?;
    fill(&rig)?;
    rig.send(&traffic(&rig, 3)?)?;
    acctd.wait_for_line("No space left on device")?;
    let filler = rig.log_directory().join("filler");
    let filler = filler.to_str().context("a path of ASCII")?;
    rig.router.run(&["rm", filler])?;
    rig.send(&traffic(&rig, 2)?)?;
    let ended = acctd.finish()?;
    copy_out(&rig)?;
    ensure_in_order(&ended.log)?;
    ensure_all_is_there(&rig, 70_000)
}

fn the_directory_is_read_only() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    let acctd = rig.acctd(ARGS)?;
    let directory = rig.log_directory();
    let shown = directory.to_str().context("a path of ASCII")?;
    rig.send(&traffic(&rig, 1)?)?;
    rig.router.run(&["mount", "-o", "remount,ro", shown])?;
    rig.send(&traffic(&rig, 2)?)?;
    acctd.wait_for_line("Read-only file system")?;
    rig.router.run(&["mount", "-o", "remount,rw", shown])?;
    rig.send(&traffic(&rig, 1)?)?;
    let ended = acctd.finish()?;
    copy_out(&rig)?;
    ensure_in_order(&ended.log)?;
    ensure_all_is_there(&rig, 40_000)
}

/// As when a disk is mounted over it, or somebody has moved it away.
fn the_directory_is_replaced() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ARGS)?;
    rig.send(&traffic(&rig, 2)?)?;
    let directory = rig.log_directory();
    let moved = rig.scratch().join("moved");
    fs::rename(&directory, &moved)?;
    fs::create_dir(&directory)?;
    rig.send(&traffic(&rig, 2)?)?;
    acctd.finish()?;
    // Checkpoints of the open interval went along, and so did the lock.
    for entry in fs::read_dir(&moved)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?;
        if name == "intervals.jsonl" {
            let mut lines = fs::read_to_string(&path)?;
            let here = directory.join(name);
            lines.push_str(&fs::read_to_string(&here)?);
            fs::write(here, lines)?;
        } else if path.extension().is_some_and(|ending| ending == "csv") {
            fs::rename(&path, directory.join(name))?;
        }
    }
    ensure_all_is_there(&rig, 40_000)
}

fn more_rows_wait_than_allowed() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    fill(&rig)?;
    // The same thousand prefixes each second, and then two thousand others.
    let acctd = rig.acctd(&["-interval=1s", "-backlog=2500", "-ip4-src-group=5"])?;
    let load = TrafficArgs {
        sources: 1_000,
        rate: 10_000,
        count: 60_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    };
    rig.send(&load)?;
    acctd.wait_for_line("neighbours are merged")?;
    rig.send(&TrafficArgs {
        sources: 20_000,
        count: 20_000,
        ..rig.traffic("10.2.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.wait_for_line("are in the row of the zero address; totals are exact")?;
    let filler = rig.log_directory().join("filler");
    let filler = filler.to_str().context("a path of ASCII")?;
    rig.router.run(&["rm", filler])?;
    let ended = acctd.finish()?;
    copy_out(&rig)?;
    ensure_in_order(&ended.log)?;
    ensure_all_is_there(&rig, 80_000)?;
    let summaries = rig.summaries()?;
    let n_merged: u64 = summaries
        .iter()
        .filter_map(|summary| summary["merged_intervals"].as_u64())
        .sum();
    ensure!(n_merged >= 6, "{summaries:?}");
    // What had to be folded is said, and is in the row of the zero address.
    let zero = |row: &&crate::rig::Row| row.ip.to_string() == "0.0.0.0";
    let files = rig.files()?;
    let folded = files.iter().flat_map(|file| &file.rows).filter(zero);
    let folded: u64 = folded.map(|row| row.source.packets).sum();
    ensure!(folded > 0 && folded == rig.summed("overflow")?, "{folded}");
    Ok(())
}

/// After a failed sync the kernel may have dropped what it could not write: the file is written anew.
fn a_sync_fails() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let mut command = rig.acctd_command();
    command.env("ACCTD_FAILING_SYNCS", "3").args(ARGS);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    rig.send(&traffic(&rig, 3)?)?;
    let ended = acctd.finish()?;
    let refused = ended
        .log
        .iter()
        .filter(|line| line.contains("Input/output error"));
    ensure!(refused.count() == 3, "{:?}", ended.log);
    ensure_in_order(&ended.log)?;
    ensure_all_is_there(&rig, 30_000)
}

/// Longer than an interval, so that they pile up.
fn each_sync_takes_three_seconds() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let mut command = rig.acctd_command();
    command.env("ACCTD_WAIT_AT", "created=3").args(ARGS);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    rig.send(&traffic(&rig, 6)?)?;
    let ended = acctd.finish()?;
    ensure!(ended.took > Duration::from_secs(8), "{:?}", ended.took);
    ensure_in_order(&ended.log)?;
    ensure_all_is_there(&rig, 60_000)
}

/// The file is complete under its temporary name and there is a record of it, and then the disk takes
/// nothing: the same file must get its name later, and no other.
fn the_disk_fails_within_a_commit() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    let mut command = rig.acctd_command();
    command.env("ACCTD_WAIT_AT", "recorded=1.5").args(ARGS);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    let directory = rig.log_directory();
    let shown = directory.to_str().context("a path of ASCII")?;
    let sending = rig.send_in_background(&traffic(&rig, 4)?)?;
    // Until a record is there.
    let record = format!("until ls -A {shown} | grep -q '[.]commit$'; do sleep 0.05; done");
    rig.router.run(&["sh", "-c", &record])?;
    rig.router.run(&["mount", "-o", "remount,ro", shown])?;
    acctd.wait_for_line("Read-only file system")?;
    rig.router.run(&["mount", "-o", "remount,rw", shown])?;
    sending.finish()?;
    acctd.finish()?;
    copy_out(&rig)?;
    ensure_all_is_there(&rig, 40_000)
}

/// Neither takes nor refuses, as a network file system without its server. An attempt is under way until `hang`
/// is gone.
fn hanging_at(point: &str, hang: &Path, rig: &Rig, args: &[&str]) -> Result<Acctd> {
    fs::write(hang, "")?;
    let listen = format!("-listen=unix:{}", listen::socket(rig).display());
    let mut command = rig.acctd_command();
    command.env("ACCTD_HANG_AT", format!("{point}={}", hang.display()));
    let acctd = Acctd::spawn(command.args(args).arg(listen))?;
    acctd.wait_for_line("Started accounting")?;
    Ok(acctd)
}

fn resident_kib(acctd: &Acctd) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", acctd.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmRSS")?.parse()?)
}

/// 20,000 prefixes a second, of which 30,000 may wait: without a bound that is 1.4 MB a second.
fn the_disk_does_not_answer() -> Result<()> {
    const BACKLOG: u64 = 30_000;
    const A_SECOND: u64 = 20_000;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let hang = rig.scratch().join("hang");
    let backlog = format!("-backlog={BACKLOG}");
    let args = ["-interval=1s", "-checkpoint=100ms", "-ip4-src-group=5"];
    let acctd = hanging_at("created", &hang, &rig, &[&args[..], &[&backlog]].concat())?;
    let sending = rig.send_in_background(&TrafficArgs {
        sources: 1 << 24,
        rate: 20_000,
        count: 50 * A_SECOND,
        ..rig.traffic("10.0.0.0/8", "172.16.0.1/32")?
    })?;
    let is_failing = || Ok(listen::metrics(&rig)?["acctd_disk_failing"] == 1);
    wait_until("the disk is failing", is_failing)?;
    acctd.wait_for_line("the disk has not answered since")?;
    let before = resident_kib(&acctd)?;
    let mut most_rows = 0;
    wait_until("acctd is not healthy", || {
        most_rows = most_rows.max(listen::metrics(&rig)?["acctd_backlog_rows"]);
        Ok(listen::get(&rig, "/healthz")?.0 == 503)
    })?;
    let (_, problem) = listen::get(&rig, "/healthz")?;
    ensure!(
        problem.contains("the disk has not answered since"),
        "{problem}"
    );
    ensure!(listen::metrics(&rig)?["acctd_backlog_intervals"] >= 2);
    let after = resident_kib(&acctd)?;
    eprintln!("{most_rows} rows waited at most; {before} KiB, 20 s later {after} KiB");
    // The one in hand and the newest are besides.
    let allowed = BACKLOG + 4 * A_SECOND;
    ensure!((BACKLOG..=allowed).contains(&most_rows), "{most_rows} rows");
    ensure!(after < before + 8 * 1024, "{before} KiB became {after} KiB");
    fs::remove_file(&hang)?;
    acctd.wait_for_line("has answered after")?;
    wait_until("acctd is well again", || {
        let is_well = listen::metrics(&rig)?["acctd_disk_failing"] == 0;
        Ok(is_well && listen::get(&rig, "/healthz")?.0 == 200)
    })?;
    sending.finish()?;
    let ended = acctd.finish()?;
    ensure_in_order(&ended.log)?;
    ensure_all_is_there(&rig, 50 * A_SECOND)
}

/// A disk that is slow gets its time. After a second signal it is given up, which is said; with a checkpoint, the
/// next start has it all.
fn the_disk_does_not_answer_at_the_stop() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let hang = rig.scratch().join("hang");
    let args = ["-interval=36500d", "-checkpoint=100ms", "-ip4-src-group=5"];
    let said = "the disk has not answered since";
    let acctd = hanging_at("created", &hang, &rig, &args)?;
    rig.send(&traffic(&rig, 1)?)?;
    acctd.signal(Signal::TERM)?;
    acctd.wait_for_line(said)?;
    fs::remove_file(&hang)?;
    let ended = acctd.wait()?;
    ensure!(ended.code == Some(0), "{:?}", ended.log);
    ended.line("The disk of ")?;
    ensure_all_is_there(&rig, 10_000)?;

    let acctd = hanging_at("created", &hang, &rig, &args)?;
    rig.send(&traffic(&rig, 1)?)?;
    wait_until_saved(&rig.log_directory(), 10_000)?;
    acctd.signal(Signal::TERM)?;
    acctd.wait_for_line(said)?;
    acctd.signal(Signal::TERM)?;
    let ended = acctd.wait()?;
    ensure!(ended.code == Some(1), "{:?}", ended.code);
    ended.line("; 1 intervals (10000 packets) are not written; gave up")?;
    fs::remove_file(&hang)?;
    rig.acctd(&args)?.finish()?;
    let (counted, ip4) = (totals(&rig.files()?, true), rig.counter("v4")?);
    ensure!(
        ip4.packets == 20_000 && counted == (ip4, NONE),
        "{counted:?} != {ip4:?}"
    );
    Ok(())
}

fn a_checkpoint_is_refused() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    fill(&rig)?;
    let args = ["-interval=36500d", "-checkpoint=100ms", "-ip4-src-group=5"];
    let acctd = rig.acctd(&args)?;
    rig.send(&traffic(&rig, 1)?)?;
    acctd.wait_for_line("cannot save a checkpoint")?;
    // What was on its way when that one was made is in the next.
    wait_until_all_is_read(&acctd)?;
    let filler = rig.log_directory().join("filler");
    rig.router
        .run(&["rm", filler.to_str().context("a path of ASCII")?])?;
    acctd.wait_for_line("Checkpoints are saved to")?;
    acctd.stop(Signal::KILL)?;
    rig.acctd(&args)?.finish()?;
    copy_out(&rig)?;
    ensure_all_is_there(&rig, 10_000)
}
