//! What goes wrong is said in one line, with what to do about it, and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testkit::netns::{Namespace, Privilege};
use testkit::process::Process;
use testkit::traffic::TrafficArgs;

use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "a_time_zone_that_is_none_is_refused",
        a_time_zone_that_is_none,
    ),
    (
        Needs::Root,
        "without_time_zones_installed_that_is_said",
        without_time_zones,
    ),
    (
        Needs::Namespace,
        "a_taken_group_names_its_owner",
        a_taken_group_names_its_owner,
    ),
    (
        Needs::Root,
        "without_cap_net_admin_that_is_said",
        without_cap_net_admin_that_is_said,
    ),
    (
        Needs::Root,
        "what_another_user_may_not_write_is_refused",
        what_another_user_may_not_write,
    ),
    (
        Needs::Namespace,
        "a_network_namespace_of_somebody_else_is_told_apart",
        a_foreign_network_namespace,
    ),
    (
        Needs::Namespace,
        "too_few_descriptors_are_said_at_the_start",
        too_few_descriptors,
    ),
    (
        Needs::Namespace,
        "a_directory_that_cannot_be_written_is_refused",
        a_directory_that_cannot_be_written,
    ),
    (
        Needs::Namespace,
        "a_file_in_the_directorys_place_is_refused",
        a_file_in_the_directorys_place,
    ),
    (
        Needs::Namespace,
        "a_link_to_nowhere_in_the_directorys_place_is_refused",
        a_link_to_nowhere,
    ),
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
    (
        Needs::Namespace,
        "a_stderr_that_takes_nothing_changes_no_exit_code",
        a_stderr_that_takes_nothing,
    ),
    (
        Needs::Namespace,
        "each_bad_flag_is_one_clear_line_and_exit_code_2",
        each_bad_flag,
    ),
];

/// `nobody` on Debian.
pub(crate) const NOBODY: u32 = 65_534;

/// Runs acctd to its end, which must come at once, with this exit code and one line of complaint.
pub(crate) fn fails(rig: &Rig, args: &[&str], code: i32, part: &str) -> Result<()> {
    let output = rig.acctd_command().args(args).output()?;
    complains(&output, code, part)
}

pub(crate) fn complains(output: &Output, code: i32, part: &str) -> Result<()> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(code),
        "{:?}: {stderr}",
        output.status
    );
    ensure!(!stderr.contains("panicked"), "{stderr}");
    ensure!(
        stderr
            .lines()
            .filter(|line| line.contains("error: "))
            .count()
            == 1,
        "not one line: {stderr}"
    );
    ensure!(stderr.contains(part), "no {part:?} in: {stderr}");
    Ok(())
}

fn a_taken_group_names_its_owner() -> Result<()> {
    let rig = Rig::new()?;
    let first = rig.acctd(&["-ip4-src-group=4,5"])?;
    let owner = format!(
        "group 5 is taken by pid {} (acctd): stop it or choose another group",
        first.pid()
    );
    fails(&rig, &["-ip6-src-group=5"], 1, &owner)?;
    first.finish()?;
    // And it is free again.
    rig.acctd(&["-ip6-src-group=5"])?.finish()?;
    Ok(())
}

fn without_cap_net_admin_that_is_said() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    set_mode(rig.scratch(), 0o777)?;
    let output = as_nobody(&rig)?
        .args(["-ip4-src-group=5", "-log-directory"])
        .arg(rig.log_directory())
        .output()?;
    complains(
        &output,
        1,
        "it takes CAP_NET_ADMIN; run acctd as root or grant it",
    )
}

/// acctd in the router as a user without any privilege, who has all rights in the scratch directory.
fn as_nobody(rig: &Rig) -> Result<Command> {
    as_nobody_with(rig, "-all")
}

/// The same with capabilities, as setpriv(1) writes them.
pub(crate) fn as_nobody_with(rig: &Rig, capabilities: &str) -> Result<Command> {
    let program = rig.scratch().join("acctd");
    if !program.exists() {
        fs::copy(rig.acctd_path(), &program)?;
    }
    let mut command = rig.router.command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--ambient-caps={capabilities}"))
        .arg("--")
        .arg(program);
    Ok(command)
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, mode).with_context(|| path.display().to_string())
}

