//! A stop loses nothing that a rule has logged, and takes no time.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::traffic::TrafficArgs;

use crate::kernel::scaled;
use crate::rig::{LATE_LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::wait_until;
use crate::{Case, Needs};

/// Less than a stop gives a disk that takes nothing, whatever else the machine does.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "sigint_writes_what_the_kernel_still_held",
        || stop_with_a_batch_pending(Signal::INT),
    ),
    (
        Needs::Namespace,
        "sigterm_writes_what_the_kernel_still_held",
        || stop_with_a_batch_pending(Signal::TERM),
    ),
    (
        Needs::Namespace,
        "sigquit_writes_what_the_kernel_still_held",
        || stop_with_a_batch_pending(Signal::QUIT),
    ),
    (
        Needs::Namespace,
        "without_traffic_a_file_is_its_header",
        without_traffic_a_file_is_its_header,
    ),
    (
        Needs::Namespace,
        "two_signals_at_once_lose_nothing",
        two_signals_at_once,
    ),
    (
        Needs::Namespace,
        "three_signals_right_after_the_start_leave_a_file",
        three_signals_right_after_the_start,
    ),
    (
        Needs::Namespace,
        "a_stop_writes_packets_without_a_stamp_that_the_kernel_still_held",
        a_stop_with_unstamped_packets_pending,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "a_stop_under_full_load_takes_no_time",
        a_stop_under_full_load,
    ),
];

fn stop_with_a_batch_pending(signal: Signal) -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LATE_LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    rig.send(&TrafficArgs {
        count: 10,
        ..rig.traffic("10.0.0.1/32", "10.255.0.1/32")?
    })?;
    let ended = acctd.stop(signal)?;
    ensure!(ended.code == Some(0), "{:?}", ended.log);
    ensure!(ended.took < AT_ONCE, "took {:?}", ended.took);
    // `files` fails on anything that is left behind.
    let files = rig.files()?;
    ensure!(files.len() == 1);
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == 10);
    ensure!(totals(&files, true) == (ip4, NONE), "{files:?}");
    Ok(())
}

fn without_traffic_a_file_is_its_header() -> Result<()> {
    let rig = Rig::new()?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5", "-ip6-dst-group=6"])?;
    acctd.wait_for_line("Stats file")?;
    let ended = acctd.finish()?;
    ensure!(ended.took < AT_ONCE, "took {:?}", ended.took);
    let files = rig.files()?;
    ensure!(files.len() >= 2);
    for file in &files {
        let path = rig
            .log_directory()
            .join(format!("{}_{}.csv", file.start, file.end));
        let text = std::fs::read_to_string(path)?;
        ensure!(text == "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n");
    }
    Ok(())
}

/// As a shell and a supervisor may send them at once. Neither is a reason to lose the file.
fn two_signals_at_once() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LATE_LOG_AND_DROP)?;
    for round in 1..=20 {
        let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
        rig.send(&TrafficArgs {
            count: 10,
            ..rig.traffic("10.0.0.1/32", "10.255.0.1/32")?
        })?;
        acctd.signal(Signal::INT)?;
        let ended = acctd.stop(Signal::TERM)?;
        ensure!(ended.code == Some(0), "{:?}", ended.log);
        let (counted, _) = totals(&rig.files()?, true);
        ensure!(
            counted.packets == 10 * round,
            "{counted:?} in round {round}"
        );
    }
    Ok(())
}

/// Nothing has been counted, and still each start has its file.
fn three_signals_right_after_the_start() -> Result<()> {
    let rig = Rig::new()?;
    for round in 1..=20 {
        let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
        for signal in [Signal::INT, Signal::TERM] {
            acctd.signal(signal)?;
        }
        let ended = acctd.stop(Signal::QUIT)?;
        ensure!(ended.code == Some(0), "{:?}", ended.log);
        let files = std::fs::read_dir(rig.log_directory())?.count();
        // And intervals.jsonl.
        ensure!(files == round + 1, "{files} files in round {round}");
    }
    ensure!(totals(&rig.files()?, true) == (NONE, NONE));
    Ok(())
}

/// The hooks output and postrouting have no stamps: the time of the receive counts, here the stop's.
fn a_stop_with_unstamped_packets_pending() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            counter v4 {}
            chain output {
                type filter hook output priority raw
                ip protocol icmp counter name v4 log group 4 snaplen 20 queue-threshold 5000
            }
        }",
    )?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-dst-group=4"])?;
    rig.router
        .run(&["ping", "-q", "-c", "10", "-i", "0.01", "127.0.0.1"])?;
    let ended = acctd.finish()?;
    ensure!(ended.took < AT_ONCE, "took {:?}", ended.took);
    let files = rig.files()?;
    ensure!(files.len() == 1, "{files:?}");
    // Ten requests and ten replies of 84 bytes.
    let v4 = rig.counter("v4")?;
    ensure!((v4.packets, v4.bytes) == (20, 1_680), "{v4:?}");
    ensure!(totals(&files, true) == (NONE, v4), "{files:?}");
    ensure!(rig.summed("late")? == 0);
    Ok(())
}

/// The nft counter goes on after acctd has let go of the group. But the sources take turns, so what was counted says
/// which packets it was: all from the first one on, and at least those that were logged before the stop.
fn a_stop_under_full_load() -> Result<()> {
    const SOURCES: u32 = 1_000;
    let first: IpAddr = "10.0.0.0".parse()?;
    let rig = Rig::new()?;
    rig.rules(LATE_LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: SOURCES,
        count: u64::MAX,
        ..rig.traffic("10.0.0.0/16", "10.255.0.1/32")?
    })?;
    wait_until("it is under load", || {
        Ok(rig.counter("v4")?.packets > scaled(300_000))
    })?;
    let before = rig.counter("v4")?.packets;
    let ended = acctd.finish()?;
    ensure!(ended.took < AT_ONCE, "took {:?}", ended.took);
    let after = rig.counter("v4")?.packets;
    drop(traffic);
    let files = rig.files()?;
    ensure!(files.len() == 1, "{} files", files.len());
    ensure!(rig.summed("lost")? == 0 && rig.summed("overruns")? == 0);
    let (counted, none) = totals(&files, true);
    ensure!(none == NONE && counted.bytes == 100 * counted.packets);
    ensure!(
        (before..=after).contains(&counted.packets),
        "{counted:?}, {before} at the stop, {after} after it"
    );
    ensure!(files[0].rows.len() == SOURCES as usize && files[0].rows[0].ip == first);
    for (turn, row) in (0..).zip(&files[0].rows) {
        let expected = (counted.packets - turn).div_ceil(SOURCES.into());
        ensure!(row.source.packets == expected, "not {expected}: {row:?}");
    }
    Ok(())
}
