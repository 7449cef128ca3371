//! Complete rules: both counts are the nft counter's, and every row is `match`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use testkit::netns::Privilege;
use testkit::nft::Count;
use testkit::traffic::{Sizes, TrafficArgs};

use super::{
    BOTH_WAYS, COMPLETE, Checked, CheckedRow, NOTHING, Router, checked, ensure_no_alarm,
    ensure_no_false_verdict, ensure_sources_equal, ensure_totals, mixed, nflog_sums, sum, tc_sums,
};
use crate::kernel::scaled;
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig};
use crate::waiting::{wait_for_files, wait_until};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Alone(&Needs::Root),
        "crosscheck_a_million_packets_at_full_speed_match_in_every_row",
        a_million_packets_at_full_speed,
    ),
    (
        Needs::Root,
        "crosscheck_on_ingress_nothing_is_allowed_for",
        on_ingress_nothing_is_allowed_for,
    ),
    (
        Needs::Alone(&Needs::Root),
        "crosscheck_ten_intervals_of_heavy_traffic_raise_no_alarm",
        || intervals_of_heavy_traffic(10),
    ),
    (
        Needs::Soak,
        "soak_of_a_crosscheck_a_hundred_intervals_of_heavy_traffic_raise_no_alarm",
        || intervals_of_heavy_traffic(100),
    ),
    (
        Needs::Root,
        "crosscheck_groups_without_stamps_raise_no_alarm",
        groups_without_stamps_raise_no_alarm,
    ),
    (
        Needs::Root,
        "crosscheck_a_stop_just_before_a_boundary_ends_the_last_interval",
        stop_just_before_a_boundary,
    ),
    (
        Needs::Root,
        "crosscheck_start_and_stop_amid_traffic_raise_no_alarm",
        start_and_stop_amid_traffic,
    ),
    (
        Needs::Root,
        "crosscheck_that_takes_long_to_start_compares_the_first_interval",
        a_slow_start,
    ),
    (
        Needs::Root,
        "crosscheck_ip6_prefixes_of_any_length_match",
        ip6_prefixes_of_any_length,
    ),
    (
        Needs::Root,
        "crosscheck_the_near_end_of_an_interface_is_the_other_side",
        the_near_end_of_an_interface,
    ),
    (
        Needs::Root,
        "crosscheck_a_direction_without_a_group_is_unaccounted",
        a_direction_without_a_group,
    ),
    (
        Needs::Root,
        "crosscheck_an_idle_run_leaves_headers_alone",
        an_idle_run_leaves_headers_alone,
    ),
];

/// IPv4 and IPv6 at once, so many of each.
fn send_both(router: &Router, count: u64, rate: u32) -> Result<()> {
    let load = |traffic| TrafficArgs {
        count,
        rate,
        ..traffic
    };
    let ip4 = router.rig.send_in_background(&load(router.ip4()?))?;
    let ip6 = router.rig.send_in_background(&load(router.ip6()?))?;
    ip4.finish()?;
    ip6.finish()?;
    Ok(())
}

fn n_allowed(intervals: &[Checked]) -> u64 {
    intervals.iter().map(|one| one.crosscheck.allowed).sum()
}

fn n_lost(intervals: &[Checked]) -> u64 {
    intervals.iter().map(|one| one.lost).sum()
}

/// For the record: how often the uncertain window was needed.
fn say_how_often_allowed(intervals: &[Checked]) {
    let n_rows: usize = intervals.iter().map(|one| one.rows.len()).sum();
    let with_any = intervals.iter().filter(|one| one.crosscheck.allowed > 0);
    eprintln!(
        "{} prefixes in {} of {} intervals match by the window ({n_rows} rows, lost {}, late {})",
        n_allowed(intervals),
        with_any.count(),
        intervals.len(),
        n_lost(intervals),
        intervals.iter().map(|one| one.late).sum::<u64>()
    );
}

fn a_million_packets_at_full_speed() -> Result<()> {
    let router = Router::new(&COMPLETE)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    send_both(&router, scaled(500_000), 0)?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let truth = router.truth()?;
    for sent in [truth.source4, truth.source6, truth.dest4, truth.dest6] {
        ensure!(sent.packets == scaled(500_000));
    }
    ensure!(intervals[0].crosscheck.interfaces == ["lan0:far", "wan0:far"]);
    ensure_totals(&intervals, truth)?;
    ensure_no_false_verdict(&intervals)?;
    if n_lost(&intervals) == 0 {
        ensure_sources_equal(&intervals)?;
    }
    say_how_often_allowed(&intervals);
    Ok(())
}