/// Refused by mode, and by owner.
fn what_another_user_may_not_write() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    set_mode(rig.scratch(), 0o755)?;
    let make = |name: &str, owner: u32, mode: u32| -> Result<PathBuf> {
        let path = rig.scratch().join(name);
        fs::create_dir(&path)?;
        std::os::unix::fs::chown(&path, Some(owner), Some(owner))?;
        set_mode(&path, mode)?;
        Ok(path)
    };
    let read_only = make("read-only", NOBODY, 0o555)?;
    let of_root = make("of-root", 0, 0o755)?;
    let own = make("own", NOBODY, 0o755)?;
    fs::write(own.join("intervals.jsonl"), "")?;
    let refused = |directory: &Path, part: &str, cure: &str| -> Result<()> {
        let output = as_nobody(&rig)?
            .args(["-ip4-src-group=5", "-log-directory"])
            .arg(directory)
            .output()?;
        let shown = directory.display();
        let part = format!("{part} {shown}: Permission denied (os error 13); {cure}");
        complains(&output, 1, &part)
    };
    for directory in [&read_only, &of_root] {
        let cure = "change its owner or mode";
        refused(directory, "cannot write to log directory", cure)?;
        let below = directory.join("below");
        refused(&below, "cannot make log directory", "make it yourself")?;
    }
    let output = as_nobody(&rig)?
        .args(["-ip4-src-group=5", "-log-directory"])
        .arg(&own)
        .output()?;
    let part = "intervals.jsonl: Permission denied (os error 13); move it away";
    complains(&output, 1, part)?;
    fs::remove_file(own.join("intervals.jsonl"))?;
    let mut profile = std::ffi::OsString::from("-cpuprofile=");
    profile.push(of_root.join("profile"));
    let output = as_nobody(&rig)?
        .args(["-ip4-src-group=5", "-log-directory"])
        .arg(&own)
        .arg(profile)
        .output()?;
    let part = "profile: choose another file with --cpuprofile: Permission denied";
    complains(&output, 1, part)
}

/// All capabilities in a user namespace are none in the network namespace outside of it.
fn a_foreign_network_namespace() -> Result<()> {
    let rig = Rig::new()?;
    let output = rig
        .router
        .command("unshare")
        .args(["-U", "-r", "--"])
        .arg(rig.acctd_path())
        .args(["-ip4-src-group=5", "-log-directory"])
        .arg(rig.log_directory())
        .output()?;
    complains(
        &output,
        1,
        "CAP_NET_ADMIN does not reach this network namespace; run acctd in the user namespace that owns it",
    )
}

/// From where the first group has none to where the last file would have none.
fn too_few_descriptors() -> Result<()> {
    let rig = Rig::new()?;
    for limit in 12..=26 {
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        let output = rig
            .router
            .command("sh")
            .args(["-c", &script])
            .arg(rig.acctd_path())
            .args(["-ip4-src-group=1-8", "-log-directory"])
            .arg(rig.log_directory())
            .output()?;
        complains(&output, 1, "; raise LimitNOFILE (ulimit -n)")
            .with_context(|| format!("with {limit} descriptors"))?;
    }
    Ok(())
}

fn a_directory_that_cannot_be_written() -> Result<()> {
    let rig = Rig::new()?;
    mount_tmpfs(&rig.router, &rig, "ro,size=1m")?;
    fails(
        &rig,
        &["-ip4-src-group=5"],
        1,
        "cannot write to log directory",
    )?;
    let below = rig.log_directory().join("below");
    let below = below.to_str().context("a path of ASCII")?;
    let args = ["-ip4-src-group=5", "-log-directory", below];
    fails(&rig, &args, 1, "cannot make log directory")
}

fn a_file_in_the_directorys_place() -> Result<()> {
    let rig = Rig::new()?;
    fs::write(rig.log_directory(), "in the way")?;
    fails(&rig, &["-ip4-src-group=5"], 1, "a file stands in its place")?;
    let below = rig.log_directory().join("below");
    let below = below.to_str().context("a path of ASCII")?;
    let args = ["-ip4-src-group=5", "-log-directory", below];
    fails(&rig, &args, 1, "a file stands in its place")
}

