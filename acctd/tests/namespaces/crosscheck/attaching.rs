//! Both ways of attaching: alone and beside others, what is left behind, and devices that go away.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::Signal;
use testkit::netns::Privilege;
use testkit::traffic::TrafficArgs;
use testkit::veth::Veth;

use super::{
    BOTH_WAYS, COMPLETE, Checked, CheckedRow, Router, checked, ensure_totals, sum, tc_sums,
};
use crate::errors::complains;
use crate::kernel::{self, attach_modes, scaled};
use crate::rig::{Ended, LOG_AND_DROP, NONE, Rig, within};
use crate::waiting::{wait_for_files, wait_for_lines};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (Needs::Tcx, "crosscheck_by_tcx_counts_exactly", || {
        each_way("tcx")
    }),
    (Needs::Root, "crosscheck_by_clsact_counts_exactly", || {
        each_way("clsact")
    }),
    (
        Needs::Root,
        "crosscheck_by_auto_takes_tcx_if_it_is_there",
        || each_way("auto"),
    ),
    (
        Needs::Root,
        "crosscheck_an_interface_that_goes_and_comes_back_raises_no_alarm",
        an_interface_that_goes_and_comes_back,
    ),
    (
        Needs::Root,
        "crosscheck_a_run_shorter_than_its_interval_raises_no_alarm",
        a_run_shorter_than_its_interval,
    ),
    (
        Needs::Root,
        "crosscheck_a_start_that_fails_leaves_nothing",
        a_start_that_fails,
    ),
    (
        Needs::Tcx,
        "crosscheck_after_a_kill_tcx_is_gone",
        after_a_kill_tcx_is_gone,
    ),
    (
        Needs::Root,
        "crosscheck_after_a_kill_the_next_start_cleans_clsact",
        after_a_kill_the_next_start_cleans,
    ),
];

pub(super) const INGRESS_ONLY: [&str; 5] = [
    "-interval=1s",
    "-utc",
    "-ip4-src-group=5",
    "-ip6-src-group=7",
    "-crosscheck=lan0",
];

pub(super) fn with<'a>(args: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [args, more].concat()
}

pub(super) fn rig() -> Result<Rig> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    Ok(rig)
}

pub(super) fn some_traffic(rig: &Rig, count: u64) -> Result<()> {
    let traffic = TrafficArgs {
        sources: 100,
        count,
        rate: 20_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    };
    rig.send(&traffic).map(drop)
}

/// The names of the TCX programs on `lan0`, in their order.
pub(super) fn tcx_programs(rig: &Rig, hook: TcAttachType) -> Result<Vec<String>> {
    let programs = query_tcx(rig, hook)?;
    Ok(programs.into_iter().map(|(_, name)| name).collect())
}

/// Their ids and names.
pub(super) fn query_tcx(rig: &Rig, hook: TcAttachType) -> Result<Vec<(u32, String)>> {
    if kernel::tcx().is_err() {
        return Ok(Vec::new());
    }
    within(&rig.router, || {
        let (_, programs) = SchedClassifier::query_tcx("lan0", hook)?;
        let programs = programs.iter().map(|program| {
            let name = program.name_as_str().unwrap_or_default();
            (program.id(), name.to_owned())
        });
        Ok(programs.collect())
    })
}

pub(super) fn filters(rig: &Rig, hook: &str) -> Result<String> {
    rig.router
        .run(&["tc", "-s", "filter", "show", "dev", "lan0", hook])
}

pub(super) fn n_filters(rig: &Rig) -> Result<usize> {
    Ok(filters(rig, "ingress")?
        .matches("acctd_ingress_source")
        .count())
}

/// How many programs are on ingress, however they are attached.
pub(super) fn n_attached(rig: &Rig) -> Result<usize> {
    Ok(tcx_programs(rig, TcAttachType::Ingress)?.len() + n_filters(rig)?)
}

pub(super) fn qdiscs(rig: &Rig) -> Result<String> {
    rig.router.run(&["tc", "qdisc", "show", "dev", "lan0"])
}

