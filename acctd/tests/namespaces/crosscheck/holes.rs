//! The holes that rules of real networks have: the packets that they miss are `uncovered`, exactly
//! those, and nothing else is.

use std::net::IpAddr;

use acctd::model::human::thousands;
use anyhow::{Context as _, Result, ensure};
use testkit::craft::{Ethernet, Frame, Ipv4, Ipv6};
use testkit::netns::{Namespace, Privilege};
use testkit::nft::Count;
use testkit::veth::{Veth, add_address};

use super::run::{Run, count, from};
use super::streams::{self, STREAM};
use super::{CheckedRow, Router};
use crate::kernel;
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_a_rule_in_input_misses_what_is_forwarded",
        rule_in_input,
    ),
    (
        Needs::Root,
        "crosscheck_ip6_without_a_rule_is_uncovered",
        ip6_without_a_rule,
    ),
    (
        Needs::Root,
        "crosscheck_ip6_without_a_group_is_unaccounted",
        ip6_without_a_group,
    ),
    (
        Needs::Root,
        "crosscheck_what_is_dropped_before_the_log_rule_is_uncovered",
        dropped_before_the_rule,
    ),
    (
        Needs::Root,
        "crosscheck_what_another_tc_program_redirects_is_uncovered",
        redirected_by_tc,
    ),
    (
        Needs::Root,
        "crosscheck_a_forwarded_stream_matches_without_a_flowtable",
        forwarded_stream,
    ),
    (
        Needs::Flowtable,
        "crosscheck_what_a_flowtable_takes_past_the_rules_is_uncovered",
        flowtable,
    ),
];

const PAYLOAD: &[u8] = &[7; 100];
const LENGTH_4: u64 = 20 + 8 + 100;
const LENGTH_6: u64 = 40 + 8 + 100;

fn ip4(rig: &Rig, source: u8, dest: [u8; 4]) -> Frame {
    let packet = Ipv4::udp([10, 1, 0, source], dest, PAYLOAD).packet();
    Ethernet::to(rig.veth.near_mac).frame(&packet)
}

fn ip6(rig: &Rig) -> Frame {
    let source = [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1];
    let packet = Ipv6::udp(source, [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1], PAYLOAD).packet();
    Ethernet::to(rig.veth.near_mac).frame(&packet)
}

/// Each frame this many times.
fn times(frames: &[(usize, Frame)]) -> Vec<&Frame> {
    let many = frames.iter().map(|(n, frame)| vec![frame; *n]);
    many.flatten().collect()
}

/// The row of 10.1.0.`source`, of which NFLOG saw so many packets and the kernel so many.
fn row(source: u8, nflog: u64, tc: u64, verdict: &str) -> CheckedRow {
    let packets = |n| count(n, n * LENGTH_4);
    from(
        [10, 1, 0, source].into(),
        packets(nflog),
        packets(tc),
        verdict,
    )
}

fn ensure_rows(run: &Run, expected: &[CheckedRow]) -> Result<()> {
    ensure!(run.interval.rows == expected, "{run:?}\n!= {expected:?}");
    Ok(())
}

/// The summary and the log have these packets as uncovered.
fn ensure_uncovered(run: &Run, prefixes: u64, amount: Count) -> Result<()> {
    let tally = run.interval.tally("uncovered");
    let found = (tally.prefixes, count(tally.packets, tally.bytes));
    ensure!(found == (prefixes, amount), "{found:?} != {amount:?}");
    let part = format!("uncovered: {} packets, ", thousands(amount.packets));
    let line = run.line(&part)?;
    ensure!(line.contains("of lan0 ingress"), "{line}");
    Ok(())
}

fn rule_in_input() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain input { type filter hook input priority 0
            log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    let (to_router, forwarded) = ([10, 9, 0, 1], [10, 255, 0, 1]);
    let frames = [
        (30, ip4(rig, 1, to_router)),
        (20, ip4(rig, 2, forwarded)),
        (4, ip4(rig, 3, to_router)),
        (3, ip4(rig, 3, forwarded)),
    ];
    let run = Run::of(rig, &["-ip4-src-group=5", "-crosscheck=lan0"], || {
        rig.send_frames(&times(&frames)).map(drop)
    })?;
    let rows = [
        row(1, 30, 30, "match"),
        row(2, 0, 20, "uncovered"),
        row(3, 4, 7, "uncovered"),
    ];
    ensure_rows(&run, &rows)?;
    ensure_uncovered(&run, 2, count(23, 23 * LENGTH_4))
}

const ONLY_IP4: &str = "
    table inet rig { chain prerouting { type filter hook prerouting priority raw
        meta nfproto ipv4 log group 5 snaplen 20
        drop; }; }";

fn ip6_without_a_rule() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(ONLY_IP4)?;
    let frames = [(5, ip4(&rig, 1, [10, 255, 0, 1])), (9, ip6(&rig))];
    let args = ["-ip4-src-group=5", "-ip6-src-group=7", "-crosscheck=lan0"];
    let run = Run::of(&rig, &args, || rig.send_frames(&times(&frames)).map(drop))?;
    let missed = count(9, 9 * LENGTH_6);
    let prefix = "2001:db8:1::".parse()?;
    let rows = [
        row(1, 5, 5, "match"),
        from(prefix, NONE, missed, "uncovered"),
    ];
    ensure_rows(&run, &rows)?;
    ensure_uncovered(&run, 1, missed)
}

