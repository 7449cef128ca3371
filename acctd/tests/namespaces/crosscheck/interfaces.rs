//! Interfaces that are not there at the start, are moved or renamed, and programs of somebody else's that
//! are put in front of acctd's, or detach them: accounting continues, no alarm is raised, and acctd is back in
//! its place.

use std::net::IpAddr;
use std::thread::{self};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::netns::Namespace;
use testkit::veth::Veth;

use super::attaching::{INGRESS_ONLY, ensure_nothing_left, rig, rows, some_traffic, with};
use super::{Checked, checked, sum};
use crate::errors::fails;
use crate::kernel::attach_modes;
use crate::listen::ask;
use crate::rig::{Acctd, Rig};
use crate::waiting::{PATIENCE, wait_for_files, wait_for_lines};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_an_interface_that_comes_after_the_start_is_attached_then",
        an_interface_that_comes_later,
    ),
    (
        Needs::Root,
        "crosscheck_an_interface_that_is_moved_or_renamed_raises_no_alarm",
        moved_or_renamed,
    ),
    (
        Needs::Root,
        "crosscheck_two_interfaces_that_exchange_their_names_are_both_attached",
        names_exchanged,
    ),
    (
        Needs::Root,
        "crosscheck_what_nothing_will_cure_refuses_the_start",
        what_nothing_will_cure,
    ),
];

/// What is in no row's favour: equal counts match, others are not checked, and none is lost.
pub(super) fn ensure_no_alarm(rig: &Rig) -> Result<Vec<Checked>> {
    let intervals = checked(rig)?;
    for row in rows(&intervals) {
        ensure!(
            row.verdict == "not checked" || (row.verdict == "match" && row.is_equal()),
            "{row:?}"
        );
    }
    let counted = sum(rows(&intervals), |row| row.source);
    let truth = rig.counter("v4")?;
    ensure!(counted == truth, "{counted:?} is not {truth:?}");
    Ok(intervals)
}

/// All is in its place again: the kernel counts each packet in an interval that is compared.
pub(super) fn ensure_checked_again(rig: &Rig, acctd: Acctd) -> Result<Vec<String>> {
    // The next interval but one has seen nothing of what was.
    wait_for_files(&acctd, 3)?;
    some_traffic(rig, 3_000)?;
    let log = acctd.finish()?.log;
    let intervals = ensure_no_alarm(rig).with_context(|| log.join("\n"))?;
    let compared = intervals.iter().filter(|one| one.crosscheck.comparable);
    let n_compared: u64 = compared.map(|one| one.tally("match").packets).sum();
    ensure!(n_compared >= 3_000, "{n_compared} were compared: {log:?}");
    ensure_nothing_left(rig)?;
    Ok(log)
}

fn get(rig: &Rig, path: &str) -> Result<(u16, String)> {
    let socket = rig.scratch().join("acctd.sock");
    ask(&socket, &format!("GET {path} HTTP/1.1"))
}

/// acctd looks at its interfaces each second.
fn wait_for_health(rig: &Rig, is_so: impl Fn(&str) -> bool) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, health) = get(rig, "/healthz")?;
        ensure!(code == 200, "{code} {health}");
        if is_so(&health) {
            return Ok(health);
        }
        ensure!(Instant::now() < end, "{health}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn an_interface_that_comes_later() -> Result<()> {
    const MISSING: &str =
        "there is no interface late0: its packets are not cross-checked until it comes";
    for way in attach_modes() {
        let rig = rig()?;
        let listen = format!("-listen=unix:{}/acctd.sock", rig.scratch().display());
        let flag = format!("-crosscheck-attach={way}");
        let acctd = rig.acctd(&[
            "-interval=1s",
            "-utc",
            "-ip4-src-group=5",
            "-crosscheck=lan0,late0",
            &flag,
            &listen,
        ])?;
        acctd.wait_for_line(&format!("warning: {MISSING}"))?;
        acctd.wait_for_line("Cross-checking lan0")?;
        acctd.wait_for_line("Listening on")?;
        let metric = |name: &str| format!("{name}{{interface=\"late0\"}}");
        let attached = metric("acctd_crosscheck_interface_attached");
        let metrics = get(&rig, "/metrics")?.1;
        ensure!(metrics.contains(&format!("{attached} 0.0\n")), "{metrics}");
        // Accounting is well: to start it again cures nothing.
        let is_waited_for = wait_for_health(&rig, |health| health.contains(MISSING))?;
        ensure!(is_waited_for.starts_with("ok\n"), "{is_waited_for}");
        let status: Value = serde_json::from_str(&get(&rig, "/status")?.1)?;
        ensure!(status["crosscheck"]["attached"] == serde_json::json!(["lan0"]));
        some_traffic(&rig, 2_000)?;
        let late = Veth::new(&rig.router, "late0", &rig.wire, "wire1")?;
        acctd.wait_for_line("Cross-checking late0")?;
        ensure!(
            acctd
                .log()
                .iter()
                .filter(|line| line.contains(MISSING))
                .count()
                == 1
        );
        wait_for_health(&rig, |health| health == "ok\n")?;
        let metrics = get(&rig, "/metrics")?.1;
        ensure!(metrics.contains(&format!("{attached} 1.0\n")), "{metrics}");
        // What comes by it is seen.
        wait_for_files(&acctd, 2)?;
        let by_late = testkit::traffic::TrafficArgs {
            sources: 10,
            count: 1_000,
            dev: late.far.clone(),
            to_mac: late.near_mac,
            ..rig.traffic("10.2.0.0/16", "10.255.0.1/32")?
        };
        rig.send(&by_late)?;
        ensure_checked_again(&rig, acctd)?;
        let late_net: IpAddr = "10.2.0.0".parse()?;
        let intervals = checked(&rig)?;
        let by_late = rows(&intervals).filter(|row| row.ip >= late_net);
        ensure!(by_late.clone().all(|row| row.verdict == "match"));
        ensure!(sum(by_late, |row| row.tc_source).packets == 1_000);
    }
    Ok(())
}