pub(super) fn tc(rig: &Rig, line: &str) -> Result<()> {
    let words: Vec<&str> = ["tc"].into_iter().chain(line.split(' ')).collect();
    rig.router.run(&words).map(drop)
}

pub(super) fn ensure_nothing_left(rig: &Rig) -> Result<()> {
    for hook in [TcAttachType::Ingress, TcAttachType::Egress] {
        let programs = tcx_programs(rig, hook)?;
        ensure!(programs.is_empty(), "{hook:?}: {programs:?} were left");
    }
    for hook in ["ingress", "egress"] {
        let filters = filters(rig, hook)?;
        ensure!(filters.is_empty(), "{hook}: left are {filters}");
    }
    let qdiscs = qdiscs(rig)?;
    ensure!(!qdiscs.contains("clsact"), "left is {qdiscs}");
    Ok(())
}

fn each_way(way: &str) -> Result<()> {
    let router = Router::new(&COMPLETE)?;
    let flag = format!("-crosscheck-attach={way}");
    let acctd = router.acctd(&with(&BOTH_WAYS, &[&flag]))?;
    let is_tcx = way != "clsact" && kernel::tcx().is_ok();
    for (hook, word, name) in [
        (TcAttachType::Ingress, "ingress", "acctd_ingress_source"),
        (TcAttachType::Egress, "egress", "acctd_egress_dest"),
    ] {
        let programs = tcx_programs(&router.rig, hook)?;
        // The kernel cuts names to 15 bytes.
        let expected = if is_tcx { vec![&name[..15]] } else { vec![] };
        ensure!(programs == expected, "{word}: {programs:?}");
        let filters = filters(&router.rig, word)?;
        ensure!(
            filters.contains(name) != is_tcx && filters.contains("pref 1 ") != is_tcx,
            "{word}: {filters}"
        );
    }
    ensure!(qdiscs(&router.rig)?.contains("clsact") != is_tcx);
    for traffic in [router.ip4()?, router.ip6()?] {
        router.rig.send(&TrafficArgs {
            count: 30_000,
            rate: 20_000,
            ..traffic
        })?;
    }
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let truth = router.truth()?;
    for interval in &intervals {
        let overflow = interval.uncounted("overflow");
        ensure!(overflow == NONE, "the map had no room: {overflow:?}");
    }
    ensure!(
        truth.source4.packets == 30_000 && truth.dest6.packets >= 30_000,
        "{truth:?}"
    );
    ensure_totals(&intervals, truth)?;
    // A last interval of some milliseconds may have no epoch, and where acctd had to wait for the processor an epoch may
    // have counted several intervals.
    for interval in &intervals {
        for row in &interval.rows {
            let is_excused = !interval.crosscheck.comparable && row.verdict == "not checked";
            ensure!(row.verdict == "match" || is_excused, "{row:?}");
        }
    }
    ensure!(intervals.iter().any(|it| it.crosscheck.comparable));
    ensure_nothing_left(&router.rig)
}

