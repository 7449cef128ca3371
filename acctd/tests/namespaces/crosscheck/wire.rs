//! What packets are on the wire: the kernel's count on an interface with offloads equals what passes one without.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use testkit::craft::{Extension, Ipv4, Ipv6, Payload};
use testkit::netns::Namespace;
use testkit::nft;
use testkit::traffic::Tun;
use testkit::veth::{Veth, add_address};

use super::prefix_of;
use super::run::{Run, add, count};
use super::streams::exchange_between;
use crate::errors::complains;
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::NetdevEgress,
        "crosscheck_wire_counts_are_those_of_the_segments",
        segments,
    ),
    (
        Needs::Root,
        "crosscheck_wire_counts_of_a_virtual_machines_packets",
        packets_of_a_virtual_machine,
    ),
    (
        Needs::Root,
        "crosscheck_wire_needs_a_program_that_counts_segments",
        a_program_that_counts_none,
    ),
];

const ROUTER: [&str; 2] = ["10.9.0.1", "2001:db8:9::1"];
const WIRE: [&str; 2] = ["10.9.0.2", "2001:db8:9::2"];
const HOST: [&str; 2] = ["10.8.0.2", "2001:db8:8::2"];
const HOST_GATEWAY: [&str; 2] = ["10.8.0.1", "2001:db8:8::1"];

const RULES: &str = "
    table inet rig {
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv6 log group 7 snaplen 40 queue-threshold 50
        }
    }
    table netdev rig {
        chain egress {
            type filter hook egress device lan0 priority 0
            meta protocol ip log group 4 snaplen 34 queue-threshold 50
            meta protocol ip6 log group 6 snaplen 54 queue-threshold 50
        }
    }";

/// The segments that a stream is cut into, or that it comes in, counted one by one.
const TRUTH: &str = "
    table inet truth {
        counter v4 {}
        counter v6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 tcp dport 7000 counter name v4
            meta nfproto ipv6 tcp dport 7000 counter name v6
            meta nfproto ipv4 tcp sport 7000 iifname host0 counter name v4
            meta nfproto ipv6 tcp sport 7000 iifname host0 counter name v6
        }
    }";

/// Namespaces and their devices: router lan0 ── wire0 wire mid0 ── host0 host. On lan0 a packet has several segments:
/// GRO has merged what comes in, and what goes out is not split yet. Between mid0 and host0 each packet is one segment.
fn cut_up_behind_the_wire() -> Result<(Rig, Namespace)> {
    let rig = Rig::new()?;
    let host = rig.router.peer()?;
    let behind = Veth::new(&rig.wire, "mid0", &host, "host0")?;
    for (namespace, device, addresses) in [
        (&rig.router, "lan0", ROUTER),
        (&rig.wire, "wire0", WIRE),
        (&rig.wire, "mid0", HOST_GATEWAY),
        (&host, "host0", HOST),
    ] {
        for (address, length) in addresses.iter().zip(["24", "64"]) {
            add_address(namespace, device, &format!("{address}/{length}"))?;
        }
    }
    for (at, family) in ["-4", "-6"].iter().enumerate() {
        // The devices have no link-local addresses to ask from.
        for (namespace, device, address, mac) in [
            (&rig.router, "lan0", WIRE[at], rig.veth.far_mac),
            (&rig.wire, "wire0", ROUTER[at], rig.veth.near_mac),
            (&rig.wire, "mid0", HOST[at], behind.far_mac),
            (&host, "host0", HOST_GATEWAY[at], behind.near_mac),
        ] {
            let mac = mac.to_string();
            namespace.run(&["ip", "neigh", "add", address, "lladdr", &mac, "dev", device])?;
        }
        let route = |namespace: &Namespace, to: &str, via: &str| {
            namespace.run(&["ip", family, "route", "add", to, "via", via])
        };
        route(&rig.router, HOST[at], WIRE[at])?;
        route(&host, ROUTER[at], HOST_GATEWAY[at])?;
    }
    let forward =
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    rig.wire.run(&["sh", "-e", "-c", forward])?;
    let offload = |namespace: &Namespace, words: &[&str]| {
        namespace.run(&[&["ethtool", "-K"], words].concat())
    };
    // veth puts nothing together if the other end could have sent it in one piece.
    offload(&rig.wire, &["wire0", "tso", "off"])?;
    offload(&rig.router, &["lan0", "gro", "on"])?;
    offload(
        &rig.wire,
        &["mid0", "gro", "off", "gso", "off", "tso", "off"],
    )?;
    offload(&host, &["host0", "gro", "off", "gso", "off", "tso", "off"])?;
    rig.rules(RULES)?;
    nft::load(&rig.wire, TRUTH)?;
    nft::load(&host, TRUTH)?;
    Ok((rig, host))
}

/// Packets that the devices between the counts have dropped: on a busy machine, their queues get full.
fn n_dropped(rig: &Rig, host: &Namespace) -> Result<u64> {
    let devices = [
        (&rig.router, "lan0"),
        (&rig.wire, "wire0"),
        (&rig.wire, "mid0"),
        (host, "host0"),
    ];
    let mut n_dropped = 0;
    for (namespace, device) in devices {
        let text = namespace.run(&["ip", "-j", "-s", "link", "show", device])?;
        let links: serde_json::Value = serde_json::from_str(&text)?;
        for direction in ["rx", "tx"] {
            let dropped = &links[0]["stats64"][direction]["dropped"];
            n_dropped += dropped.as_u64().context("a number")?;
        }
    }
    Ok(n_dropped)
}