fn a_link_to_nowhere() -> Result<()> {
    let rig = Rig::new()?;
    let link = rig.log_directory();
    let shown = link.to_str().context("a path of ASCII")?;
    for (target, found) in [
        (rig.scratch().join("nothing"), "No such file or directory"),
        (link.clone(), "Too many levels of symbolic links"),
    ] {
        std::os::unix::fs::symlink(&target, &link)?;
        let expected = format!("{shown} is a symbolic link that leads nowhere: {found}");
        for directory in [shown, &format!("{shown}/"), &format!("{shown}/below")] {
            let args = ["-ip4-src-group=5", "-log-directory", directory];
            fails(&rig, &args, 1, &expected)?;
        }
        fs::remove_file(&link)?;
    }
    // One that leads somewhere is as good as a directory.
    let somewhere = rig.scratch().join("somewhere");
    fs::create_dir(&somewhere)?;
    std::os::unix::fs::symlink(&somewhere, &link)?;
    rig.acctd(&["-ip4-src-group=5"])?.finish()?;
    ensure!(crate::rig::read_files(&somewhere)?.len() == 1);
    Ok(())
}

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
        warning.contains("are not written; counting goes on"),
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
        .args(["-c", "ulimit -S -f 1 && exec \"$0\" \"$@\""])
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
    let warning = acctd.wait_for_line("File too large")?;
    ensure!(
        warning.contains("packets) are not written; counting goes on"),
        "{warning}"
    );
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
    let acctd = rig.acctd(&["-interval=1h", "-ip4-src-group=5"])?;
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
    acctd.wait_for_line("Stats file")?;
    fs::remove_file(&summary)?;
    fs::create_dir(&summary)?;
    rig.send(&TrafficArgs {
        count: 3_000,
        rate: 1_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.wait_for_line("whose files are complete; counting goes on")?;
    fs::remove_dir(&summary)?;
    acctd.finish()?;
    let files = rig.files()?;
    crate::rig::ensure_contiguous(&files)?;
    ensure!(totals(&files, true) == (rig.counter("v4")?, NONE));
    // The lines came later, but for the first one, which went with its file.
    ensure!(rig.summaries()?.len() == files.len() - 1);
    Ok(())
}

fn a_log_directory_that_was_removed() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1h", "-ip4-src-group=5"])?;
    let mode =
        || -> Result<u32> { Ok(fs::metadata(rig.log_directory())?.permissions().mode() & 0o777) };
    ensure!(mode()? == 0o750, "{:o}", mode()?);
    fs::remove_dir_all(rig.log_directory())?;
    rig.send(&TrafficArgs {
        count: 100,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.finish()?.line("was gone and is made again")?;
    ensure!(mode()? == 0o750, "{:o}", mode()?);
    ensure!(totals(&rig.files()?, true) == (rig.counter("v4")?, NONE));
    Ok(())
}

fn a_stderr_that_takes_nothing() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let full = || fs::File::options().write(true).open("/dev/full");
    for (args, code) in [
        // Refused by clap, by what is made of its values, and when the log is there.
        (&["-interval=7s", "-ip4-src-group=5"][..], 2),
        (&[], 2),
        (&["-ip4-src-group=5", "-cpuprofile=/nowhere/profile"], 1),
    ] {
        let status = rig.acctd_command().args(args).stderr(full()?).status()?;
        ensure!(status.code() == Some(code), "{args:?}: {status:?}");
    }
    let mut command = rig.acctd_command();
    command
        .args(["-interval=1s", "-ip4-src-group=5"])
        .stderr(full()?);
    let mut acctd = Process::spawn(&mut command)?;
    let end = Instant::now() + Duration::from_secs(30);
    while rig.files().map_or(0, |files| files.len()) == 0 {
        ensure!(Instant::now() < end, "no file");
        thread::sleep(Duration::from_millis(50));
    }
    rig.send(&TrafficArgs {
        count: 100,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.signal(rustix::process::Signal::TERM)?;
    let status = acctd.wait(Duration::from_secs(30))?;
    ensure!(status.success(), "{status:?}");
    ensure!(totals(&rig.files()?, true) == (rig.counter("v4")?, NONE));
    Ok(())
}

fn each_bad_flag() -> Result<()> {
    let rig = Rig::new()?;
    for (args, part) in [
        (&[][..], "no NFLOG group given"),
        (&["-interval=999ms", "-ip4-src-group=5"], "below 1 second"),
        (
            &["-interval=7s", "-ip4-src-group=5"],
            "does not divide a day",
        ),
        (&["-interval=36h", "-ip4-src-group=5"], "not whole days"),
        (&["-interval=300", "-ip4-src-group=5"], "lacks a unit"),
        (
            &["-ip4-src-group=5", "-ip6-dst-group=5"],
            "group 5 is used twice",
        ),
        (&["-ip4-src-group=65536"], "no NFLOG group"),
        (&["-ip4-src-group=0,5"], "group 0 is \"off\""),
        (
            &["-ip4-src-group=5", "-ip4-prefix-length=33"],
            "33 is not in 0..=32",
        ),
        (
            &["-ip4-src-group=5", "-ip6-prefix-length=129"],
            "129 is not in 0..=128",
        ),
        (
            &["-ip4-src-group=5", "-priority=-21"],
            "-21 is not in -20..=19",
        ),
        (&["-ip4-src-group=5", "-max-prefixes=0"], "0 is not in 1.."),
        (
            &["-ip4-src-group=5", "-syslog=maybe"],
            "neither true nor false",
        ),
        (&["-ip4-src-group=5", "-utc=2"], "neither true nor false"),
        (
            &["-ip4-src-group=5", "-debug=yes"],
            "neither true nor false",
        ),
        (
            &["-ip4-src-group=5", "-verbose=on"],
            "neither true nor false",
        ),
        (
            &["-ip4-src-group=5", "-log-directory="],
            "a value is required",
        ),
        (&["-ip4-src-group=5", "-cpuprofile="], "a value is required"),
        (&["-ip4-src-group=5", "-cpus=many"], "invalid digit"),
        (&["-ip4-src-grp=5"], "unexpected argument"),
        (&["-ip4-src-group", "-utc"], "\"-utc\" is no NFLOG group"),
        (&["-ip4-src-group=5", "stray"], "unexpected argument"),
    ] {
        fails(&rig, args, 2, part)?;
        ensure!(
            !rig.log_directory().exists(),
            "{args:?}: something was done before"
        );
    }
    let output = rig
        .acctd_command()
        .env("ACCTD_IP4_SRC_GROUP", "5")
        .env("ACCTD_INTERVAL", "7s")
        .output()?;
    complains(&output, 2, "does not divide a day")?;
    fails(
        &rig,
        &["-ip4-src-group=5", "-cpuprofile=/nowhere/profile"],
        1,
        "cannot create /nowhere/profile",
    )
}

const ONE_DAY: &[&str] = &["-interval=24h", "-ip4-src-group=5"];

/// Runs acctd with this `TZ` to a clean end. Returns its log and the offset from UTC in its last line of
/// `intervals.jsonl`.
fn run_in_zone(rig: &Rig, tz: &str, args: &[&str]) -> Result<(Vec<String>, String)> {
    let mut command = rig.acctd_command();
    let acctd = Acctd::spawn(command.args(args).env("TZ", tz))?;
    acctd.wait_for_line("Started accounting")?;
    let log = acctd.finish()?.log;
    let summaries = rig.summaries()?;
    let start = summaries.last().context("a line")?["start"].as_str();
    let start = start.context("a start")?;
    Ok((log, start[start.len() - 6..].to_owned()))
}

fn a_time_zone_that_is_none() -> Result<()> {
    let rig = Rig::new()?;
    for tz in ["Europe/Berln", ":Europe/Berln", "CET-1CEST,M3.5.0"] {
        let output = rig.acctd_command().args(ONE_DAY).env("TZ", tz).output()?;
        complains(&output, 2, &format!("TZ={tz:?} is no time zone"))?;
        ensure!(!rig.log_directory().exists(), "something was done before");
        let doctor = rig
            .router
            .command(rig.acctd_path())
            .args(["doctor", "-ip4-src-group=5"])
            .env("TZ", tz)
            .output()?;
        let found = String::from_utf8(doctor.stdout)?;
        ensure!(
            doctor.status.code() == Some(2) && found.contains("[time-zone]"),
            "{found}"
        );
    }
    for (tz, offset) in [
        ("Asia/Tokyo", "+09:00"),
        (":Asia/Tokyo", "+09:00"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "+09:00"),
        ("<+0330>-3:30", "+03:30"),
        ("JST-9", "+09:00"),
        ("", "+00:00"),
    ] {
        let (log, found) = run_in_zone(&rig, tz, ONE_DAY)?;
        ensure!(found == offset, "{tz}: {found}");
        ensure!(!log.iter().any(|line| line.contains("zone")), "{log:?}");
    }
    let args = [ONE_DAY, &["-utc"]].concat();
    let (_, found) = run_in_zone(&rig, "Europe/Berln", &args)?;
    ensure!(found == "+00:00", "{found}");
    Ok(())
}

fn without_time_zones() -> Result<()> {
    let rig = Rig::new()?;
    let over = |directory: &str| rig.router.run(&["mount", "-t", "tmpfs", "none", directory]);
    let has_other_place = [
        "/share/zoneinfo",
        "/etc/zoneinfo",
        "/usr/share/lib/zoneinfo",
    ]
    .iter()
    .any(|place| Path::new(place).exists());
    ensure!(!has_other_place, "zones are elsewhere too");
    // The directory that holds it: then there is none.
    over("/usr/share")?;
    let (log, found) = run_in_zone(&rig, "Asia/Tokyo", ONE_DAY)?;
    ensure!(found == "+00:00", "{found}");
    let told = "times are in UTC where TZ=\"Asia/Tokyo\" asks for another zone: install tzdata";
    ensure!(log.iter().any(|line| line.contains(told)), "{log:?}");
    let (log, found) = run_in_zone(&rig, "JST-9", ONE_DAY)?;
    ensure!(found == "+09:00", "{found}");
    ensure!(!log.iter().any(|line| line.contains("zone")), "{log:?}");
    Ok(())
}