/// All of it amid traffic: what was on its way at the start and at the stop is known to the kernel's
/// count, however few intervals there are.
fn a_run_shorter_than_its_interval() -> Result<()> {
    let rig = rig()?;
    let mut traffic = rig.send_in_background(&TrafficArgs {
        sources: 100,
        count: 2_000_000,
        rate: scaled(50_000),
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    for (interval, phase) in [
        ("36500d", 0),
        ("36500d", 300),
        ("2s", 1_700),
        ("2s", 1_500),
        ("2s", 200),
    ] {
        wait_for_phase(phase)?;
        let flag = format!("-interval={interval}");
        let acctd = rig.acctd(&[&flag, "-utc", "-ip4-src-group=5", "-crosscheck=lan0"])?;
        thread::sleep(Duration::from_millis(600));
        acctd.finish()?;
        ensure!(traffic.process().try_wait()?.is_none());
        for interval in checked(&rig)? {
            for row in &interval.rows {
                ensure!(row.verdict == "match", "{flag}: {row:?}");
            }
        }
        fs::remove_dir_all(rig.log_directory())?;
    }
    Ok(())
}

/// Until the wall clock is so far into an interval of two seconds.
fn wait_for_phase(millis: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let phase = u64::try_from(now.as_millis() % 2_000)?;
    thread::sleep(Duration::from_millis((2_000 + millis - phase) % 2_000));
    Ok(())
}

/// Before and after the interval before is closed; and replaced so fast that it was never missed.
fn an_interface_that_goes_and_comes_back() -> Result<()> {
    let mut rig = rig()?;
    let args = [
        "-interval=2s",
        "-utc",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ];
    let acctd = rig.acctd(&args)?;
    let mut n_sent = 0;
    let mut send = |rig: &Rig, count: u64| {
        n_sent += count;
        some_traffic(rig, count)
    };
    let mut n_gone = 0;
    for (round, (phase, is_at_once)) in [(100, false), (1_500, false), (50, true), (50, true)]
        .into_iter()
        .enumerate()
    {
        send(&rig, 2_000)?;
        wait_for_phase(phase)?;
        rig.router.run(&["ip", "link", "del", "lan0"])?;
        if !is_at_once {
            n_gone += 1;
            wait_for_lines(&acctd, "lan0 is gone", n_gone)?;
            // It looks each second. What is sent next is to be logged before its program is back.
            acctd.signal(Signal::STOP)?;
        }
        rig.veth = Veth::new(&rig.router, "lan0", &rig.wire, "wire0")?;
        if !is_at_once {
            // In an interval in which acctd has not looked yet.
            wait_for_phase(50)?;
        }
        send(&rig, 500)?;
        acctd.signal(Signal::CONT)?;
        wait_for_lines(&acctd, "lan0 is back and is cross-checked again", round + 1)?;
        ensure!(n_attached(&rig)? == 1);
        if round == 0 {
            // Or the next change would excuse this one's interval.
            wait_for_files(&acctd, 2)?;
        }
    }
    // Two intervals later nothing of that is left.
    wait_for_files(&acctd, 2)?;
    let n_before = checked(&rig)?.len();
    send(&rig, 3_000)?;
    let ended = acctd.finish()?;
    ended.line("warning: lan0 is gone: its packets are not cross-checked until it is back")?;
    let intervals = checked(&rig)?;
    let truth = rig.counter("v4")?;
    let rows = || intervals.iter().flat_map(|interval| &interval.rows);
    ensure!(truth.packets == n_sent);
    ensure!(sum(rows(), |row| row.source) == truth);
    for row in rows() {
        ensure!(
            row.verdict == "not checked" || (row.verdict == "match" && row.is_equal()),
            "{row:?}\n{}",
            ended.log.join("\n")
        );
    }
    // Without the right mark, these would be extra.
    ensure!(rows().any(|row| row.verdict == "not checked" && !row.is_equal()));
    let later = &intervals[n_before..];
    // A last one of some milliseconds may have no epoch.
    ensure!(
        later
            .iter()
            .all(|it| it.crosscheck.comparable || it.rows.is_empty())
    );
    ensure!(tc_sums(later).source4.packets == 3_000);
    Ok(())
}

fn a_start_that_fails() -> Result<()> {
    let rig = rig()?;
    for way in attach_modes() {
        let flag = format!("-crosscheck-attach={way}");
        fails_behind_the_attaching(&rig, &[&flag])?;
        ensure_nothing_left(&rig)?;
    }
    Ok(())
}

/// There are descriptors for the cross-check, but not for that many groups.
pub(super) fn fails_behind_the_attaching(rig: &Rig, more: &[&str]) -> Result<()> {
    let output = rig
        .router
        .command("sh")
        .args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""])
        .arg(rig.acctd_path())
        .arg("-log-directory")
        .arg(rig.log_directory())
        .args(with(&["-ip4-src-group=1-64", "-crosscheck=lan0"], more))
        .output()?;
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("Cross-checking lan0"),
        "{output:?}"
    );
    complains(
        &output,
        1,
        "Too many open files (os error 24); raise LimitNOFILE",
    )
}

