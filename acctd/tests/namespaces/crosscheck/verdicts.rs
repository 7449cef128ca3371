//! Rules with a hole, packets logged twice, lost or not kept.

use std::net::IpAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::netns::Privilege;
use testkit::nft::Count;
use testkit::traffic::{Sizes, TrafficArgs};

use super::{
    BOTH_WAYS, COMPLETE, Checked, CheckedRow, LINK_HEADER, Router, Tally, checked, ensure_no_alarm,
    lost, mixed, nflog_sums, sum, tc_sums,
};
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_one_source_of_a_thousand_that_a_rule_skips_is_uncovered",
        one_source_of_a_thousand,
    ),
    (
        Needs::Root,
        "crosscheck_one_packet_of_a_thousand_that_a_rule_skips_is_uncovered",
        one_packet_of_a_thousand,
    ),
    (
        Needs::Root,
        "crosscheck_what_is_logged_twice_is_extra",
        what_is_logged_twice_is_extra,
    ),
    (
        Needs::Root,
        "crosscheck_what_an_overflow_loses_is_lost",
        what_an_overflow_loses_is_lost,
    ),
    (
        Needs::Root,
        "crosscheck_kept_from_running_until_the_last_epoch_is_just_over_raises_no_alarm",
        kept_until_the_last_epoch_is_just_over,
    ),
    (
        Needs::Root,
        "crosscheck_a_loss_both_ways_is_lost_when_it_is_found_later",
        a_loss_both_ways,
    ),
    (
        Needs::Root,
        "crosscheck_prefixes_without_room_are_not_checked_and_totals_stay_exact",
        prefixes_without_room,
    ),
    (
        Needs::Root,
        "crosscheck_many_new_prefixes_at_once_find_room",
        many_new_prefixes_at_once,
    ),
];

/// Runs on to the next full second and some more, so that what is sent now is in one interval.
fn wait_for_a_fresh_second() -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let gone = Duration::from_nanos(now.subsec_nanos().into());
    thread::sleep(Duration::from_millis(1_150).saturating_sub(gone));
    Ok(())
}

/// The rows that are not `match`, with the interval's place.
fn findings(intervals: &[Checked]) -> Vec<(usize, &CheckedRow)> {
    let rows = intervals.iter().enumerate();
    rows.flat_map(|(at, interval)| interval.rows.iter().map(move |row| (at, row)))
        .filter(|(_, row)| row.verdict != "match")
        .collect()
}

fn one_source_of_a_thousand() -> Result<()> {
    const BURSTS: usize = 5;
    let skipped_source: IpAddr = "10.1.1.7".parse()?;
    let skipped_dest: IpAddr = "10.255.0.77".parse()?;
    let rules = COMPLETE
        .replace(
            "meta nfproto ipv4 counter",
            "ip saddr 10.1.1.7 accept\nmeta nfproto ipv4 counter",
        )
        .replace(
            "meta protocol ip counter",
            "ip daddr 10.255.0.77 accept\nmeta protocol ip counter",
        );
    let router = Router::new(&rules)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    let load = TrafficArgs {
        count: 10_000,
        rate: 20_000,
        size: Sizes { min: 100, max: 100 },
        ..router.ip4()?
    };
    for _ in 0..BURSTS {
        wait_for_a_fresh_second()?;
        router.rig.send(&load)?;
    }
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let found = findings(&intervals);
    let overflow: Vec<_> = (intervals.iter())
        .map(|one| one.uncounted("overflow").packets)
        .collect();
    ensure!(
        found.len() == 2 * BURSTS,
        "{} findings, {overflow:?} without room: {found:?}",
        found.len()
    );
    let sent_by_each = Count {
        packets: 10,
        bytes: 1_000,
    };
    let sent_to_each = Count {
        packets: 20,
        bytes: 2_000,
    };
    for interval in &intervals {
        let is_silent = interval.rows.is_empty();
        let expected = if is_silent { 0 } else { 2 };
        let tally = Tally {
            prefixes: expected,
            packets: 15 * expected,
            bytes: 1_500 * expected,
        };
        ensure!(interval.tally("uncovered") == tally, "{interval:?}");
        if is_silent {
            continue;
        }
        for row in &interval.rows {
            let is_source = row.tc_source != NONE;
            let is_skipped = row.ip == skipped_source || row.ip == skipped_dest;
            let tc = if is_source {
                (sent_by_each, NONE)
            } else {
                (NONE, sent_to_each)
            };
            let nflog = if is_skipped { (NONE, NONE) } else { tc };
            ensure!(
                (row.tc_source, row.tc_dest) == tc && (row.source, row.dest) == nflog,
                "{row:?}"
            );
            ensure!((row.verdict == "uncovered") == is_skipped, "{row:?}");
        }
        let worst = &interval.crosscheck.worst;
        ensure!(
            worst.len() == 2 && worst[0].ip == skipped_dest && worst[1].ip == skipped_source,
            "{worst:?}"
        );
    }
    Ok(())
}

