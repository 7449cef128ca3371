//! acctd keeps no more privileges than it needs, and runs without root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use testkit::netns::Privilege;
use testkit::traffic::TrafficArgs;
use testkit::veth::Veth;

use super::named_namespace::Named;
use crate::errors::{as_nobody_with, complains, set_mode};
use crate::rig::{Acctd, Ended, LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::{wait_for_lines, wait_until_written};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "privileges_after_the_start_are_cap_net_admin_alone",
        cap_net_admin_alone,
    ),
    (
        Needs::Tcx,
        "privileges_with_a_cross_check_by_tcx_are_three_capabilities_for_its_whole_life",
        || three_capabilities("tcx"),
    ),
    (
        Needs::Root,
        "privileges_with_a_cross_check_by_clsact_are_three_capabilities_for_its_whole_life",
        || three_capabilities("clsact"),
    ),
    (
        Needs::Root,
        "privileges_to_follow_a_named_namespace_are_kept_out_of_effect",
        a_named_namespace,
    ),
    (
        Needs::Root,
        "privileges_where_cap_sys_admin_stands_for_cap_bpf_it_is_kept",
        cap_sys_admin_stands_for_cap_bpf,
    ),
    (
        Needs::Root,
        "privileges_that_are_given_up_do_not_hide_who_has_a_group",
        who_has_a_group,
    ),
    (
        Needs::Namespace,
        "files_are_0640_in_a_directory_of_0750_and_the_umask_takes_more_away",
        modes_of_files,
    ),
    (
        Needs::Namespace,
        "no_environment_is_logged_and_no_program_started",
        no_environment_and_no_program,
    ),
];

/// `linux/capability.h`.
pub(super) const DAC_OVERRIDE: u64 = 1 << 1;
pub(super) const NET_ADMIN: u64 = 1 << 12;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
pub(super) const FOR_A_CROSS_CHECK: u64 = NET_ADMIN | BPF | PERFMON;

/// What a thread may do, by `/proc/PID/task/TID/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rights {
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    bounding: u64,
    no_new_privs: u64,
}

impl Rights {
    /// Those capabilities and no others, whatever is executed.
    pub(super) const fn only(capabilities: u64) -> Self {
        Self {
            effective: capabilities,
            permitted: capabilities,
            inheritable: 0,
            ambient: 0,
            bounding: 0,
            no_new_privs: 1,
        }
    }

    fn read(status: &Path) -> Result<Self> {
        let text = fs::read_to_string(status)?;
        let field = |name: &str| -> Result<u64> {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            let value = value.with_context(|| format!("no {name}"))?;
            Ok(u64::from_str_radix(
                value.trim_start_matches(':').trim(),
                16,
            )?)
        };
        Ok(Self {
            effective: field("CapEff")?,
            permitted: field("CapPrm")?,
            inheritable: field("CapInh")?,
            ambient: field("CapAmb")?,
            bounding: field("CapBnd")?,
            no_new_privs: field("NoNewPrivs")?,
        })
    }
}

/// As an ordinary user, who keeps the bounding set, as it takes `CAP_SETPCAP` to have a smaller one.
pub(super) fn of_an_ordinary_user(capabilities: u64) -> Result<Rights> {
    Ok(Rights {
        bounding: Rights::read(Path::new("/proc/self/status"))?.bounding,
        ..Rights::only(capabilities)
    })
}

/// Each thread has exactly these rights. Readers, the writer and the cross-check have their own.
pub(super) fn ensure_each_thread_has(acctd: &Acctd, expected: Rights) -> Result<()> {
    let mut n_threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", acctd.pid()))? {
        let task = task?.path();
        let rights = Rights::read(&task.join("status"))?;
        ensure!(rights == expected, "{}: {rights:x?}", task.display());
        n_threads += 1;
    }
    ensure!(n_threads > 1, "only {n_threads} thread");
    Ok(())
}