pub(super) fn all_match<'a>(
    rows: impl IntoIterator<Item = &'a CheckedRow> + Clone,
    truth: testkit::nft::Count,
) -> Result<()> {
    for row in rows.clone() {
        ensure!(row.verdict == "match" && row.is_equal(), "{row:?}");
    }
    let counted = sum(rows, |row| row.tc_source);
    ensure!(counted == truth, "{counted:?} is not {truth:?}");
    Ok(())
}

pub(super) fn rows(intervals: &[Checked]) -> impl Iterator<Item = &CheckedRow> + Clone {
    intervals.iter().flat_map(|interval| &interval.rows)
}

/// A filter that copies packets from `source` to a device that is down, and so only counts them.
pub(super) fn add_foreign_filter(rig: &Rig, priority: u32, source: &str) -> Result<()> {
    rig.router.run(&[
        "ip", "link", "add", "sink0", "type", "veth", "peer", "name", "sink1",
    ])?;
    tc(
        rig,
        &format!(
            "filter add dev lan0 ingress pref {priority} protocol ip u32 match ip src {source} action mirred egress mirror dev sink0"
        ),
    )
}

pub(super) fn ensure_foreign_counted(rig: &Rig, count: u64) -> Result<()> {
    let filters = filters(rig, "ingress")?;
    ensure!(filters.contains(&format!(" {count} pkt")), "{filters}");
    ensure!(!filters.contains("acctd"), "{filters}");
    ensure!(qdiscs(rig)?.contains("clsact"));
    Ok(())
}

fn after_a_kill_tcx_is_gone() -> Result<()> {
    let rig = rig()?;
    let killed = rig.acctd(&INGRESS_ONLY)?.stop(Signal::KILL)?;
    ensure!(killed.code.is_none());
    ensure_nothing_left(&rig)?;
    let acctd = rig.acctd(&INGRESS_ONLY)?;
    some_traffic(&rig, 10_000)?;
    acctd.finish()?;
    all_match(rows(&checked(&rig)?), rig.counter("v4")?)?;
    ensure_nothing_left(&rig)
}

const REMOVED: &str = "warning: lan0: removed the filter acctd_ingress_source that an acctd which was killed had left";

fn after_a_kill_the_next_start_cleans() -> Result<()> {
    let clsact = with(&INGRESS_ONLY, &["-crosscheck-attach=clsact"]);
    let next = |rig: &Rig, way: &str| -> Result<Ended> {
        let flag = format!("-crosscheck-attach={way}");
        let acctd = rig.acctd(&with(&INGRESS_ONLY, &[&flag]))?;
        ensure!(n_filters(rig)? == usize::from(way == "clsact"));
        some_traffic(rig, 5_000)?;
        acctd.finish()
    };
    for way in attach_modes() {
        // The qdisc is acctd's, through two lives if need be.
        let rig = rig()?;
        for _ in 0..2 {
            rig.acctd(&clsact)?.stop(Signal::KILL)?;
            ensure!(n_filters(&rig)? == 1 && qdiscs(&rig)?.contains("clsact"));
        }
        next(&rig, way)?.line(REMOVED)?;
        all_match(rows(&checked(&rig)?), rig.counter("v4")?)?;
        ensure_nothing_left(&rig)?;
        // The qdisc was there before, and so was a filter.
        tc(&rig, "qdisc add dev lan0 clsact")?;
        add_foreign_filter(&rig, 10, "10.1.0.0/16")?;
        rig.acctd(&clsact)?.stop(Signal::KILL)?;
        next(&rig, way)?.line(REMOVED)?;
        ensure_foreign_counted(&rig, 5_000)?;
        tc(&rig, "filter del dev lan0 ingress")?;
        rig.acctd(&clsact)?.stop(Signal::KILL)?;
        next(&rig, way)?;
        ensure!(n_filters(&rig)? == 0 && qdiscs(&rig)?.contains("clsact"));
    }
    Ok(())
}
