//! Programs and filters of others on the same interface: all of them run, and each goes with whoever put it there.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::programs::TcAttachType;
use rustix::process::Signal;
use testkit::traffic::TrafficArgs;

use super::attaching::{
    INGRESS_ONLY, add_foreign_filter, all_match, ensure_foreign_counted, ensure_nothing_left,
    filters, n_filters, qdiscs, rig, rows, some_traffic, tc, tcx_programs, with,
};
use super::{CheckedRow, checked, sum};
use crate::kernel::{self, attach_modes};
use crate::rig::{Acctd, Rig};
use crate::waiting::{wait_for_files, wait_for_lines};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Tcx,
        "crosscheck_two_acctds_share_an_interface_by_tcx",
        two_acctds_by_tcx,
    ),
    (
        Needs::Root,
        "crosscheck_two_acctds_share_an_interface_by_clsact",
        two_acctds_by_clsact,
    ),
    (
        Needs::Root,
        "crosscheck_foreign_filters_run_and_stay",
        foreign_filters,
    ),
    (
        Needs::Root,
        "crosscheck_a_filter_in_front_is_warned_of",
        a_filter_in_front,
    ),
    (
        Needs::Root,
        "crosscheck_an_ingress_qdisc_is_shared",
        an_ingress_qdisc,
    ),
    (
        Needs::Root,
        "crosscheck_filters_that_somebody_removes_are_put_back",
        filters_that_somebody_removes,
    ),
];

const TWO_GROUPS: &str = "
    table inet rig {
        counter v4 {}
        chain prerouting {
            type filter hook prerouting priority raw
            counter name v4 log group 5 snaplen 20 queue-threshold 50
            log group 15 snaplen 20 queue-threshold 50
            drop
        }
    }";

/// A second acctd in the same rig, with a directory of its own.
fn second(rig: &Rig, args: &[&str]) -> Result<Acctd> {
    let mut command = rig.router.command(rig.acctd_path());
    command
        .arg("-log-directory")
        .arg(rig.scratch().join("second"))
        .args([
            "-interval=1s",
            "-utc",
            "-ip4-src-group=15",
            "-crosscheck=lan0",
        ])
        .args(args);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    Ok(acctd)
}

/// What the second one's files say.
fn of_second(rig: &Rig) -> Result<Vec<CheckedRow>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(rig.scratch().join("second"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            let name = path.to_str().context("a path of ASCII")?;
            // Absolute, so the log directory does not matter.
            rows.extend(super::read_rows(rig, name)?);
        }
    }
    Ok(rows)
}

fn two_acctds_by_tcx() -> Result<()> {
    let rig = rig()?;
    rig.router.run(&["nft", "flush", "ruleset"])?;
    rig.rules(TWO_GROUPS)?;
    let first = rig.acctd(&[
        "-interval=1s",
        "-utc",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ])?;
    let other = second(&rig, &["-crosscheck-attach=tcx"])?;
    ensure!(tcx_programs(&rig, TcAttachType::Ingress)?.len() == 2);
    some_traffic(&rig, 20_000)?;
    other.finish()?;
    ensure!(tcx_programs(&rig, TcAttachType::Ingress)?.len() == 1);
    first.finish()?;
    let truth = rig.counter("v4")?;
    ensure!(truth.packets == 20_000);
    all_match(rows(&checked(&rig)?), truth)?;
    all_match(&of_second(&rig)?, truth)?;
    ensure_nothing_left(&rig)
}

