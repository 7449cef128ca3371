//! As many prefixes as there is room for, and more.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use testkit::netns::Privilege;
use testkit::nft::Count;
use testkit::traffic::TrafficArgs;

use super::{BOTH_WAYS, COMPLETE, Router, checked, ensure_no_alarm, mixed, sum, tc_sums};
use crate::kernel::scaled;
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
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
        count: scaled(100_000),
        rate: scaled(40_000),
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
        // The traffic may begin or end just at the boundary of an interval.
        let n_rows = interval.rows.len();
        ensure!(
            kept.len() == n_rows.min(100),
            "{} of {n_rows} kept",
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
    let router = Router::new(&COMPLETE)?;
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