/// Nor has been, if it was waited for: its page faults would be among the children's.
pub(super) fn ensure_no_program_was_started(acctd: &Acctd) -> Result<()> {
    let process = PathBuf::from(format!("/proc/{}", acctd.pid()));
    for task in fs::read_dir(process.join("task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        ensure!(children.is_empty(), "its children are {children}");
    }
    let stat = fs::read_to_string(process.join("stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a name")?;
    // `cminflt`, the 11th field of proc_pid_stat(5); these begin with the third.
    let faults = fields.split(' ').nth(8);
    ensure!(faults == Some("0"), "{faults:?} faults of children: {stat}");
    Ok(())
}

pub(super) fn some_traffic(rig: &Rig, count: u64) -> Result<()> {
    rig.send(&TrafficArgs {
        sources: 100,
        count,
        rate: 20_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    Ok(())
}

/// All that was sent is in the rows, once.
pub(super) fn ensure_counted(rig: &Rig, packets: u64) -> Result<()> {
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == packets, "{ip4:?}");
    let files = rig.files()?;
    ensure!(totals(&files, true) == (ip4, NONE), "{files:?}");
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

/// What both sides counted is the same in each row of every file.
pub(super) fn ensure_cross_checked(rig: &Rig, packets: u64) -> Result<()> {
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == packets, "{ip4:?}");
    ensure!(rig.summed("source_packets")? == packets);
    ensure!(rig.summed("source_bytes")? == ip4.bytes);
    ensure!(rig.summed("lost")? == 0);
    for summary in rig.summaries()? {
        let crosscheck = &summary["crosscheck"];
        for field in ["source_packets", "source_bytes"] {
            let kernels = &crosscheck[format!("tc_{field}")];
            ensure!(*kernels == summary[field], "{summary}");
        }
        for alarm in ["uncovered", "extra", "lost", "not_checked"] {
            let prefixes = &crosscheck["verdicts"][alarm]["prefixes"];
            ensure!(*prefixes == 0, "{summary}");
        }
    }
    Ok(())
}

pub(super) fn warnings(ended: &Ended) -> Vec<&str> {
    // Two runs within a second; and an interface that comes and goes waits for the kernel's lock of all interfaces, which
    // others may hold for seconds.
    let of_the_machine = [".csv was there already", "acctd was held up"];
    let mut warnings = ended.warnings();
    warnings.retain(|warning| !of_the_machine.iter().any(|part| warning.contains(part)));
    warnings
}

fn cap_net_admin_alone() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-checkpoint=100ms", "-ip4-src-group=5"])?;
    ensure_each_thread_has(&acctd, Rights::only(NET_ADMIN))?;
    some_traffic(&rig, 20_000)?;
    // By now each thread has done its work.
    wait_for_lines(&acctd, "Stats file", 2)?;
    ensure_each_thread_has(&acctd, Rights::only(NET_ADMIN))?;
    ensure_no_program_was_started(&acctd)?;
    let ended = acctd.finish()?;
    ensure!(
        !ended.log.iter().any(|line| line.contains("CAP_DAC")),
        "{:?}",
        ended.log
    );
    ensure_counted(&rig, 20_000)
}

fn three_capabilities(way: &str) -> Result<()> {
    let mut rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let attach = format!("-crosscheck-attach={way}");
    let args = [
        "-interval=1s",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
        &attach,
    ];
    let acctd = rig.acctd(&args)?;
    let expected = Rights::only(FOR_A_CROSS_CHECK);
    ensure_each_thread_has(&acctd, expected)?;
    some_traffic(&rig, 20_000)?;
    wait_until_written(&rig, 20_000)?;
    ensure_cross_checked(&rig, 20_000)?;
    for round in 1..=2 {
        rig.router.run(&["ip", "link", "del", "lan0"])?;
        wait_for_lines(&acctd, "lan0 is gone", round)?;
        rig.veth = Veth::new(&rig.router, "lan0", &rig.wire, "wire0")?;
        wait_for_lines(&acctd, "lan0 is back and is cross-checked again", round)?;
    }
    // The intervals in which it was away are over.
    let n_files = rig.summaries()?.len();
    wait_for_lines(&acctd, "Stats file", n_files + 3)?;
    some_traffic(&rig, 10_000)?;
    ensure_each_thread_has(&acctd, expected)?;
    ensure_no_program_was_started(&acctd)?;
    let ended = acctd.finish()?;
    let gone = "lan0 is gone: its packets are not cross-checked until it is back";
    ensure!(warnings(&ended) == [gone, gone], "{:?}", ended.log);
    let left = rig.router.run(&["tc", "qdisc", "show", "dev", "lan0"])?;
    ensure!(!left.contains("clsact"), "{left}");
    ensure_cross_checked(&rig, 30_000)
}

/// Some containers are given that and know no `CAP_BPF`.
fn cap_sys_admin_stands_for_cap_bpf() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let mut command = rig.acctd_limited("+net_admin,+sys_admin,+sys_nice");
    command.args(["-interval=1s", "-ip4-src-group=5", "-crosscheck=lan0"]);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    let expected = Rights {
        // It takes CAP_SETPCAP to have fewer.
        bounding: NET_ADMIN | SYS_ADMIN | (1 << 23),
        ..Rights::only(NET_ADMIN | SYS_ADMIN)
    };
    ensure_each_thread_has(&acctd, expected)?;
    some_traffic(&rig, 10_000)?;
    let ended = acctd.finish()?;
    ensure!(warnings(&ended).is_empty(), "{:?}", ended.log);
    ensure_cross_checked(&rig, 10_000)
}

/// That it is used is shown where such a namespace is made again.
fn a_named_namespace() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    let named = Named::make()?;
    let acctd = named.acctd(&rig, &[])?;
    let expected = Rights {
        effective: NET_ADMIN,
        ..Rights::only(NET_ADMIN | SYS_ADMIN)
    };
    ensure_each_thread_has(&acctd, expected)?;
    acctd.finish()?;
    Ok(())
}

