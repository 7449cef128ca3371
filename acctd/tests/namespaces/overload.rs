//! When packets come faster than they are read, each lost one is counted and the log says so.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use xtask::traffic::TrafficArgs;

use crate::rig::{Rig, totals};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[(
    Needs::Namespace,
    "after_an_overflow_rows_and_lost_are_all_packets",
    after_an_overflow_rows_and_lost_are_all_packets,
)];

fn after_an_overflow_rows_and_lost_are_all_packets() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            counter v4 {}
            chain prerouting {
                type filter hook prerouting priority raw
                meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 50
                drop
            }
        }",
    )?;
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
        count: 1_000_000,
        ..load.clone()
    })?;
    let background = rig.send_in_background(&TrafficArgs {
        count: 400_000,
        ..load.clone()
    })?;
    acctd.signal(Signal::CONT)?;
    background.finish()?;
    // The last gap shows with the packet behind it.
    std::thread::sleep(Duration::from_millis(100));
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
    ensure!(
        counted.packets + lost == ip4.packets,
        "{} in rows and {lost} lost are not {}",
        counted.packets,
        ip4.packets
    );
    Ok(())
}