fn two_acctds_by_clsact() -> Result<()> {
    let clsact = "-crosscheck-attach=clsact";
    // Whoever of them goes first, the qdisc goes with the last.
    for other_way in attach_modes() {
        for is_first_first in [true, false] {
            let rig = rig()?;
            rig.router.run(&["nft", "flush", "ruleset"])?;
            rig.rules(TWO_GROUPS)?;
            let first = rig.acctd(&with(&INGRESS_ONLY[..3], &["-crosscheck=lan0", clsact]))?;
            let other = second(&rig, &[&format!("-crosscheck-attach={other_way}")])?;
            ensure!(n_filters(&rig)? == 1 + usize::from(*other_way == "clsact"));
            some_traffic(&rig, 20_000)?;
            // Each has looked at what is in front of its own.
            wait_for_files(&first, 2)?;
            wait_for_files(&other, 2)?;
            let ended = if is_first_first {
                [first.finish()?, other.finish()?]
            } else {
                [other.finish()?, first.finish()?]
            };
            for ended in ended {
                ensure!(ended.line("in front").is_err(), "{:?}", ended.log);
                ensure!(ended.line("removed").is_err(), "{:?}", ended.log);
            }
            let truth = rig.counter("v4")?;
            all_match(rows(&checked(&rig)?), truth)?;
            all_match(&of_second(&rig)?, truth)?;
            ensure_nothing_left(&rig)?;
        }
    }
    Ok(())
}

fn foreign_filters() -> Result<()> {
    for way in attach_modes() {
        let rig = rig()?;
        tc(&rig, "qdisc add dev lan0 clsact")?;
        add_foreign_filter(&rig, 10, "10.1.0.0/16")?;
        let flag = format!("-crosscheck-attach={way}");
        let acctd = rig.acctd(&with(&INGRESS_ONLY, &[&flag]))?;
        some_traffic(&rig, 10_000)?;
        let ended = acctd.finish()?;
        ensure!(ended.warnings().is_empty(), "{:?}", ended.log);
        all_match(rows(&checked(&rig)?), rig.counter("v4")?)?;
        ensure_foreign_counted(&rig, 10_000)?;
    }
    // The qdisc was acctd's, but somebody uses it now.
    let rig = rig()?;
    let acctd = rig.acctd(&with(&INGRESS_ONLY, &["-crosscheck-attach=clsact"]))?;
    add_foreign_filter(&rig, 10, "10.1.0.0/16")?;
    some_traffic(&rig, 10_000)?;
    acctd.finish()?;
    ensure_foreign_counted(&rig, 10_000)
}

/// Nothing can run before a filter of another kind in the first priority, and what that one
/// hides is not counted.
fn a_filter_in_front() -> Result<()> {
    let rig = rig()?;
    tc(&rig, "qdisc add dev lan0 clsact")?;
    add_foreign_filter(&rig, 1, "10.1.0.0/26")?;
    let acctd = rig.acctd(&with(&INGRESS_ONLY, &["-crosscheck-attach=clsact"]))?;
    some_traffic(&rig, 10_000)?;
    let ended = acctd.finish()?;
    ended.line("warning: u32 filter of priority 1 on lan0 ingress stays in front of")?;
    let intervals = checked(&rig)?;
    ensure!(sum(rows(&intervals), |row| row.source) == rig.counter("v4")?);
    ensure!(sum(rows(&intervals), |row| row.tc_source).packets == 3_600);
    let first_kept: IpAddr = "10.1.0.64".parse()?;
    for row in rows(&intervals) {
        let verdict = if row.ip < first_kept {
            "not checked"
        } else {
            "match"
        };
        ensure!(row.verdict == verdict, "{row:?}");
    }
    ensure_foreign_counted(&rig, 6_400)
}