fn segments() -> Result<()> {
    for _ in 0..10 {
        let (rig, host) = cut_up_behind_the_wire()?;
        let run = exchange(&rig, &host)?;
        if n_dropped(&rig, &host)? == 0 {
            return each_segment_is_counted(&rig, &host, &run);
        }
    }
    bail!("segments were dropped each time");
}

fn exchange(rig: &Rig, host: &Namespace) -> Result<Run> {
    let args = [
        "-ip4-src-group=5",
        "-ip6-src-group=7",
        "-ip4-dst-group=4",
        "-ip6-dst-group=6",
        "-crosscheck=lan0",
        "-crosscheck-wire",
    ];
    Run::of(rig, &args, || {
        ROUTER
            .iter()
            .try_for_each(|address| exchange_between(rig, &rig.router, host, address))
    })
}

fn each_segment_is_counted(rig: &Rig, host: &Namespace, run: &Run) -> Result<()> {
    let (sent, received) = (nft::counters(&rig.wire)?, nft::counters(host)?);
    let mut sums = [NONE; 2];
    for (at, family) in ["v4", "v6"].iter().enumerate() {
        let prefix = prefix_of(HOST[at].parse()?);
        let row = run.interval.row(prefix).context("no row")?;
        ensure!(row.verdict == "match" && row.is_equal(), "{row:?}");
        let [source, dest] = row.wire.context("no columns for the wire")?;
        ensure!(
            (source, dest) == (sent[*family], received[*family]),
            "{row:?} and not {:?}",
            (sent[*family], received[*family])
        );
        // So it is about packets that no wire could carry.
        for (wire, counted) in [(source, row.tc_source), (dest, row.tc_dest)] {
            ensure!(wire.packets > 2 * counted.packets, "{row:?}");
        }
    }
    for row in &run.interval.rows {
        let wire = row.wire.context("no columns for the wire")?;
        for (sum, one) in sums.iter_mut().zip(wire) {
            add(sum, one);
        }
    }
    let said = run.interval.crosscheck.wire.context("no sums")?;
    ensure!(said.sides() == sums, "{run:?}");
    Ok(())
}

/// They come with the size of a segment, and without the number of segments.
fn packets_of_a_virtual_machine() -> Result<()> {
    const TCP: u8 = 6;
    const SIZE: u16 = 1_000;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let tcp = |options: usize, payload: usize| {
        let words = u8::try_from(5 + options / 4).unwrap_or(0);
        let mut bytes = vec![0; 20 + options + payload];
        bytes[12] = words << 4;
        Payload::Raw {
            protocol: TCP,
            bytes,
        }
    };
    let mut packets = Vec::new();
    let mut expected = BTreeMap::new();
    // Of the TCP header, of the data, and so many segments.
    for (n, (options, data, n_segments)) in (1_u8..).zip([
        (0, 2_000, 2),
        (12, 2_001, 3),
        (40, 1_001, 2),
        (12, 60_000, 60),
    ]) {
        let ip4 = Ipv4 {
            options: vec![1; usize::from(n % 3) * 4],
            payload: tcp(options, data),
            ..Ipv4::udp([10, 1, 0, n], [10, 255, 0, 1], &[])
        };
        let ip6 = Ipv6 {
            extensions: vec![Extension::HopByHop(vec![5, 2, 0, 0]); usize::from(n % 2)],
            payload: tcp(options, data),
            ..Ipv6::udp(
                [0x2001, 0xdb8, 0, n.into(), 0, 0, 0, 1],
                [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1],
                &[],
            )
        };
        for (ip, packet, kind) in [
            (IpAddr::from(ip4.source), ip4.packet(), 1),
            (ip6.source.into(), ip6.packet(), 4),
        ] {
            let length = u64::from(packet.ip_length());
            let headers = length - data as u64;
            let wire = count(n_segments, length + (n_segments - 1) * headers);
            expected.insert(prefix_of(ip), (count(1, length), wire));
            // The checksum is to be completed; TCP's is 16 bytes behind the start of its header.
            let start = u16::try_from(headers)? - 20 - u16::try_from(options)?;
            let mut bytes = vec![1, kind];
            for number in [u16::try_from(headers)?, SIZE, start, 16] {
                bytes.extend(number.to_ne_bytes());
            }
            bytes.extend(packet.bytes());
            packets.push(bytes);
        }
    }
    let mut tun = Tun::of_a_virtual_machine(&rig.router, rig.generator(), "tun0", &packets)?;
    let args = [
        "-ip4-src-group=5",
        "-ip6-src-group=7",
        "-crosscheck=tun0",
        "-crosscheck-wire",
    ];
    let run = Run::of(&rig, &args, || {
        ensure!(tun.write()? == packets.len() as u64);
        Ok(())
    })?;
    ensure!(run.interval.rows.len() == expected.len(), "{run:?}");
    for row in &run.interval.rows {
        let (counted, wire) = expected[&row.ip];
        ensure!(
            row.verdict == "match" && row.source == counted && row.tc_source == counted,
            "{row:?}, not {counted:?}"
        );
        ensure!(row.wire == Some([wire, NONE]), "{row:?}, not {wire:?}");
    }
    Ok(())
}

fn a_program_that_counts_none() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../acctd-ebpf/objects/minimal.o");
    let object = format!("-crosscheck-object={}", object.display());
    let args = ["-ip4-src-group=5", "-crosscheck=lan0", &object];
    let mut command = rig.acctd_command();
    let output = command.args(args).arg("-crosscheck-wire").output()?;
    complains(
        &output,
        1,
        "has no global WIRE, so it does not count segments",
    )?;
    let run = Run::of(&rig, &args, || Ok(()))?;
    ensure!(run.interval.crosscheck.wire.is_none(), "{run:?}");
    Ok(())
}