fn elsewhere(rig: &Rig) -> Result<Namespace> {
    rig.router.peer()
}

fn ip(namespace: &Namespace, line: &str) -> Result<()> {
    let words: Vec<&str> = ["ip"].into_iter().chain(line.split(' ')).collect();
    namespace.run(&words).map(drop)
}

fn moved_or_renamed() -> Result<()> {
    for way in attach_modes() {
        let rig = rig()?;
        let flag = format!("-crosscheck-attach={way}");
        let acctd = rig.acctd(&with(&INGRESS_ONLY, &[&flag]))?;
        let other = elsewhere(&rig)?;
        let (home, away) = (rig.router.pid(), other.pid());
        some_traffic(&rig, 1_000)?;
        // For long enough to be seen, and for a moment, after which it has the same name and index.
        for (round, is_seen) in [true, false].into_iter().enumerate() {
            ip(&rig.router, &format!("link set lan0 netns {away}"))?;
            ip(&other, "link set lan0 up")?;
            if is_seen {
                acctd.wait_for_line("warning: lan0 is gone")?;
            }
            // Nobody logs these.
            some_traffic(&rig, 700)?;
            ip(&other, &format!("link set lan0 netns {home}"))?;
            ip(&rig.router, "link set lan0 up")?;
            wait_for_lines(&acctd, "lan0 is back and is cross-checked again", round + 1)?;
            some_traffic(&rig, 300)?;
        }
        // Renamed, and its name given back.
        let gone = "warning: lan0 is gone";
        let log = acctd.log();
        let n_gone = log.iter().filter(|line| line.contains(gone)).count();
        ip(&rig.router, "link set lan0 down")?;
        ip(&rig.router, "link set lan0 name new0")?;
        ip(&rig.router, "link set new0 up")?;
        wait_for_lines(&acctd, gone, n_gone + 1)?;
        some_traffic(&rig, 500)?;
        ip(&rig.router, "link set new0 down")?;
        ip(&rig.router, "link set new0 name lan0")?;
        ip(&rig.router, "link set lan0 up")?;
        wait_for_lines(&acctd, "lan0 is back and is cross-checked again", 3)?;
        ensure_checked_again(&rig, acctd)?;
    }
    Ok(())
}

/// Each has the programs of the other's name for a moment, and no hook takes a program twice.
fn names_exchanged() -> Result<()> {
    let rig = rig()?;
    let _other = Veth::new(&rig.router, "wan0", &rig.wire, "wire1")?;
    let args = with(&INGRESS_ONLY[..4], &["-crosscheck=lan0,wan0"]);
    let acctd = rig.acctd(&args)?;
    for line in [
        "link set lan0 down",
        "link set wan0 down",
        "link set lan0 name tmp0",
        "link set wan0 name lan0",
        "link set tmp0 name wan0",
        "link set wan0 up",
        "link set lan0 up",
    ] {
        ip(&rig.router, line)?;
    }
    for name in ["lan0", "wan0"] {
        acctd.wait_for_line(&format!("{name} is back and is cross-checked again"))?;
    }
    let log = ensure_checked_again(&rig, acctd)?;
    ensure!(
        !log.iter().any(|line| line.contains("cannot attach")),
        "{log:?}"
    );
    Ok(())
}

/// A capability that is missing comes with no interface.
fn what_nothing_will_cure() -> Result<()> {
    let rig = rig()?;
    let path = rig.scratch().join("nowhere.o");
    let flag = format!("-crosscheck-object={}", path.display());
    fails(
        &rig,
        &["-ip4-src-group=5", "-crosscheck=nosuch0", &flag],
        1,
        "nowhere.o: No such file or directory",
    )?;
    let mut command = rig.acctd_limited("+net_admin");
    let output = command
        .args(["-ip4-src-group=5", "-crosscheck=nosuch0"])
        .output()?;
    crate::errors::complains(&output, 1, "requires CAP_BPF and CAP_PERFMON; run")
}