/// Who that is only root with all its capabilities can see.
fn who_has_a_group() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    set_mode(rig.scratch(), 0o777)?;
    let mut theirs = as_nobody_with(&rig, "+net_admin")?;
    let directory = rig.scratch().join("theirs");
    theirs.args(["-ip4-src-group=5", "-log-directory"]);
    let theirs = Acctd::spawn(theirs.arg(&directory))?;
    theirs.wait_for_line("Started accounting")?;
    let mut command = rig.acctd_command();
    let output = command
        .args(["-ip6-src-group=5", "-crosscheck=lan0"])
        .output()?;
    let expected = format!(
        "group 5 is taken by pid {} (acctd): stop it or choose another group",
        theirs.pid()
    );
    complains(&output, 1, &expected)?;
    theirs.finish()?;
    Ok(())
}

fn mode(path: &Path) -> Result<u32> {
    let found = fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(found.mode() & 0o7777)
}

fn modes_of_files() -> Result<()> {
    for (umask, of_directories, of_files) in [
        ("0", 0o750, 0o640),
        ("027", 0o750, 0o640),
        ("077", 0o700, 0o600),
    ] {
        let rig = Rig::new()?;
        let directory = rig.log_directory().join("below");
        let profile = rig.scratch().join("profile");
        let script = format!("umask {umask} && exec \"$0\" \"$@\"");
        let mut command = rig.router.command("sh");
        command
            .args(["-c", &script])
            .arg(rig.acctd_path())
            .args(["-interval=1s", "-checkpoint=100ms", "-ip4-src-group=5"])
            .arg(format!("-cpuprofile={}", profile.display()))
            .arg("-log-directory")
            .arg(&directory);
        let acctd = Acctd::spawn(&mut command)?;
        wait_for_lines(&acctd, "Stats file", 1)?;
        // The lock, for one, is only there while acctd runs.
        let mut paths = vec![profile];
        for entry in fs::read_dir(&directory)? {
            paths.push(entry?.path());
        }
        acctd.finish()?;
        for entry in fs::read_dir(&directory)? {
            paths.push(entry?.path());
        }
        let mut endings: Vec<&str> = paths
            .iter()
            .filter_map(|path| path.extension()?.to_str())
            .collect();
        endings.sort_unstable();
        endings.dedup();
        for ending in ["csv", "jsonl", "lock"] {
            ensure!(endings.contains(&ending), "no {ending}: {paths:?}");
        }
        // What was renamed or removed has no mode any more.
        for path in paths.iter().filter(|path| path.exists()) {
            let mode = mode(path)?;
            ensure!(
                mode == of_files,
                "umask {umask}: {}: {mode:o}",
                path.display()
            );
        }
        for path in [rig.log_directory(), directory] {
            let mode = mode(&path)?;
            ensure!(
                mode == of_directories,
                "umask {umask}: {}: {mode:o}",
                path.display()
            );
        }
    }
    Ok(())
}

fn no_environment_and_no_program() -> Result<()> {
    const SECRET: &str = "a-token-of-somebody";
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let mut command = rig.acctd_command();
    command
        .args(["-interval=1s", "-debug", "-ip4-src-group=5"])
        .env("SOME_TOKEN", SECRET)
        .env("ACCTD_TOKEN", SECRET)
        .env("RUST_LOG", "trace");
    if Privilege::of_this_process() == Privilege::Root {
        command.arg("-crosscheck=lan0");
    }
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    some_traffic(&rig, 100)?;
    wait_for_lines(&acctd, "Stats file", 2)?;
    ensure_no_program_was_started(&acctd)?;
    let ended = acctd.finish()?;
    for line in &ended.log {
        ensure!(
            !line.contains(SECRET) && !line.contains("SOME_TOKEN"),
            "{line}"
        );
    }
    // Nor what a value is that cannot be.
    let output = rig
        .acctd_command()
        .args(["-interval=7s", "-ip4-src-group=5"])
        .env("SOME_TOKEN", SECRET)
        .output()?;
    complains(&output, 2, "does not divide a day")?;
    ensure!(!String::from_utf8_lossy(&output.stderr).contains(SECRET));
    ensure_counted_with_any_columns(&rig, 100)
}

/// With a cross-check or without.
fn ensure_counted_with_any_columns(rig: &Rig, packets: u64) -> Result<()> {
    ensure!(rig.counter("v4")?.packets == packets);
    ensure!(rig.summed("source_packets")? == packets);
    Ok(())
}