/// A shaper's: it has no egress, and acctd neither refuses it nor takes its place.
fn an_ingress_qdisc() -> Result<()> {
    const NO_EGRESS: &str = "warning: lan0 has the qdisc ingress, which acctd shares";
    let clsact = "-crosscheck-attach=clsact";
    let rig = rig()?;
    tc(&rig, "qdisc add dev lan0 ingress")?;
    // Two lives: a killed acctd's filter is found there too.
    rig.acctd(&with(&INGRESS_ONLY, &[clsact]))?
        .stop(Signal::KILL)?;
    for way in [clsact, "-crosscheck-attach=auto"] {
        let acctd = rig.acctd(&with(&INGRESS_ONLY, &[way]))?;
        let is_filter = way == clsact || kernel::tcx().is_err();
        ensure!(n_filters(&rig)? == usize::from(is_filter));
        some_traffic(&rig, 1_000)?;
        let ended = acctd.finish()?;
        // No group accounts what is sent.
        ensure!(ended.line(NO_EGRESS).is_err(), "{:?}", ended.log);
        ensure!(qdiscs(&rig)?.contains("qdisc ingress") && filters(&rig, "ingress")?.is_empty());
    }
    all_match(rows(&checked(&rig)?), rig.counter("v4")?)?;
    // One does: what is sent has no count of the kernel's.
    fs::remove_dir_all(rig.log_directory())?;
    let acctd = rig.acctd(&with(&INGRESS_ONLY, &[clsact, "-ip4-dst-group=4"]))?;
    some_traffic(&rig, 1_000)?;
    let ended = acctd.finish()?;
    ended.line(NO_EGRESS)?;
    let n_said = ended.log.iter().filter(|line| line.contains(NO_EGRESS));
    ensure!(n_said.count() == 1, "{:?}", ended.log);
    let intervals = checked(&rig)?;
    ensure!(intervals.iter().all(|one| !one.crosscheck.comparable));
    ensure!(sum(rows(&intervals), |row| row.tc_source).packets == 1_000);
    ensure!(qdiscs(&rig)?.contains("qdisc ingress"));
    // A shaper that is started again finds its place free, and acctd shares it anew.
    fs::remove_dir_all(rig.log_directory())?;
    let acctd = rig.acctd(&with(&INGRESS_ONLY, &[clsact]))?;
    tc(&rig, "qdisc del dev lan0 ingress")?;
    acctd.wait_for_line("warning: lan0 has no qdisc for filters: somebody has removed the one")?;
    tc(&rig, "qdisc add dev lan0 ingress")?;
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    ensure!(filters(&rig, "ingress")?.contains("acctd_ingress_source"));
    acctd.finish()?;
    ensure!(qdiscs(&rig)?.contains("qdisc ingress") && filters(&rig, "ingress")?.is_empty());
    Ok(())
}

fn filters_that_somebody_removes() -> Result<()> {
    let rig = rig()?;
    let acctd = rig.acctd(&with(&INGRESS_ONLY, &["-crosscheck-attach=clsact"]))?;
    acctd.wait_for_line("lan0: acctd has added the clsact qdisc; while it is there, no ingress")?;
    ensure!(tc(&rig, "qdisc add dev lan0 ingress").is_err());
    for (round, line) in ["qdisc del dev lan0 clsact", "filter del dev lan0 ingress"]
        .into_iter()
        .enumerate()
    {
        tc(&rig, line)?;
        some_traffic(&rig, 1_000)?;
        acctd.wait_for_line("warning: somebody has removed the cross-check's filters from lan0")?;
        wait_for_lines(&acctd, "lan0 is back and is cross-checked again", round + 1)?;
        ensure!(filters(&rig, "ingress")?.contains("acctd_ingress_source"));
        ensure!(filters(&rig, "egress")?.contains("acctd_egress_dest"));
    }
    wait_for_files(&acctd, 2)?;
    rig.send(&TrafficArgs {
        sources: 100,
        count: 2_000,
        rate: 20_000,
        ..rig.traffic("10.2.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    ensure!(sum(rows(&intervals), |row| row.source) == rig.counter("v4")?);
    for row in rows(&intervals) {
        ensure!(
            row.verdict == "not checked" || (row.verdict == "match" && row.is_equal()),
            "{row:?}"
        );
    }
    let last: IpAddr = "10.2.0.0".parse()?;
    let matched = rows(&intervals).filter(|row| row.verdict == "match" && row.ip >= last);
    ensure!(sum(matched, |row| row.tc_source).packets == 2_000);
    ensure_nothing_left(&rig)
}
