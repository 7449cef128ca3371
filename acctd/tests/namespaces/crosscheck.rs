//! The kernel's own count beside NFLOG's: both are the nft counter's, and what they differ by has
//! its name.
//!
//! The names of tests begin with `crosscheck_`: by that word they are run on another object, but for those of `explain`.
//!
//! - `attaching`: both ways, what is left behind, devices that go away.
//! - `beside_others`: programs and filters of somebody else on the same interface.
//! - `counting`: complete rules, so all is `match`, whichever way the packets come.
//! - `devices`: macvlan devices above the interface, and a shaper behind it.
//! - `explain`: why a rule misses packets.
//! - `frames`: crafted byte by byte, with all that a parser can get wrong.
//! - `fuzz`: the same by chance.
//! - `interfaces`: those that come late, go elsewhere and come back.
//! - `links`: VLANs, bonds, VRFs, `WireGuard`.
//! - `holes`: those that real networks have.
//! - `own_programs`: `--crosscheck-object`, and the other flags.
//! - `permitted`: with and without the capabilities and the memory that a start requires.
//! - `pinning`: `--crosscheck-pin`.
//! - `put_in_front`: programs that somebody puts in front of acctd's while it runs.
//! - `room`: as many prefixes as there is room for, and more.
//! - `streams`: TCP, whose packets the kernel puts together and cuts up.
//! - `verdicts`: rules with a hole, packets logged twice or lost, each with its verdict.
//! - `written`: what acctd has written, read again.

mod attaching;
mod beside_others;
mod counting;
mod devices;
mod explain;
mod frames;
mod fuzz;
mod holes;
mod interfaces;
mod links;
mod own_programs;
mod permitted;
mod pinning;
mod put_in_front;
mod room;
mod run;
mod streams;
mod verdicts;
mod wire;
mod written;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use anyhow::{Result, ensure};
use testkit::netns::Privilege;
use testkit::nft::{self, Count};
use testkit::traffic::TrafficArgs;
use testkit::veth::Veth;

pub(crate) use streams::main_from as stream_main_from;
pub(crate) use written::sources;

use written::{
    Checked, CheckedRow, NOTHING, Sums, checked, lost, nflog_sums, read_rows, sum, tc_sums,
};

use crate::rig::{Acctd, Rig};
use crate::{Case, kernel};

pub(crate) fn cases() -> Vec<Case> {
    [
        counting::CASES,
        devices::CASES,
        frames::CASES,
        frames::fragments::CASES,
        frames::headers::CASES,
        fuzz::CASES,
        streams::CASES,
        wire::CASES,
        holes::CASES,
        links::CASES,
        verdicts::CASES,
        &explain::cases(),
        room::CASES,
        attaching::CASES,
        permitted::CASES,
        beside_others::CASES,
        pinning::CASES,
        interfaces::CASES,
        put_in_front::CASES,
        own_programs::CASES,
    ]
    .concat()
}

/// The Ethernet header, which nft counts on the netdev hooks.
const LINK_HEADER: u64 = 14;

/// Every packet is logged: on ingress before routing for its source, on egress by the netdev hook for
/// its destination, on both links and in both directions.
///
/// Before Linux 5.16 there is no such hook; then it is the hook postrouting.
static COMPLETE: LazyLock<String> = LazyLock::new(|| {
    let rules = "
    table inet rig {
        counter in4 {}
        counter in6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter name in4 log group 5 snaplen 20 queue-threshold 500
            meta nfproto ipv6 counter name in6 log group 7 snaplen 40 queue-threshold 500
        }
    }
    table netdev rig {
        counter out4 {}
        counter out6 {}
        chain egress {
            type filter hook egress devices = { lan0, wan0 } priority 0
            meta protocol ip counter name out4 log group 4 snaplen 34 queue-threshold 500
            meta protocol ip6 counter name out6 log group 6 snaplen 54 queue-threshold 500
        }
    }";
    if kernel::netdev_egress().is_ok() {
        return rules.to_owned();
    }
    rules.replace("table netdev rig", "table inet out").replace(
        "hook egress devices = { lan0, wan0 } priority 0",
        "hook postrouting priority 300\n oifname != { lan0, wan0 } accept",
    )
});

/// The flags for [`COMPLETE`].
const BOTH_WAYS: [&str; 7] = [
    "-interval=1s",
    "-utc",
    "-ip4-src-group=5",
    "-ip6-src-group=7",
    "-ip4-dst-group=4",
    "-ip6-dst-group=6",
    "-crosscheck=lan0,wan0",
];

/// A router between two links, `lan0` and `wan0`: it forwards to 10.255.0.0/16 and `2001:db8:ff::/48`,
/// where all is dropped unseen.
struct Router {
    rig: Rig,
    _wan: Veth,
}