fn on_ingress_nothing_is_allowed_for() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&[
        "-interval=1s",
        "-ip4-src-group=5",
        "-ip6-src-group=7",
        "-crosscheck=lan0",
    ])?;
    let load = |source, dest| -> Result<TrafficArgs> {
        Ok(TrafficArgs {
            count: scaled(200_000),
            rate: scaled(20_000),
            ..mixed(rig.traffic(source, dest)?)
        })
    };
    let ip4 = rig.send_in_background(&load("10.1.0.0/16", "10.255.0.0/16")?)?;
    let ip6 = rig.send_in_background(&load("2001:db8:1::1/48", "2001:db8:ff::1/48")?)?;
    ip4.finish()?;
    ip6.finish()?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    let tc = tc_sums(&intervals);
    ensure!((tc.source4, tc.source6) == (rig.counter("v4")?, rig.counter("v6")?));
    ensure!(tc.source4.packets == scaled(200_000) && tc.source6.packets == tc.source4.packets);
    ensure!(intervals.len() >= 10);
    for interval in &intervals {
        ensure!(interval.crosscheck.allowed == 0 && interval.crosscheck.window_ms == 0);
    }
    ensure_no_false_verdict(&intervals)?;
    ensure!(n_lost(&intervals) == 0, "lost {}", n_lost(&intervals));
    ensure_sources_equal(&intervals)
}

fn intervals_of_heavy_traffic(count: u32) -> Result<()> {
    let rate = scaled(50_000);
    let router = Router::new(&COMPLETE)?;
    let acctd = router.acctd(&BOTH_WAYS)?;
    send_both(&router, u64::from(rate * count), rate)?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let n_intervals = u32::try_from(intervals.len())?;
    ensure!(n_intervals >= count, "{n_intervals} intervals");
    say_how_often_allowed(&intervals);
    ensure_totals(&intervals, router.truth()?)?;
    ensure_no_false_verdict(&intervals)?;
    if n_lost(&intervals) == 0 {
        ensure_sources_equal(&intervals)?;
    }
    Ok(())
}

/// In postrouting NFLOG's packets carry no stamp, so their time is that of the receive.
fn groups_without_stamps_raise_no_alarm() -> Result<()> {
    let router = Router::new(
        "table inet rig {
            counter out4 {}
            counter out6 {}
            chain postrouting {
                type filter hook postrouting priority 300
                meta nfproto ipv4 counter name out4 log group 4 snaplen 20 queue-threshold 500
                meta nfproto ipv6 counter name out6 log group 6 snaplen 40 queue-threshold 500
            }
        }",
    )?;
    let acctd = router.acctd(&[
        "-interval=1s",
        "-ip4-dst-group=4",
        "-ip6-dst-group=6",
        "-crosscheck=wan0",
    ])?;
    send_both(&router, scaled(300_000), scaled(20_000))?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    ensure!(intervals.len() >= 15, "{} intervals", intervals.len());
    say_how_often_allowed(&intervals);
    let truth = (router.rig.counter("out4")?, router.rig.counter("out6")?);
    let (tc, nflog) = (tc_sums(&intervals), nflog_sums(&intervals));
    ensure!((tc.dest4, tc.dest6) == truth, "{tc:?} != {truth:?}");
    ensure!(
        (nflog.dest4, nflog.dest6) == truth || n_lost(&intervals) > 0,
        "{nflog:?} != {truth:?}"
    );
    ensure!(
        intervals
            .iter()
            .any(|one| one.crosscheck.window_ms == 250 && one.crosscheck.allowed > 0)
    );
    ensure_no_false_verdict(&intervals)
}

