//! A log directory whose file system or whose names are not what acctd would like: an interval has one file,
//! and nothing but acctd's own regular files is opened.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use super::killed::{
    ONE_INTERVAL, checkpoint_name, ensure_all_is_there_once, ensure_killed, kill_at, names, send,
    wait_for_checkpoint,
};
use crate::errors::fails;
use crate::rig::{Acctd, LOG_AND_DROP, Rig, totals};
use crate::waiting::wait_until_saved;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::FaultPoints,
        "killed_where_a_rename_is_a_link_and_a_removal_each_interval_has_one_file",
        killed_between_link_and_removal,
    ),
    (
        Needs::FaultPoints,
        "an_answer_of_the_disk_that_is_lost_makes_no_second_file",
        an_answer_is_lost,
    ),
    (
        Needs::FaultPoints,
        "a_record_that_cannot_be_read_leaves_nothing_to_be_counted_twice",
        a_record_cannot_be_read,
    ),
    (
        Needs::Namespace,
        "symbolic_links_in_the_directory_are_not_followed",
        symbolic_links,
    ),
    (
        Needs::Namespace,
        "fifos_and_huge_files_in_the_directory_hold_nothing_up",
        fifos_and_huge_files,
    ),
];

/// As on NFS. The next start is on the same file system, or on one that has the rename.
fn killed_between_link_and_removal() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    for (n, is_same) in (1..).zip([true, false]) {
        let mut command = rig.acctd_command();
        command.env("ACCTD_RENAMEAT2", "missing");
        let acctd = Acctd::spawn(command.env("ACCTD_KILL_AT", "linked").args(ONE_INTERVAL))?;
        acctd.wait_for_line("Started accounting")?;
        send(&rig, 1_000)?;
        wait_until_saved(&rig.log_directory(), 1_000)?;
        acctd.signal(Signal::TERM)?;
        ensure_killed(acctd, "linked")?;
        ensure!(names(&rig.log_directory())?.len() >= 4, "it is under way");
        let mut command = rig.acctd_command();
        if is_same {
            command.env("ACCTD_RENAMEAT2", "missing");
        }
        let acctd = Acctd::spawn(command.args(ONE_INTERVAL))?;
        acctd.wait_for_line("Started accounting")?;
        acctd.finish()?;
        ensure_all_is_there_once(&rig, 1_000 * n).with_context(|| is_same)?;
    }
    Ok(())
}

/// The disk does what it is asked to and says that it did not, with and without a record of it.
fn an_answer_is_lost() -> Result<()> {
    const WITHOUT: &[&str] = &["-interval=36500d", "-checkpoint=0", "-ip4-src-group=5"];
    // Whether it is done can be asked at once (EEXIST, EIO), or only when it is tried again.
    for lost in [
        "linked=17",
        "linked=5",
        "linked=5,asked=5",
        "renamed=5",
        "renamed=5,asked=5",
    ] {
        for args in [ONE_INTERVAL, WITHOUT] {
            // Files of the same second would be in the way, and the name that is taken the first to be asked for.
            let rig = Rig::new()?;
            rig.rules(LOG_AND_DROP)?;
            let mut command = rig.acctd_command();
            if lost.starts_with("linked") {
                command.env("ACCTD_RENAMEAT2", "missing");
            }
            command.env("ACCTD_LOST_ANSWER", lost);
            let acctd = Acctd::spawn(command.args(args))?;
            acctd.wait_for_line("Started accounting")?;
            send(&rig, 1_000)?;
            if args == ONE_INTERVAL {
                wait_for_checkpoint(&rig)?;
            }
            acctd.finish()?;
            ensure_all_is_there_once(&rig, 1_000).with_context(|| lost)?;
        }
    }
    Ok(())
}

fn a_record_cannot_be_read() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let directory = rig.log_directory();
    let tear_record = || -> Result<String> {
        let mut names = names(&directory)?;
        names.retain(|name| name.ends_with(".commit"));
        ensure!(names.len() == 1, "{names:?}");
        let bytes = fs::read(directory.join(&names[0]))?;
        fs::write(directory.join(&names[0]), &bytes[..bytes.len() - 7])?;
        Ok(names.remove(0))
    };
    // The interval has its file, and its checkpoint is there.
    kill_at(&rig, "published")?;
    let record = tear_record()?;
    let checkpoint = checkpoint_name(&rig)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    acctd.wait_for_line(&format!(
        "{checkpoint} is not used: {record} cannot be read, so it is not known whether"
    ))?;
    acctd.finish()?;
    // What is set aside with the same name later replaces nothing.
    fs::write(directory.join(&record), "something else")?;
    fs::write(directory.join(&checkpoint), "something else")?;
    rig.acctd(ONE_INTERVAL)?.finish()?;
    ensure!(take_damaged(&rig)?.len() == 4);
    ensure!(totals(&rig.files()?, true).0.packets == 1_000);
    // The complete file that only a record names is kept too.
    kill_at(&rig, "recorded")?;
    tear_record()?;
    rig.acctd(ONE_INTERVAL)?.finish()?;
    let damaged = take_damaged(&rig)?;
    let file = damaged.iter().find(|(name, _)| name.contains(".tmp."));
    let (_, text) = file.context("no file")?;
    ensure!(text.split(|byte| *byte == b'\n').count() == 12);
    ensure!(totals(&rig.files()?, true).0.packets == 1_000);
    Ok(())
}

