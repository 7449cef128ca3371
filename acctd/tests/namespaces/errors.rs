//! What goes wrong is said in one line, with what to do about it, and loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use testkit::netns::Privilege;
use testkit::process::Process;
use testkit::traffic::TrafficArgs;

use crate::rig::{LOG_AND_DROP, NONE, Rig, copy_program, totals};
use crate::unwritable::mount_tmpfs;
use crate::waiting::{PATIENCE, wait_until};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
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
        "requires CAP_NET_ADMIN; run acctd as root or grant it",
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
        copy_program(rig.acctd_path(), &program)?;
    }
    let mut command = rig.command_of_unit("setpriv");
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
        refused(&below, "cannot make log directory", "create it yourself")?;
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
    fails(&rig, &["-ip4-src-group=5"], 1, "is not a directory")?;
    let below = rig.log_directory().join("below");
    let below = below.to_str().context("a path of ASCII")?;
    let args = ["-ip4-src-group=5", "-log-directory", below];
    fails(&rig, &args, 1, "is not a directory")
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
    wait_until("there is a file", || {
        Ok(rig.files().map_or(0, |files| files.len()) > 0)
    })?;
    rig.send(&TrafficArgs {
        count: 100,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.signal(rustix::process::Signal::TERM)?;
    let status = acctd.wait(PATIENCE)?;
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
        (&["-ip4-src-group=65536"], "not an NFLOG group"),
        (&["-ip4-src-group=0,5"], "group 0 means \"off\""),
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
        (
            &["-ip4-src-group", "-utc"],
            "\"-utc\" is not an NFLOG group",
        ),
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