/// Nobody wants to know of IPv6: no row, but it does not go unsaid.
fn ip6_without_a_group() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(ONLY_IP4)?;
    let frames = [(5, ip4(&rig, 1, [10, 255, 0, 1])), (9, ip6(&rig))];
    let args = ["-ip4-src-group=5", "-crosscheck=lan0"];
    let run = Run::of(&rig, &args, || rig.send_frames(&times(&frames)).map(drop))?;
    ensure_rows(&run, &[row(1, 5, 5, "match")])?;
    ensure!(run.interval.uncounted("unaccounted") == count(9, 9 * LENGTH_6));
    ensure!(run.uncounted().len() == 1, "{:?}", run.uncounted());
    Ok(())
}

fn dropped_before_the_rule() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    rig.rules(
        "table inet firewall { chain prerouting { type filter hook prerouting priority raw - 1
            ip saddr 10.1.0.2 drop; }; }
        table netdev firewall { chain ingress { type filter hook ingress device lan0 priority 0
            ip saddr 10.1.0.3 drop; }; }",
    )?;
    let args = ["-ip4-src-group=5", "-crosscheck=lan0"];
    let run = Run::of(&rig, &args, || send_from_three(&rig))?;
    ensure_only_the_first_was_logged(&run)
}

/// By a filter that was there before acctd, and by one that comes later: TCX is before both.
fn redirected_by_tc() -> Result<()> {
    let router = Router::new(LOG_AND_DROP)?;
    let rig = &router.rig;
    let redirect = |source: &str, preference: &str| {
        let words = format!(
            "tc filter add dev lan0 ingress pref {preference} protocol ip u32 \
             match ip src {source}/32 action mirred egress redirect dev wan0"
        );
        rig.router.run(&words.split(' ').collect::<Vec<_>>())
    };
    rig.router
        .run(&["tc", "qdisc", "add", "dev", "lan0", "clsact"])?;
    redirect("10.1.0.2", "7")?;
    // By TCX acctd stays in front of every filter. Without it one with the first preference would be in front of acctd's.
    let (attach, preference) = match kernel::tcx() {
        Ok(()) => ("-crosscheck-attach=tcx", "1"),
        Err(_old) => ("-crosscheck-attach=clsact", "6"),
    };
    let args = ["-ip4-src-group=5", "-crosscheck=lan0", attach];
    let run = Run::of(rig, &args, || {
        redirect("10.1.0.3", preference)?;
        send_from_three(rig)
    })?;
    ensure_only_the_first_was_logged(&run)
}

/// From three sources, of which the second and the third do not get as far as a rule that logs.
fn send_from_three(rig: &Rig) -> Result<()> {
    let dest = [10, 255, 0, 1];
    let frames = [
        (5, ip4(rig, 1, dest)),
        (6, ip4(rig, 2, dest)),
        (7, ip4(rig, 3, dest)),
    ];
    rig.send_frames(&times(&frames)).map(drop)
}

fn ensure_only_the_first_was_logged(run: &Run) -> Result<()> {
    let rows = [
        row(1, 5, 5, "match"),
        row(2, 0, 6, "uncovered"),
        row(3, 0, 7, "uncovered"),
    ];
    ensure_rows(run, &rows)?;
    ensure_uncovered(run, 2, count(13, 13 * LENGTH_4))
}

/// Two hosts with a router between them, which has these rules: the router with its client, the server, and the link to
/// it.
pub(super) fn router_between_hosts(rules: &str) -> Result<(Rig, Namespace, Veth)> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    let server = rig.router.peer()?;
    let wan = Veth::new(&rig.router, "wan0", &server, "eth0")?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    add_address(&rig.router, "wan0", "10.8.0.1/24")?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    add_address(&server, "eth0", "10.8.0.2/24")?;
    rig.router
        .run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    rig.wire
        .run(&["ip", "route", "add", "default", "via", "10.9.0.1"])?;
    server.run(&["ip", "route", "add", "default", "via", "10.8.0.1"])?;
    rig.rules(rules)?;
    Ok((rig, server, wan))
}

/// A TCP stream each way through the router.
fn stream_through_the_router(rules: &str) -> Result<(Run, CheckedRow)> {
    let (rig, server, _wan) = router_between_hosts(rules)?;
    let run = Run::of(&rig, &["-ip4-src-group=5", "-crosscheck=lan0"], || {
        streams::exchange_between(&rig, &server, &rig.wire, "10.8.0.2")
    })?;
    let client: IpAddr = [10, 9, 0, 2].into();
    let row = run.interval.row(client).cloned();
    Ok((run, row.context("no row of the client's")?))
}

fn forwarded_stream() -> Result<()> {
    let (_, row) = stream_through_the_router(
        "table inet rig {
            counter v4 {}
            chain forward { type filter hook forward priority 0
                ct state established counter
                iifname lan0 counter name v4 log group 5 snaplen 20; }; }",
    )?;
    ensure!(
        row.source == row.tc_source && row.verdict == "match",
        "{row:?}"
    );
    ensure!(row.source.bytes > STREAM as u64, "{row:?}");
    Ok(())
}

/// Once both directions of a connection have been seen, its packets go past the hook forward.
fn flowtable() -> Result<()> {
    let (run, row) = stream_through_the_router(
        "table inet rig {
            flowtable fast { hook ingress priority 0; devices = { lan0, wan0 }; }
            chain forward { type filter hook forward priority 0
                iifname lan0 log group 5 snaplen 20
                ip protocol tcp ct state established flow add @fast; }; }",
    )?;
    ensure!(row.verdict == "uncovered", "{row:?}");
    ensure!(
        row.source.packets > 0 && row.source.bytes < STREAM as u64,
        "{row:?}"
    );
    ensure!(row.tc_source.bytes > STREAM as u64, "{row:?}");
    let missed = count(
        row.tc_source.packets - row.source.packets,
        row.tc_source.bytes - row.source.bytes,
    );
    ensure_uncovered(&run, 1, missed)
}