/// Removes what was set aside, and returns it.
fn take_damaged(rig: &Rig) -> Result<Vec<(String, Vec<u8>)>> {
    let directory = rig.log_directory();
    let mut taken = Vec::new();
    for name in names(&directory)? {
        if name.ends_with(".damaged") {
            let path = directory.join(&name);
            // Of a file of a terabyte there is nothing to see.
            let mut bytes = Vec::new();
            File::open(&path)?.take(1 << 20).read_to_end(&mut bytes)?;
            taken.push((name, bytes));
            fs::remove_file(path)?;
        }
    }
    Ok(taken)
}

fn symbolic_links() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let directory = rig.log_directory();
    fs::create_dir_all(&directory)?;
    let elsewhere = rig.scratch().join("elsewhere");
    let [lines, lock, checkpoint] = ["intervals.jsonl", ".acctd-5.lock", ".acctd-5-12.checkpoint"]
        .map(|name| directory.join(name));
    // To nothing, which would be made, and to a file, which would be written.
    for is_file_there in [false, true] {
        symlink(&elsewhere, &lines)?;
        let expected = format!(
            "cannot append to {}: it is a symbolic link; move it away",
            lines.display()
        );
        fails(&rig, &["-ip4-src-group=5"], 1, &expected)?;
        fs::remove_file(&lines)?;
        symlink(&elsewhere, if is_file_there { &checkpoint } else { &lock })?;
        let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
        acctd.wait_for_line("it is a symbolic link")?;
        // Those that come while acctd runs are not followed either: only the line is missing, and is said so.
        symlink(&elsewhere, &lines)?;
        symlink(&elsewhere, directory.join(".acctd-5-13.checkpoint"))?;
        send(&rig, 1_000)?;
        acctd.signal(Signal::TERM)?;
        acctd.wait_for_line("intervals.jsonl: it is a symbolic link")?;
        fs::remove_file(&lines)?;
        let ended = acctd.wait()?;
        ensure!(ended.code == Some(0), "{:?}", ended.log);
        if is_file_there {
            ensure!(fs::read_to_string(&elsewhere)? == "not ours");
        } else {
            ensure!(!elsewhere.exists());
            fs::write(&elsewhere, "not ours")?;
        }
        ensure!(rig.summed("source_packets")? == 1_000);
        fs::remove_file(&lines)?;
        for name in names(&directory)? {
            if name.starts_with(".acctd") {
                fs::remove_file(directory.join(name))?;
            }
        }
    }
    let counted = totals(&rig.files()?, true).0;
    ensure!(counted == rig.counter("v4")?, "{counted:?}");
    Ok(())
}

/// A FIFO would wait for somebody to write to it, and a file of a terabyte would not fit into memory.
fn fifos_and_huge_files() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let directory = rig.log_directory();
    fs::create_dir_all(&directory)?;
    let fifo = |name: &str| mknodat(CWD, directory.join(name), FileType::Fifo, Mode::RWXU, 0);
    fifo("intervals.jsonl")?;
    let expected = "intervals.jsonl: it is not a regular file; move it away";
    fails(&rig, &["-ip4-src-group=5"], 1, expected)?;
    fs::remove_file(directory.join("intervals.jsonl"))?;
    let (huge, titled) = (".acctd-5-14.checkpoint", ".acctd-5-15.checkpoint");
    for (name, text) in [(huge, "something else"), (titled, "acctd checkpoint 1\n")] {
        fs::write(directory.join(name), text)?;
        let file = File::options().write(true).open(directory.join(name))?;
        file.set_len(1 << 40)?;
    }
    for name in [".acctd-5-12.checkpoint", ".acctd-5-13.commit"] {
        fifo(name)?;
    }
    let acctd = rig.acctd(ONE_INTERVAL)?;
    for part in [
        ".acctd-5-12.checkpoint: it is not a regular file; it stays as it is",
        ".acctd-5-13.commit: it is not a regular file; it stays as it is",
        ".acctd-5-14.checkpoint is not used: it is of another program or version",
        ".acctd-5-15.checkpoint is not used: it is too long",
    ] {
        acctd.wait_for_line(part)?;
    }
    send(&rig, 1_000)?;
    acctd.finish()?;
    ensure!(take_damaged(&rig)?.len() == 2);
    for name in [".acctd-5-12.checkpoint", ".acctd-5-13.commit"] {
        fs::remove_file(directory.join(name))?;
    }
    ensure_all_is_there_once(&rig, 1_000)?;
    // Without a lock what was left is not recovered, and accounting continues.
    fifo(".acctd-5.lock")?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    acctd.wait_for_line("cannot lock log directory")?;
    acctd.finish()?;
    Ok(())
}