/// What is logged while acctd stops has a time after the boundary, and is in the interval before it.
fn stop_just_before_a_boundary() -> Result<()> {
    const SECOND: u128 = 1_000_000_000;
    /// Shorter than the stop takes.
    const BEFORE: u128 = 15_000_000;
    const MAX_ROUNDS: u32 = 20;
    let router = Router::new(
        "table inet rig {
            chain prerouting {
                type filter hook prerouting priority raw
                meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 500
            }
            chain postrouting {
                type filter hook postrouting priority 300
                meta nfproto ipv4 log group 4 snaplen 20 queue-threshold 500
            }
        }",
    )?;
    let load = TrafficArgs {
        count: u64::MAX,
        rate: scaled(10_000),
        ..router.ip4()?
    };
    let _traffic = router.rig.send_in_background(&load)?;
    let args = [
        "-interval=1s",
        "-ip4-src-group=5",
        "-ip4-dst-group=4",
        "-crosscheck=lan0,wan0",
    ];
    let mut n_before = 0;
    for round in 0..MAX_ROUNDS {
        let acctd = router.acctd(&args)?;
        thread::sleep(Duration::from_secs(2));
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() % SECOND;
        let wait = (2 * SECOND - BEFORE - since) % SECOND;
        thread::sleep(Duration::from_nanos(u64::try_from(wait)?));
        acctd.finish()?;
        let intervals = checked(&router.rig)?;
        let last = intervals.last().context("an interval")?;
        ensure!(last.crosscheck.comparable, "round {round}: {last:?}");
        ensure_no_alarm(&intervals, &["not checked"])?;
        std::fs::remove_dir_all(router.rig.log_directory())?;
        // On a slow machine the signal may come after the boundary: then the last interval has hardly begun.
        n_before += u32::from(tc_sums(std::slice::from_ref(last)) != NOTHING);
        if n_before == 3 {
            return Ok(());
        }
    }
    bail!("acctd was stopped before the boundary {n_before} times of {MAX_ROUNDS}")
}

fn start_and_stop_amid_traffic() -> Result<()> {
    let router = Router::new(&COMPLETE)?;
    let load = |traffic| TrafficArgs {
        count: u64::MAX,
        rate: scaled(20_000),
        ..traffic
    };
    let _ip4 = router.rig.send_in_background(&load(router.ip4()?))?;
    let _ip6 = router.rig.send_in_background(&load(router.ip6()?))?;
    for round in 0..5_u64 {
        let acctd = router.acctd(&BOTH_WAYS)?;
        // For about one and a half to two seconds, so that the stop comes at any time of an interval.
        let before = router.rig.counter("in4")?.packets;
        wait_until("so many packets have passed", || {
            Ok(router.rig.counter("in4")?.packets > before + scaled(30_000 + 3_400 * round))
        })?;
        acctd.finish()?;
        let intervals = checked(&router.rig)?;
        let n_packets = tc_sums(&intervals).source4.packets;
        ensure!(
            n_packets > scaled(20_000),
            "round {round}: {n_packets} packets"
        );
        // A period that ends while acctd starts has only a moment in it, which is not checked.
        for interval in &intervals {
            ensure!(
                interval.crosscheck.comparable
                    || tc_sums(std::slice::from_ref(interval)) == NOTHING,
                "round {round}: {} is not comparable",
                interval.file
            );
        }
        ensure_no_alarm(&intervals, &["not checked"])?;
        let overflow: u64 = (intervals.iter())
            .map(|one| one.uncounted("overflow").packets)
            .sum();
        ensure!(
            overflow == 0,
            "{overflow} packets found no room in an empty map"
        );
        std::fs::remove_dir_all(router.rig.log_directory())?;
    }
    Ok(())
}

/// As on a busy machine: the interval in which the maps were begun ends before they are ready.
fn a_slow_start() -> Result<()> {
    let router = Router::new(&COMPLETE)?;
    let mut command = router.rig.acctd_command();
    command
        .env("ACCTD_WAIT_AT", "map_made=0.25")
        .args(BOTH_WAYS);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    send_both(&router, scaled(20_000), scaled(20_000))?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    ensure_totals(&intervals, router.truth()?)?;
    ensure_no_false_verdict(&intervals)
}

fn ip6_prefixes_of_any_length() -> Result<()> {
    for (flag, step_bits, n_prefixes) in [
        ("-ip6-prefix-length=128", 0, 300),
        ("-ip6-prefix-length=65", 63, 300),
        ("-ip6-prefix-length=48", 78, 75),
        ("-ip6-prefix-length=0", 64, 1),
    ] {
        let rig = Rig::with_privilege(Privilege::Root)?;
        rig.rules(LOG_AND_DROP)?;
        let acctd = rig.acctd(&[
            "-interval=36500d",
            "-ip6-src-group=7",
            "-crosscheck=lan0",
            flag,
        ])?;
        rig.send(&TrafficArgs {
            sources: 300,
            step_bits: Some(step_bits),
            count: 30_000,
            size: Sizes {
                min: 60,
                max: 1_400,
            },
            ..rig.traffic("2001:db8::/32", "2001:db8:ff::/128")?
        })?;
        acctd.finish()?;
        let intervals = checked(&rig)?;
        let truth = rig.counter("v6")?;
        ensure!(truth.packets == 30_000);
        ensure!(tc_sums(&intervals).source6 == truth && nflog_sums(&intervals).source6 == truth);
        ensure_no_false_verdict(&intervals)?;
        let rows = &intervals[0].rows;
        ensure!(rows.len() == n_prefixes, "{flag}: {} rows", rows.len());
        ensure!(rows.iter().all(CheckedRow::is_equal), "{flag}: {rows:?}");
    }
    Ok(())
}