/// nft's `numgen` counts the heavy prefix's packets and lets each thousandth pass unlogged.
fn one_packet_of_a_thousand() -> Result<()> {
    let heavy: IpAddr = "10.1.200.1".parse()?;
    let heavy_dest: IpAddr = "10.255.200.1".parse()?;
    let rules = COMPLETE
        .replace("counter in6 {}", "counter in6 {}\ncounter skipped_in {}")
        .replace("counter out6 {}", "counter out6 {}\ncounter skipped_out {}")
        .replace(
            "meta nfproto ipv4 counter",
            "ip saddr 10.1.200.1 numgen inc mod 1000 == 0 counter name skipped_in accept
             meta nfproto ipv4 counter",
        )
        .replace(
            "meta protocol ip counter",
            "ip daddr 10.255.200.1 numgen inc mod 1000 == 0 counter name skipped_out accept
             meta protocol ip counter",
        );
    let router = Router::new(&rules)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    let sent = TrafficArgs {
        count: 200_000,
        rate: 20_000,
        ..router.rig.traffic("10.1.200.1/32", "10.255.200.1/32")?
    };
    let heavy_load = router.rig.send_in_background(&sent)?;
    let others = router.rig.send_in_background(&TrafficArgs {
        count: 200_000,
        rate: 20_000,
        ..router.ip4()?
    })?;
    heavy_load.finish()?;
    others.finish()?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    for (_, row) in findings(&intervals) {
        ensure!(
            row.verdict == "uncovered" && (row.ip == heavy || row.ip == heavy_dest),
            "{row:?}"
        );
    }
    let (mut ingress, mut egress) = ((0, 0), (0, 0));
    let mut n_in_a_row_without = 0;
    for interval in &intervals {
        let Some(row) = interval.row(heavy) else {
            continue;
        };
        let n_missing = row.tc_source.packets - row.source.packets;
        let verdict = if n_missing > 0 { "uncovered" } else { "match" };
        ensure!(row.verdict == verdict, "{row:?}");
        let found = |ip: IpAddr| {
            let mut worst = interval.crosscheck.worst.iter();
            let found = worst.find(|worst| worst.ip == ip);
            found.map_or((0, 0), |worst| (worst.packets, worst.bytes))
        };
        ensure!(
            found(heavy).0 == i64::try_from(n_missing)?,
            "{:?}",
            interval.crosscheck.worst
        );
        ingress = (ingress.0 + found(heavy).0, ingress.1 + found(heavy).1);
        egress = (
            egress.0 + found(heavy_dest).0,
            egress.1 + found(heavy_dest).1,
        );
        n_in_a_row_without = if found(heavy_dest).0 > 0 {
            0
        } else {
            n_in_a_row_without + 1
        };
        ensure!(n_in_a_row_without < 10, "not found on egress");
    }
    // The findings of all intervals together are what was skipped.
    let Count { packets, bytes } = router.rig.counter("skipped_in")?;
    ensure!(packets == 200);
    ensure!(
        ingress == (i64::try_from(packets)?, i64::try_from(bytes)?),
        "{ingress:?}"
    );
    let Count { packets, bytes } = router.rig.counter("skipped_out")?;
    let bytes = bytes - packets * LINK_HEADER;
    ensure!(packets == 200);
    ensure!(
        egress == (i64::try_from(packets)?, i64::try_from(bytes)?),
        "{egress:?}"
    );
    Ok(())
}

