//! When packets come faster than they are read, each lost one is counted and the log says so.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::traffic::TrafficArgs;

use crate::rig::{LOG_AND_DROP, Rig, totals};
use crate::waiting::{wait_until_all_is_read, wait_until_handed_over};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "after_an_overflow_rows_and_lost_are_all_packets",
        after_an_overflow_rows_and_lost_are_all_packets,
    ),
    (
        Needs::Namespace,
        "an_overflow_that_no_packet_follows_is_said_to_be_of_unknown_size",
        an_overflow_that_no_packet_follows,
    ),
    (
        Needs::Root,
        "the_socket_holds_a_hundred_thousand_packets",
        the_socket_holds_a_hundred_thousand_packets,
    ),
];

fn an_overflow_that_no_packet_follows() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    acctd.signal(Signal::STOP)?;
    rig.send(&TrafficArgs {
        count: 400_000,
        ..rig.traffic("10.0.0.0/16", "10.255.0.1/32")?
    })?;
    // Until the last batch has been dropped as well.
    wait_until_handed_over(&acctd)?;
    acctd.signal(Signal::TERM)?;
    acctd.signal(Signal::CONT)?;
    let ended = acctd.wait()?;
    ended.line("the number of lost packets is not known")?;
    let summaries = rig.summaries()?;
    ensure!(
        summaries.len() == 1 && summaries[0]["lost_is_complete"] == false,
        "{summaries:?}"
    );
    Ok(())
}

fn the_socket_holds_a_hundred_thousand_packets() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    acctd.signal(Signal::STOP)?;
    rig.send(&TrafficArgs {
        sources: 1_000,
        count: 100_000,
        ..rig.traffic("10.0.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.signal(Signal::CONT)?;
    acctd.finish()?;
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(
        counted == rig.counter("v4")? && counted.packets == 100_000,
        "{counted:?}"
    );
    ensure!(rig.summed("overruns")? == 0);
    Ok(())
}

fn after_an_overflow_rows_and_lost_are_all_packets() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5"])?;
    let load = TrafficArgs {
        sources: 1_000,
        count: 100_000,
        ..rig.traffic("10.0.0.0/16", "10.255.0.1/32")?
    };
    rig.send(&load)?;
    acctd.signal(Signal::STOP)?;
    // More than the socket has room for.
    rig.send(&TrafficArgs {
        count: 400_000,
        ..load.clone()
    })?;
    let background = rig.send_in_background(&TrafficArgs {
        count: 400_000,
        ..load.clone()
    })?;
    acctd.signal(Signal::CONT)?;
    background.finish()?;
    // The last gap shows with the packet behind it.
    wait_until_all_is_read(&acctd)?;
    rig.send(&load)?;
    acctd.wait_for_line("group 5: ")?;
    let ended = acctd.finish()?;
    let warning = ended.line("packets lost")?;
    ensure!(warning.contains("warning: group 5: "), "{warning}");
    ensure!(warning.contains("queue-threshold"), "{warning}");
    let (counted, _) = totals(&rig.files()?, true);
    let ip4 = rig.counter("v4")?;
    let lost = rig.summed("lost")?;
    ensure!(lost > 0 && rig.summed("overruns")? > 0);
    ensure!(counted.bytes == 100 * counted.packets, "{counted:?}");
    ensure!(
        counted.packets + lost == ip4.packets,
        "{} in rows and {lost} lost are not {}",
        counted.packets,
        ip4.packets
    );
    Ok(())
}