impl Router {
    fn new(rules: &str) -> Result<Self> {
        let rig = Rig::with_privilege(Privilege::Root)?;
        let wan = Veth::new(&rig.router, "wan0", &rig.wire, "wire1")?;
        let gateway = wan.far_mac.to_string();
        // A router reports the multicast groups that it listens to, at times of its own.
        rig.rules(
            "table inet quiet {
                chain output { type filter hook output priority 0; ip6 daddr ff00::/8 drop; }
            }",
        )?;
        for words in [
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            &format!("ip neigh add 10.254.0.2 lladdr {gateway} dev wan0"),
            &format!("ip neigh add fe80::2 lladdr {gateway} dev wan0"),
            "ip route add 10.255.0.0/16 via 10.254.0.2 dev wan0 onlink",
            "ip route add 2001:db8:ff::/48 via fe80::2 dev wan0 onlink",
        ] {
            rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
        }
        // What has been counted costs nothing more.
        nft::load(
            &rig.wire,
            "table netdev sink {
                chain ingress { type filter hook ingress device wire1 priority 0; drop; }
            }",
        )?;
        rig.rules(rules)?;
        Ok(Self { rig, _wan: wan })
    }

    /// Packets of mixed lengths from 10.1.0.0 on to 10.255.0.0 on.
    fn ip4(&self) -> Result<TrafficArgs> {
        Ok(mixed(self.rig.traffic("10.1.0.0/16", "10.255.0.0/16")?))
    }

    /// Packets of mixed lengths from `2001:db8:1::` on to `2001:db8:ff::` on, each in a /64 of its own.
    fn ip6(&self) -> Result<TrafficArgs> {
        Ok(mixed(
            self.rig.traffic("2001:db8:1::1/48", "2001:db8:ff::1/48")?,
        ))
    }

    /// What the four rules of [`COMPLETE`] have counted.
    fn truth(&self) -> Result<Sums> {
        Ok(Sums {
            source4: self.rig.counter("in4")?,
            source6: self.rig.counter("in6")?,
            dest4: self.egress_counter("out4")?,
            dest6: self.egress_counter("out6")?,
        })
    }

    /// A counter of [`COMPLETE`]'s way out, without the link's headers.
    fn egress_counter(&self, name: &str) -> Result<Count> {
        let Count { packets, bytes } = self.rig.counter(name)?;
        let header = kernel::netdev_egress().map_or(0, |()| LINK_HEADER);
        Ok(Count {
            packets,
            bytes: bytes - packets * header,
        })
    }

    fn acctd(&self, args: &[&str]) -> Result<Acctd> {
        self.rig.acctd(args)
    }
}

/// A thousand sources and half as many destinations, in packets of any length.
fn mixed(traffic: TrafficArgs) -> TrafficArgs {
    use testkit::traffic::Sizes;
    TrafficArgs {
        sources: 1_000,
        dests: 500,
        size: Sizes {
            min: 60,
            max: 1_400,
        },
        ..traffic
    }
}

/// The prefix that acctd accounts an address to by default.
fn prefix_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// TC = nft = NFLOG + lost, for the rules of [`COMPLETE`]: to the byte where nothing was lost.
fn ensure_totals(intervals: &[Checked], truth: Sums) -> Result<()> {
    let (tc, nflog) = (tc_sums(intervals), nflog_sums(intervals));
    ensure!(tc == truth, "TC {tc:?}\nis not nft {truth:?}");
    for (group, nflog, truth) in [
        (5, nflog.source4, truth.source4),
        (7, nflog.source6, truth.source6),
        (4, nflog.dest4, truth.dest4),
        (6, nflog.dest6, truth.dest6),
    ] {
        let lost = lost(intervals, group);
        ensure!(
            nflog.packets + lost == truth.packets && (lost > 0 || nflog == truth),
            "group {group}: NFLOG {nflog:?} and {lost} lost are not nft {truth:?}"
        );
    }
    Ok(())
}

/// Rules without a hole: all is `match`, or `lost` in a run in which something was.
fn ensure_no_false_verdict(intervals: &[Checked]) -> Result<()> {
    for interval in intervals {
        ensure!(
            interval.crosscheck.comparable,
            "{} of {:?} is not comparable",
            interval.file,
            intervals.iter().map(|one| &one.file).collect::<Vec<_>>()
        );
    }
    ensure_no_alarm(intervals, &[])
}

/// No verdict but `match`, these, and `lost` in a run in which something was.
fn ensure_no_alarm(intervals: &[Checked], others: &[&str]) -> Result<()> {
    let was_lost = intervals
        .iter()
        .any(|interval| interval.lost > 0 || interval.overruns > 0);
    for (at, interval) in intervals.iter().enumerate() {
        for row in &interval.rows {
            let verdict = row.verdict.as_str();
            ensure!(
                verdict == "match" || (was_lost && verdict == "lost") || others.contains(&verdict),
                "{} ({at} of {}): {row:?}, lost {}, late {}, {:?}",
                interval.file,
                intervals.len(),
                interval.lost,
                interval.late,
                interval.crosscheck
            );
        }
    }
    Ok(())
}

/// What is on ingress carries a common stamp: the same rows on both sides in every interval.
fn ensure_sources_equal(intervals: &[Checked]) -> Result<()> {
    for interval in intervals {
        for row in &interval.rows {
            ensure!(
                row.source == row.tc_source,
                "{}: {row:?}, lost {}, late {}",
                interval.file,
                interval.lost,
                interval.late
            );
        }
    }
    Ok(())
}