fn what_is_logged_twice_is_extra() -> Result<()> {
    let twice_source: IpAddr = "10.1.0.9".parse()?;
    let twice_dest: IpAddr = "2001:db8:ff:3::".parse()?;
    let rules = COMPLETE
        .replace("counter in6 {}", "counter in6 {}\ncounter twice_in {}")
        .replace("counter out6 {}", "counter out6 {}\ncounter twice_out {}")
        .replace(
            "meta nfproto ipv4 counter",
            "ip saddr 10.1.0.9 counter name twice_in log group 5 snaplen 20 queue-threshold 500
             meta nfproto ipv4 counter",
        )
        .replace(
            "meta protocol ip6 counter",
            "ip6 daddr 2001:db8:ff:3::/64 counter name twice_out log group 6 snaplen 54 queue-threshold 500
             meta protocol ip6 counter",
        );
    let router = Router::new(&rules)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    for traffic in [router.ip4()?, router.ip6()?] {
        router.rig.send(&TrafficArgs {
            count: 60_000,
            rate: 20_000,
            ..traffic
        })?;
    }
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let found = findings(&intervals);
    ensure!(!found.is_empty());
    for (_, row) in &found {
        ensure!(
            row.verdict == "extra" && (row.ip == twice_source || row.ip == twice_dest),
            "{row:?}"
        );
        ensure!(row.source.packets == 2 * row.tc_source.packets, "{row:?}");
    }
    // On ingress in each interval, on egress at the latest in the next one.
    let mut difference = (0, 0);
    for interval in &intervals {
        for worst in &interval.crosscheck.worst {
            difference.0 -= worst.packets;
            difference.1 -= worst.bytes;
        }
    }
    let (source, dest) = (
        router.rig.counter("twice_in")?,
        router.egress_counter("twice_out")?,
    );
    ensure!(source.packets == 60 && dest.packets == 120);
    ensure!(
        difference
            == (
                i64::try_from(source.packets + dest.packets)?,
                i64::try_from(source.bytes + dest.bytes)?
            ),
        "{difference:?}, {source:?}, {dest:?}"
    );
    Ok(())
}

/// Stopped for less than the epochs reach ahead (on a busy machine, that is five seconds), and for longer: then
/// epochs have run together.
fn what_an_overflow_loses_is_lost() -> Result<()> {
    for (interval, tenths, others) in [
        ("-interval=5s", 4, &[][..]),
        ("-interval=1s", 90, &["not checked"][..]),
    ] {
        let rig = Rig::with_privilege(Privilege::Root)?;
        rig.rules(LOG_AND_DROP)?;
        let acctd = rig.acctd(&[interval, "-ip4-src-group=5", "-crosscheck=lan0"])?;
        let load = TrafficArgs {
            count: 100_000,
            rate: 100_000,
            ..mixed(rig.traffic("10.1.0.0/16", "10.255.0.0/16")?)
        };
        rig.send(&load)?;
        acctd.signal(Signal::STOP)?;
        rig.send(&TrafficArgs {
            count: 300_000,
            rate: 0,
            ..load.clone()
        })?;
        rig.send(&TrafficArgs {
            count: 10_000 * tenths,
            ..load.clone()
        })?;
        acctd.signal(Signal::CONT)?;
        // The gap shows with the packet behind it.
        thread::sleep(Duration::from_millis(2_300));
        rig.send(&load)?;
        acctd.finish()?;
        let intervals = checked(&rig)?;
        let truth = rig.counter("v4")?;
        let (tc, nflog) = (tc_sums(&intervals).source4, nflog_sums(&intervals).source4);
        ensure!(tc == truth, "TC {tc:?} != nft {truth:?}");
        let lost = lost(&intervals, 5);
        ensure!(
            lost > 0 && nflog.packets + lost == tc.packets,
            "lost {lost}"
        );
        ensure_no_alarm(&intervals, others)?;
        let tally =
            |verdict| -> u64 { intervals.iter().map(|one| one.tally(verdict).packets).sum() };
        ensure!(tally("lost") > 0, "nothing is lost");
        let all_comparable = intervals.iter().all(|one| one.crosscheck.comparable);
        ensure!(all_comparable == others.is_empty(), "{tenths}/10 s");
    }
    Ok(())
}