/// On ingress the destination, on egress the source.
fn the_near_end_of_an_interface() -> Result<()> {
    let router = Router::new(&COMPLETE)?;
    let acctd = router.acctd(&[
        "-interval=36500d",
        "-ip4-dst-group=5",
        "-ip6-dst-group=7",
        "-ip4-src-group=4",
        "-ip6-src-group=6",
        "-crosscheck=lan0:near,wan0:near",
    ])?;
    send_both(&router, scaled(50_000), scaled(20_000))?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    ensure!(intervals[0].crosscheck.interfaces == ["lan0:near", "wan0:near"]);
    let (tc, nflog, truth) = (tc_sums(&intervals), nflog_sums(&intervals), router.truth()?);
    // The rules that stand for the source elsewhere.
    let expected = (truth.source4, truth.source6, truth.dest4, truth.dest6);
    for (name, counted) in [("TC", tc), ("NFLOG", nflog)] {
        let counted = (
            counted.dest4,
            counted.dest6,
            counted.source4,
            counted.source6,
        );
        ensure!(counted == expected, "{name}: {counted:?} != {expected:?}");
    }
    let rows = |column: fn(&CheckedRow) -> Count| -> BTreeSet<IpAddr> {
        let rows = intervals[0].rows.iter();
        rows.filter(|row| column(row) != NONE && row.ip.is_ipv4())
            .map(|row| row.ip)
            .collect()
    };
    ensure!(rows(|row| row.tc_dest).len() == 500 && rows(|row| row.tc_source).len() == 1_000);
    ensure!(rows(|row| row.tc_dest).contains(&"10.255.0.0".parse()?));
    ensure_no_false_verdict(&intervals)
}

fn a_direction_without_a_group() -> Result<()> {
    let router = Router::new(&COMPLETE)?;
    // Only the sources of IPv4 are accounted.
    let acctd = router.acctd(&[
        "-interval=36500d",
        "-ip4-src-group=5",
        "-crosscheck=lan0,wan0",
    ])?;
    send_both(&router, scaled(20_000), 0)?;
    acctd.finish()?;
    let intervals = checked(&router.rig)?;
    let truth = router.truth()?;
    let (tc, nflog) = (tc_sums(&intervals), nflog_sums(&intervals));
    ensure!(tc.source4 == truth.source4 && nflog.source4 == truth.source4);
    let rows = intervals.iter().flat_map(|one| &one.rows);
    ensure!(sum(rows, |row| row.tc_dest) == NONE && tc.source6 == NONE);
    let mut unaccounted = NONE;
    for interval in &intervals {
        let Count { packets, bytes } = interval.uncounted("unaccounted");
        unaccounted.packets += packets;
        unaccounted.bytes += bytes;
    }
    let expected = [truth.source6, truth.dest4, truth.dest6];
    ensure!(
        unaccounted.packets == expected.iter().map(|count| count.packets).sum::<u64>()
            && unaccounted.bytes == expected.iter().map(|count| count.bytes).sum::<u64>(),
        "{unaccounted:?} != {expected:?}"
    );
    ensure_no_false_verdict(&intervals)
}

fn an_idle_run_leaves_headers_alone() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5", "-crosscheck=lan0"])?;
    wait_for_files(&acctd, 3)?;
    acctd.finish()?;
    // That the header has eleven columns is seen when a file is read.
    let intervals = checked(&rig)?;
    ensure!(intervals.len() >= 4, "{} intervals", intervals.len());
    for interval in &intervals {
        ensure!(interval.rows.is_empty() && interval.crosscheck.comparable);
        let tallies = interval.crosscheck.verdicts.values();
        ensure!(tallies.into_iter().all(|tally| tally.prefixes == 0));
        ensure!(interval.crosscheck.worst.is_empty() && interval.crosscheck.allowed == 0);
    }
    Ok(())
}
