//! What other devices do to an interface's packets: those that lie on it, and a shaper that they have to wait for.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::netns::{Namespace, Privilege};
use testkit::traffic::{Sizes, TrafficArgs};
use testkit::veth::add_address;

use super::run::{Run, count};
use super::{checked, ensure_no_false_verdict, nflog_sums, tc_sums};
use crate::kernel::is_emulated;
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_macvlan_devices_count_alike_in_both_directions",
        macvlan,
    ),
    (
        Needs::Root,
        "crosscheck_what_an_ingress_shaper_holds_back_is_no_hole",
        ingress_shaper,
    ),
];

fn run(namespace: &Namespace, words: &str) -> Result<()> {
    namespace
        .run(&words.split(' ').collect::<Vec<_>>())
        .map(drop)
}

/// One in another network namespace, whose packets pass no rule here, in neither direction; and one here, whose packets
/// pass them all. To the interface below, what comes for either is for another host.
fn macvlan() -> Result<()> {
    const PINGS: u64 = 100;
    let rig = Rig::with_privilege(Privilege::Root)?;
    let child = rig.router.peer()?;
    rig.rules(
        "table inet rig {
            chain input { type filter hook input priority -300; meta nfproto ipv4 log group 5 snaplen 20; }
            chain output { type filter hook output priority -300; meta nfproto ipv4 log group 4 snaplen 20; }
        }",
    )?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    add_address(&rig.wire, "wire0", "10.9.1.2/24")?;
    let (theirs, ours) = ("02:00:00:00:00:03", "02:00:00:00:01:03");
    for words in [
        format!("ip link add link lan0 name mv0 address {theirs} type macvlan mode bridge"),
        format!("ip link set mv0 netns {}", child.pid()),
        format!("ip link add link lan0 name mv1 address {ours} type macvlan mode bridge"),
    ] {
        run(&rig.router, &words)?;
    }
    for (namespace, device, address) in [
        (&child, "mv0", "10.9.0.3/24"),
        (&rig.router, "mv1", "10.9.1.3/24"),
    ] {
        add_address(namespace, device, address)?;
        run(namespace, &format!("ip link set {device} up"))?;
    }
    // Nobody asks who has an address, as lan0 would answer too.
    for (address, ethernet) in [("10.9.0.3", theirs), ("10.9.1.3", ours)] {
        let words = format!("ip neigh add {address} lladdr {ethernet} dev wire0");
        run(&rig.wire, &words)?;
    }
    let args = ["-ip4-src-group=5", "-ip4-dst-group=4", "-crosscheck=lan0"];
    let result = Run::of(&rig, &args, || {
        let ping = format!("ping -q -c {PINGS} -i 0.01 -W 5");
        run(&child, &format!("{ping} 10.9.0.2"))?;
        run(&rig.router, &format!("{ping} 10.9.1.2"))
    })?;
    let all = count(PINGS, PINGS * 84);
    for (far, logged, verdict) in [("10.9.0.2", NONE, "uncovered"), ("10.9.1.2", all, "match")] {
        let row = result.interval.row(far.parse()?);
        ensure!(
            row.is_some_and(|row| {
                (row.source, row.dest) == (logged, logged)
                    && (row.tc_source, row.tc_dest) == (all, all)
                    && row.verdict == verdict
            }),
            "{far}: {row:?}"
        );
    }
    ensure!(result.interval.rows.len() == 2, "{result:?}");
    ensure!(result.interval.uncounted("other_host") == NONE);
    Ok(())
}

/// As SQM does it: what comes in goes to an ifb, whose queue lets it through at the rate of the line. It comes back with
/// another stamp, later by the time in the queue.
fn ingress_shaper() -> Result<()> {
    const BURST: u32 = 60;
    // An emulated processor lets the queue become empty.
    let boundaries = if is_emulated() { 20 } else { 6 };
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    for words in [
        "ip link add ifb0 type ifb",
        "ip link set ifb0 up",
        "tc qdisc add dev ifb0 root tbf rate 6mbit burst 3k limit 10000000",
        "tc qdisc add dev lan0 handle ffff: ingress",
        "tc filter add dev lan0 parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev ifb0",
    ] {
        run(&rig.router, words)?;
    }
    let args = [
        "-interval=1s",
        "-utc",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ];
    let acctd = rig.acctd(&args)?;
    acctd.wait_for_line("a filter redirects incoming packets, as shapers do")?;
    let burst = TrafficArgs {
        sources: 5,
        count: BURST.into(),
        size: Sizes {
            min: 1_000,
            max: 1_000,
        },
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    };
    // The queue takes 80 ms for a burst, and gets the next one before it is empty: so at a boundary some of one is in it.
    let passed_the_shaper = |packets| {
        wait_until("the burst has passed the shaper", || {
            Ok(rig.counter("v4")?.packets >= packets)
        })
    };
    let (begun, mut n_sent) = (Instant::now(), 0);
    while begun.elapsed() < boundaries * Duration::from_secs(1) {
        rig.send(&burst)?;
        n_sent += u64::from(BURST);
        passed_the_shaper(n_sent - u64::from(BURST / 2))?;
    }
    passed_the_shaper(n_sent)?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    let truth = rig.counter("v4")?;
    ensure!(tc_sums(&intervals).source4 == truth && nflog_sums(&intervals).source4 == truth);
    ensure_no_false_verdict(&intervals)?;
    let allowed: u64 = intervals.iter().map(|it| it.crosscheck.allowed).sum();
    ensure!(allowed > 0, "no packet was held back over a boundary");
    let with_rows = intervals.iter().filter(|it| !it.rows.is_empty());
    for interval in with_rows {
        ensure!(interval.crosscheck.window_ms == 250, "{interval:?}");
    }
    Ok(())
}