/// Epochs are in place for three seconds. What comes in the fourth is in the last of them, and that
/// must be known though none has run over its own time of closing.
fn kept_until_the_last_epoch_is_just_over() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5", "-crosscheck=lan0"])?;
    let load = TrafficArgs {
        count: 1_000,
        ..mixed(rig.traffic("10.1.0.0/16", "10.255.0.0/16")?)
    };
    rig.send(&load)?;
    wait_for_a_fresh_second()?;
    thread::sleep(Duration::from_millis(350));
    acctd.signal(Signal::STOP)?;
    thread::sleep(Duration::from_millis(2_700));
    rig.send(&load)?;
    thread::sleep(Duration::from_millis(300));
    acctd.signal(Signal::CONT)?;
    thread::sleep(Duration::from_millis(2_300));
    acctd.finish()?;
    let intervals = checked(&rig)?;
    ensure!(tc_sums(&intervals).source4 == rig.counter("v4")?);
    ensure!(nflog_sums(&intervals).source4 == rig.counter("v4")?);
    ensure_no_alarm(&intervals, &["not checked"])?;
    // The test is one of what it says only if they have run together.
    ensure!(intervals.iter().any(|one| !one.crosscheck.comparable));
    Ok(())
}

fn a_loss_both_ways() -> Result<()> {
    let router = Router::new(COMPLETE)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    let load = TrafficArgs {
        count: 50_000,
        rate: 50_000,
        ..router.ip4()?
    };
    router.rig.send(&load)?;
    acctd.signal(Signal::STOP)?;
    router.rig.send(&TrafficArgs {
        count: 400_000,
        rate: 0,
        ..load.clone()
    })?;
    acctd.signal(Signal::CONT)?;
    thread::sleep(Duration::from_millis(2_300));
    router.rig.send(&load)?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let truth = router.truth()?;
    let (tc, nflog) = (tc_sums(&intervals), nflog_sums(&intervals));
    ensure!(tc == truth, "TC {tc:?} != nft {truth:?}");
    for (group, counted, truth) in [
        (5, nflog.source4, truth.source4),
        (4, nflog.dest4, truth.dest4),
    ] {
        let lost = lost(&intervals, group);
        ensure!(lost > 0, "group {group} has lost nothing");
        ensure!(counted.packets + lost == truth.packets, "group {group}");
    }
    ensure_no_alarm(&intervals, &["not checked"])?;
    let n_lost: usize = (intervals.iter())
        .map(|one| one.with_verdict("lost").len())
        .sum();
    ensure!(n_lost > 0);
    Ok(())
}

fn prefixes_without_room() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&[
        "-interval=1s",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
        "-crosscheck-max-prefixes=100",
    ])?;
    rig.send(&TrafficArgs {
        count: 100_000,
        rate: 40_000,
        ..mixed(rig.traffic("10.1.0.0/16", "10.255.0.0/16")?)
    })?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    let truth = rig.counter("v4")?;
    let mut counted = tc_sums(&intervals).source4;
    for interval in &intervals {
        let Count { packets, bytes } = interval.uncounted("overflow");
        counted.packets += packets;
        counted.bytes += bytes;
        let of_nflog = sum(&interval.rows, |row| row.source);
        let of_kernel = sum(&interval.rows, |row| row.tc_source);
        ensure!(of_kernel.packets + packets == of_nflog.packets);
        let kept: Vec<_> = (interval.rows.iter())
            .filter(|row| row.tc_source != NONE)
            .collect();
        ensure!(
            interval.rows.is_empty() || kept.len() == 100,
            "{} kept",
            kept.len()
        );
        for row in &interval.rows {
            let verdict = if row.tc_source == NONE {
                "not checked"
            } else {
                "match"
            };
            ensure!(row.verdict == verdict, "{row:?}");
        }
    }
    ensure!(counted == truth, "{counted:?} != {truth:?}");
    Ok(())
}

/// Bursts of prefixes that no map has yet: there is room, but the kernel must also have memory for
/// them at once.
fn many_new_prefixes_at_once() -> Result<()> {
    let router = Router::new(COMPLETE)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    for burst in 1..=12 {
        router.rig.send(&TrafficArgs {
            sources: 2_000,
            dests: 2_000,
            count: 4_000,
            ..(router.rig).traffic(&format!("10.{burst}.0.0/16"), "10.255.0.0/16")?
        })?;
        thread::sleep(Duration::from_millis(500));
    }
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let overflow: Vec<u64> = (intervals.iter())
        .map(|one| one.uncounted("overflow").packets)
        .collect();
    ensure!(
        overflow.iter().all(|&packets| packets == 0),
        "no room in maps of 500,000 prefixes for {overflow:?} packets"
    );
    ensure!(tc_sums(&intervals) == router.truth()?);
    ensure_no_alarm(&intervals, &[])
}
