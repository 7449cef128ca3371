//! Started as root with `--user`, acctd is that user's for good, and counts all the same.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use testkit::netns::Privilege;
use testkit::veth::Veth;

use super::privilege::{
    FOR_A_CROSS_CHECK, NET_ADMIN, Rights, ensure_cross_checked, ensure_each_thread_has,
    ensure_no_program_was_started, some_traffic, warnings,
};
use crate::errors::{NOBODY, as_nobody_with, complains, set_mode};
use crate::rig::{Acctd, LOG_AND_DROP, Rig};
use crate::waiting::{wait_for_lines, wait_until_saved, wait_until_written};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "root_becomes_the_user_and_counts_exactly",
        root_becomes_the_user,
    ),
    (
        Needs::Root,
        "root_that_has_become_a_user_cross_checks_exactly_for_its_whole_life",
        with_a_cross_check,
    ),
    (
        Needs::Root,
        "root_does_not_become_a_user_who_cannot_account_and_says_why",
        who_cannot_account,
    ),
    (
        Needs::Root,
        "root_that_becomes_a_user_still_names_who_has_a_group",
        who_has_a_group,
    ),
    (
        Needs::Root,
        "root_is_told_once_of_the_flag_that_makes_it_a_user",
        told_once,
    ),
];

const STAYS_ROOT: &str = "acctd stays root: start it with --user NAME, so that it becomes that user and keeps only the capabilities that it needs; to stay root without this line, use --user root";

/// In all four ids (real, effective, saved, of files), in its groups and its rights, each thread is the user's.
fn ensure_each_thread_is_nobody(acctd: &Acctd, capabilities: u64) -> Result<()> {
    ensure_each_thread_has(acctd, Rights::only(capabilities))?;
    for task in fs::read_dir(format!("/proc/{}/task", acctd.pid()))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        for (field, expected) in [
            ("Uid:", "65534 65534 65534 65534"),
            ("Gid:", "65534 65534 65534 65534"),
            ("Groups:", "65534"),
        ] {
            let found = status.lines().find_map(|line| line.strip_prefix(field));
            let found: Vec<&str> = found.context("no ids")?.split_whitespace().collect();
            ensure!(found.join(" ") == expected, "{status}");
        }
    }
    Ok(())
}

fn ensure_is_nobodys(path: &Path, mode: u32) -> Result<()> {
    let found = fs::metadata(path).with_context(|| path.display().to_string())?;
    let seen = (found.uid(), found.gid(), found.mode() & 0o7777);
    ensure!(
        seen == (NOBODY, NOBODY, mode),
        "{}: {seen:?}",
        path.display()
    );
    Ok(())
}

/// Below a directory that everybody may enter. Root may read a private one, the user may not.
fn rig() -> Result<Rig> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    set_mode(rig.scratch(), 0o755)?;
    Ok(rig)
}

fn root_becomes_the_user() -> Result<()> {
    let rig = rig()?;
    let run = rig.scratch().join("run");
    fs::create_dir(&run)?;
    chown(&run, Some(NOBODY), Some(NOBODY))?;
    let socket = run.join("acctd.sock");
    let listen = format!("-listen=unix:{}", socket.display());
    let nested = rig.log_directory().join("below");
    let args = [
        "-user=nobody",
        "-interval=36500d",
        "-checkpoint=100ms",
        "-ip4-src-group=5",
        &listen,
    ];
    let mut n_sent = 0;
    // Made by the first; the second finds what the first has left when it was killed, and a socket's file.
    for signal in [Signal::KILL, Signal::TERM] {
        let mut command = rig.router.command(rig.acctd_path());
        command.args(args).arg("-log-directory").arg(&nested);
        let acctd = Acctd::spawn(&mut command)?;
        acctd.wait_for_line("acctd is user nobody (uid 65534) from here on")?;
        acctd.wait_for_line("Started accounting")?;
        ensure_each_thread_is_nobody(&acctd, NET_ADMIN)?;
        ensure_is_nobodys(&socket, 0o660)?;
        some_traffic(&rig, 10_000)?;
        n_sent += 10_000;
        wait_until_saved(&nested, n_sent)?;
        ensure_each_thread_is_nobody(&acctd, NET_ADMIN)?;
        ensure_no_program_was_started(&acctd)?;
        let ended = acctd.stop(signal)?;
        ensure!(ended.warnings().is_empty(), "{:?}", ended.log);
        ensure!(ended.line("acctd stays root").is_err(), "{:?}", ended.log);
    }
    for directory in [&nested, &rig.log_directory()] {
        ensure_is_nobodys(directory, 0o750)?;
    }
    let mut n_files = 0;
    for entry in fs::read_dir(&nested)? {
        ensure_is_nobodys(&entry?.path(), 0o640)?;
        n_files += 1;
    }
    ensure!(n_files == 2, "{n_files} files");
    let text = fs::read_to_string(nested.join("intervals.jsonl"))?;
    let line: serde_json::Value = serde_json::from_str(text.trim())?;
    let logged = rig.counter("v4")?;
    ensure!(logged.packets == n_sent);
    ensure!(line["source_packets"] == n_sent, "{line}");
    ensure!(line["source_bytes"] == logged.bytes, "{line}");
    Ok(())
}

