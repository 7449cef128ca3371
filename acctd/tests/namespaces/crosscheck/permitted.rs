//! What a start of the cross-check requires: capabilities, locked memory, the first user namespace.

use std::process::Output;

use anyhow::{Result, ensure};
use testkit::netns::Privilege;

use super::attaching::{INGRESS_ONLY, ensure_nothing_left, rig, some_traffic};
use super::{checked, nflog_sums, tc_sums};
use crate::doctor::names_first;
use crate::errors::{as_nobody_with, complains, fails, set_mode};
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
use crate::{Case, Needs, kernel};

pub(super) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_without_capabilities_names_them",
        without_capabilities,
    ),
    (
        Needs::Before(kernel::WITHOUT_MEMLOCK),
        "crosscheck_with_little_locked_memory_is_refused_with_the_cure",
        little_locked_memory,
    ),
    (
        Needs::Root,
        "crosscheck_by_an_ordinary_user_with_the_units_capabilities",
        an_ordinary_user,
    ),
    (
        Needs::Root,
        "crosscheck_in_a_user_namespace_is_refused",
        in_a_user_namespace,
    ),
];

fn without_capabilities() -> Result<()> {
    let rig = rig()?;
    for (capabilities, missing) in [
        ("+net_admin", "requires CAP_BPF and CAP_PERFMON; run"),
        ("+net_admin,+bpf", "requires CAP_PERFMON; run"),
    ] {
        let output = rig
            .acctd_limited(capabilities)
            .args(INGRESS_ONLY)
            .output()?;
        complains(&output, 1, missing)?;
        let n_lines = String::from_utf8_lossy(&output.stderr).lines().count();
        // The memory, the nice value, who it is, and the error.
        ensure!(n_lines <= 4, "{output:?}");
        ensure_nothing_left(&rig)?;
    }
    for (capabilities, args) in [
        ("+net_admin", &INGRESS_ONLY[..4]),
        ("+net_admin,+bpf,+perfmon", &INGRESS_ONLY[..]),
    ] {
        let acctd = Acctd::spawn(rig.acctd_limited(capabilities).args(args))?;
        acctd.wait_for_line("Started accounting")?;
        acctd.finish()?;
    }
    Ok(())
}

/// `RLIMIT_MEMLOCK` as Linux before 5.11 sets it at boot, and no capability to raise it.
fn little_locked_memory() -> Result<()> {
    const NAMED: &str =
        "counts eBPF maps against RLIMIT_MEMLOCK, which is 65.5 kB; set LimitMEMLOCK=infinity";
    let rig = rig()?;
    let limited = |args: &[&str]| -> Result<Output> {
        let mut command = rig.router.command("setpriv");
        let capabilities = "--bounding-set=-all,+net_admin,+bpf,+perfmon,+sys_nice";
        command.args([capabilities, "--inh-caps=-all"]);
        command.args(["prlimit", "--memlock=65536:65536"]);
        command.arg(rig.acctd_path()).args(args);
        Ok(command
            .arg("-log-directory")
            .arg(rig.log_directory())
            .output()?)
    };
    complains(&limited(&INGRESS_ONLY)?, 1, NAMED)?;
    let doctor = limited(&[&["doctor"], &INGRESS_ONLY[..]].concat())?;
    let cure = NAMED.replace("; set", " -> set");
    let line = names_first("locked memory", &doctor, "crosscheck-not-loaded")?;
    ensure!(line.contains(&cure), "{line}");
    ensure_nothing_left(&rig)
}

/// As the package's unit starts it.
fn an_ordinary_user() -> Result<()> {
    let rig = rig()?;
    let mut command = as_nobody_with(&rig, "+net_admin,+bpf,+perfmon")?;
    set_mode(rig.scratch(), 0o777)?;
    command.arg("-log-directory").arg(rig.log_directory());
    command.args(INGRESS_ONLY).arg("-priority=0");
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    some_traffic(&rig, 10_000)?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    let truth = rig.counter("v4")?;
    ensure!(truth.packets == 10_000);
    ensure!(nflog_sums(&intervals).source4 == truth && tc_sums(&intervals).source4 == truth);
    ensure_nothing_left(&rig)
}

fn in_a_user_namespace() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::UserNamespaceAs(65_534))?;
    rig.rules(LOG_AND_DROP)?;
    fails(
        &rig,
        &INGRESS_ONLY,
        1,
        "requires CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN in the first user namespace",
    )?;
    let acctd = rig.acctd(&INGRESS_ONLY[..4])?;
    some_traffic(&rig, 1_000)?;
    acctd.finish()?;
    ensure!(totals(&rig.files()?, true) == (rig.counter("v4")?, NONE));
    Ok(())
}