fn with_a_cross_check() -> Result<()> {
    let mut rig = rig()?;
    let args = [
        "-user=nobody",
        "-interval=1s",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ];
    let acctd = rig.acctd(&args)?;
    ensure_each_thread_is_nobody(&acctd, FOR_A_CROSS_CHECK)?;
    some_traffic(&rig, 20_000)?;
    wait_until_written(&rig, 20_000)?;
    rig.router.run(&["ip", "link", "del", "lan0"])?;
    acctd.wait_for_line("lan0 is gone")?;
    rig.veth = Veth::new(&rig.router, "lan0", &rig.wire, "wire0")?;
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    let n_files = rig.summaries()?.len();
    wait_for_lines(&acctd, "Stats file", n_files + 3)?;
    some_traffic(&rig, 10_000)?;
    ensure_each_thread_is_nobody(&acctd, FOR_A_CROSS_CHECK)?;
    let ended = acctd.finish()?;
    let gone = "lan0 is gone: its packets are not cross-checked until it is back";
    ensure!(warnings(&ended) == [gone], "{:?}", ended.log);
    ensure_cross_checked(&rig, 30_000)
}

fn who_cannot_account() -> Result<()> {
    let rig = rig()?;
    let directory = rig.log_directory();
    let refused = |args: &[&str], code: i32, part: &str| -> Result<()> {
        // One that is not refused would never end.
        let mut command = rig.router.command("timeout");
        command
            .arg("20")
            .arg(rig.acctd_path())
            .arg("-log-directory")
            .arg(&directory)
            .args(["-interval=36500d", "-ip4-src-group=5"])
            .args(args);
        complains(&command.output()?, code, part)
    };
    refused(
        &["-user=nobody-here"],
        2,
        "invalid value 'nobody-here' for '--user <NAME>': there is no user \"nobody-here\" on this machine",
    )?;
    refused(&["-user="], 2, "there is no user \"\" on this machine")?;
    ensure!(!directory.exists(), "a refused flag has made a directory");
    let as_nobody = ["-user=nobody"];
    fs::create_dir(&directory)?;
    let shown = directory.display();
    let not_writable = format!(
        "cannot write to log directory {shown} as user nobody: Permission denied (os error 13); chown -R nobody: {shown}, or choose another with --log-directory"
    );
    refused(&as_nobody, 1, &not_writable)?;
    // Not changed by having been tried.
    ensure!(fs::metadata(&directory)?.uid() == 0);
    chown(&directory, Some(NOBODY), Some(NOBODY))?;
    // What acctd as root has written.
    let summaries = directory.join("intervals.jsonl");
    fs::write(&summaries, "")?;
    let of_root =
        format!("cannot append to {shown}/intervals.jsonl as user nobody: Permission denied");
    refused(&as_nobody, 1, &of_root)?;
    fs::remove_file(summaries)?;
    let checkpoint = directory.join(".acctd-5-1.checkpoint");
    fs::write(&checkpoint, "")?;
    set_mode(&checkpoint, 0o640)?;
    let of_root = format!(
        "user nobody cannot access {}: chown it",
        checkpoint.display()
    );
    refused(&as_nobody, 1, &of_root)?;
    fs::remove_file(checkpoint)?;
    let socket = format!("-listen=unix:{}/acctd.sock", rig.scratch().display());
    let not_there =
        "Permission denied (os error 13): acctd's user must be able to write to its directory";
    refused(&["-user=nobody", &socket], 1, not_there)?;
    // Nor does anybody but root become another.
    let mut command = as_nobody_with(&rig, "+net_admin")?;
    command
        .args(["-user=daemon", "-ip4-src-group=5", "-log-directory"])
        .arg(&directory);
    complains(
        &command.output()?,
        1,
        "cannot become user daemon: Operation not permitted (os error 1); only root can",
    )
}

fn who_has_a_group() -> Result<()> {
    let rig = rig()?;
    let first = rig.acctd(&["-ip4-src-group=5"])?;
    let mut command = rig.router.command(rig.acctd_path());
    command
        .args(["-user=nobody", "-ip6-src-group=5", "-log-directory"])
        .arg(rig.scratch().join("another"));
    let expected = format!("group 5 is taken by pid {} (acctd)", first.pid());
    complains(&command.output()?, 1, &expected)?;
    first.finish()?;
    Ok(())
}

/// The commands of go-nflog-acctd's manual work as they did; only that line is new.
fn told_once() -> Result<()> {
    let rig = rig()?;
    set_mode(rig.scratch(), 0o777)?;
    let n_told = |acctd: Acctd| -> Result<usize> {
        acctd.wait_for_line("Started accounting")?;
        let log = acctd.finish()?.log;
        let told = log.iter().filter(|line| line.contains(STAYS_ROOT));
        Ok(told.count())
    };
    ensure!(n_told(rig.acctd(&["-ip4-src-group=5"])?)? == 1);
    let acctd = rig.acctd(&["-ip4-src-group=5", "-user=root"])?;
    ensure_each_thread_has(&acctd, Rights::only(NET_ADMIN))?;
    ensure!(n_told(acctd)? == 0);
    fs::remove_dir_all(rig.log_directory())?;
    // The unit's user, who may be named as well.
    for more in [&[][..], &["-user=nobody"]] {
        let mut command = as_nobody_with(&rig, "+net_admin")?;
        command
            .args(["-ip4-src-group=5", "-log-directory"])
            .arg(rig.log_directory())
            .args(more);
        ensure!(n_told(Acctd::spawn(&mut command)?)? == 0, "{more:?}");
    }
    // Root of its own user namespace only.
    let rig = Rig::with_privilege(Privilege::UserNamespaceAs(NOBODY))?;
    ensure!(n_told(rig.acctd(&["-ip4-src-group=5"])?)? == 0);
    Ok(())
}
