//! `acctd rules`, loaded for real: each packet of real traffic is counted once, in each scenario, by nft and
//! by iptables. The truth is counters in tables of the test's own, on other hooks or priorities.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use testkit::netns::Namespace;
use testkit::nft::Count;
use testkit::veth::{Veth, add_address};

use crate::kernel;
use crate::rig::{Acctd, CsvFile, NONE, Rig, totals};
use crate::{Case, Needs, go_manual};

pub(crate) const CASES: &[Case] = &[
    (Needs::Namespace, "rules_of_a_host_by_nft", || {
        counts_each_packet_once(HOST, "nft", &[])
    }),
    (Needs::Namespace, "rules_of_a_host_by_iptables", || {
        counts_each_packet_once(HOST, "iptables", &[])
    }),
    (
        Needs::NetdevEgress,
        "rules_of_a_host_with_an_egress_hook",
        || counts_each_packet_once(HOST, "nft", &["--egress-hook=lan0,wan0"]),
    ),
    (Needs::Namespace, "rules_of_a_router_by_nft", || {
        counts_each_packet_once(ROUTER, "nft", &[])
    }),
    (Needs::Namespace, "rules_of_a_router_by_iptables", || {
        counts_each_packet_once(ROUTER, "iptables", &[])
    }),
    (
        Needs::NetdevEgress,
        "rules_of_a_router_with_an_egress_hook",
        || counts_each_packet_once(ROUTER, "nft", &["--egress-hook=lan0"]),
    ),
    (
        Needs::Namespace,
        "rules_of_a_router_for_all_interfaces_that_begin_alike",
        || counts_each_packet_once(ROUTER_BY_PATTERN, "nft", &[]),
    ),
    (
        Needs::Namespace,
        "rules_of_a_router_for_all_interfaces_that_begin_alike_by_iptables",
        || counts_each_packet_once(ROUTER_BY_PATTERN, "iptables", &[]),
    ),
    (
        Needs::Namespace,
        "rules_of_a_router_for_what_it_forwards_by_nft",
        || counts_each_packet_once(FORWARDED, "nft", &[]),
    ),
    (
        Needs::Namespace,
        "rules_of_a_router_for_what_it_forwards_by_iptables",
        || counts_each_packet_once(FORWARDED, "iptables", &[]),
    ),
    (
        Needs::Processors,
        "rules_of_a_router_spread_by_cpu_with_nft",
        || counts_each_packet_once(ROUTER, "nft", &["--fan-out=2"]),
    ),
    (
        Needs::Processors,
        "rules_of_a_router_spread_by_cpu_with_iptables",
        || counts_each_packet_once(ROUTER, "iptables", &["--fan-out=2"]),
    ),
    (Needs::Namespace, "rules_of_a_bridge", || {
        rules_of_a_bridge(&[])
    }),
    (
        Needs::Namespace,
        "rules_of_a_bridge_for_what_it_forwards",
        || rules_of_a_bridge(&["--forwarded"]),
    ),
    (
        Needs::Namespace,
        "rules_of_the_go_manual_count_all_four_directions",
        rules_of_the_go_manual,
    ),
];

/// A scenario, and which of the traffic it counts.
#[derive(Clone, Copy)]
struct Scenario {
    args: &'static [&'static str],
    /// Counters of `WITNESS` with the packets by source and by destination, without the family.
    witnesses: [&'static str; 2],
    /// What the client's row shows: that many times the packets of one ping, by source and destination.
    pings_of_client: u64,
}

const HOST: Scenario = Scenario {
    args: &["host"],
    witnesses: ["in", "out"],
    pings_of_client: 2,
};
const ROUTER: Scenario = Scenario {
    args: &["router", "--lan=lan0"],
    witnesses: ["from_lan", "to_lan"],
    pings_of_client: 3,
};
const ROUTER_BY_PATTERN: Scenario = Scenario {
    args: &["router", "--lan=lan*"],
    ..ROUTER
};
const FORWARDED: Scenario = Scenario {
    args: &["router", "--lan=lan0", "--forwarded"],
    witnesses: ["forwarded_from_lan", "forwarded_to_lan"],
    pings_of_client: 1,
};

/// On other priorities, and partly on other hooks, than acctd's rules; and what hides the client's address
/// from the server.
const WITNESS: &str = "
    table inet witness {
        counter in4 {}
        counter in6 {}
        counter out4 {}
        counter out6 {}
        counter from_lan4 {}
        counter from_lan6 {}
        counter to_lan4 {}
        counter to_lan6 {}
        counter forwarded_from_lan4 {}
        counter forwarded_from_lan6 {}
        counter forwarded_to_lan4 {}
        counter forwarded_to_lan6 {}
        chain prerouting {
            type filter hook prerouting priority -310
            iifname lan0 meta nfproto ipv4 counter name from_lan4
            iifname lan0 meta nfproto ipv6 counter name from_lan6
        }
        chain input {
            type filter hook input priority 90
            meta nfproto ipv4 counter name in4
            meta nfproto ipv6 counter name in6
        }
        chain forward {
            type filter hook forward priority 90
            iifname lan0 meta nfproto ipv4 counter name forwarded_from_lan4
            iifname lan0 meta nfproto ipv6 counter name forwarded_from_lan6
            oifname lan0 meta nfproto ipv4 counter name forwarded_to_lan4
            oifname lan0 meta nfproto ipv6 counter name forwarded_to_lan6
        }
        chain output {
            type filter hook output priority 90
            meta nfproto ipv4 counter name out4
            meta nfproto ipv6 counter name out6
        }
        chain postrouting {
            type filter hook postrouting priority 310
            oifname lan0 meta nfproto ipv4 counter name to_lan4
            oifname lan0 meta nfproto ipv6 counter name to_lan6
        }
    }
    table inet nat {
        chain postrouting {
            type nat hook postrouting priority 100
            oifname wan0 masquerade
        }
    }";

/// Where the kernel has that hook.
const EGRESS_WITNESS: &str = "
    table netdev witness {
        counter egress_lan0_4 {}
        counter egress_lan0_6 {}
        counter egress_wan0_4 {}
        counter egress_wan0_6 {}
        chain lan {
            type filter hook egress device lan0 priority 10
            meta protocol ip counter name egress_lan0_4
            meta protocol ip6 counter name egress_lan0_6
        }
        chain wan {
            type filter hook egress device wan0 priority 10
            meta protocol ip counter name egress_wan0_4
            meta protocol ip6 counter name egress_wan0_6
        }
    }";

/// Of one ping.
const REQUESTS: u64 = 20;
const CLIENT: [&str; 2] = ["10.1.0.2", "fd00:1::2"];
const SERVER: [&str; 2] = ["10.2.0.2", "fd00:2::2"];
const ROUTER_ADDRESS: [&str; 2] = ["10.1.0.1", "fd00:1::1"];

/// client (the rig's wire) ── lan0 router wan0 ── server, with counters but without addresses: until there
/// are some, nobody sends anything.
fn wired() -> Result<(Rig, Namespace)> {
    let rig = Rig::new()?;
    let server = rig.router.peer()?;
    Veth::new(&rig.router, "wan0", &server, "server0")?;
    rig.rules(WITNESS)?;
    if kernel::netdev_egress().is_ok() {
        rig.rules(EGRESS_WITNESS)?;
    }
    Ok((rig, server))
}

fn give_addresses(rig: &Rig, server: &Namespace) -> Result<()> {
    for (namespace, device, addresses, gateways) in [
        (&rig.router, "lan0", ["10.1.0.1/24", "fd00:1::1/64"], None),
        (&rig.router, "wan0", ["10.2.0.1/24", "fd00:2::1/64"], None),
        (
            &rig.wire,
            "wire0",
            ["10.1.0.2/24", "fd00:1::2/64"],
            Some(["10.1.0.1", "fd00:1::1"]),
        ),
        // It knows no way to the client.
        (server, "server0", ["10.2.0.2/24", "fd00:2::2/64"], None),
    ] {
        for address in addresses {
            add_address(namespace, device, address)?;
        }
        for gateway in gateways.into_iter().flatten() {
            namespace.run(&["ip", "route", "add", "default", "via", gateway])?;
        }
    }
    let forward =
        "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding";
    rig.router.run(&["sh", "-e", "-c", forward])?;
    Ok(())
}

/// Half of the requests from each of two CPUs, on which the packets are handled then.
fn ping(from: &Namespace, to: &str) -> Result<()> {
    let last_cpu = std::thread::available_parallelism()?.get() - 1;
    let count = (REQUESTS / 2).to_string();
    for cpu in [0, last_cpu] {
        let cpu = cpu.to_string();
        let pinned = ["taskset", "--cpu-list", &cpu];
        let ping = ["ping", "-q", "-c", &count, "-i", "0.005", "-s", "200", to];
        from.run(&[&pinned[..], &ping].concat())?;
    }
    Ok(())
}

/// Between all three, each request with its reply.
fn ping_everyone(rig: &Rig) -> Result<()> {
    for family in 0..2 {
        ping(&rig.wire, SERVER[family])?;
        ping(&rig.wire, ROUTER_ADDRESS[family])?;
        ping(&rig.router, CLIENT[family])?;
        ping(&rig.router, SERVER[family])?;
    }
    Ok(())
}

/// Whatever the kernel itself would send from now on (it reports its multicast groups) would be counted by
/// the witnesses alone.
pub(super) fn be_quiet(rig: &Rig, devices: &[&str]) -> Result<()> {
    for device in devices {
        rig.router.run(&["ip", "link", "set", device, "down"])?;
    }
    Ok(())
}

pub(super) fn rules(rig: &Rig, args: &[&str]) -> Result<Output> {
    let mut command = rig.router.command(rig.acctd_path());
    Ok(command.arg("rules").args(args).output()?)
}

/// What it prints, if all is well.
pub(super) fn rules_ok(rig: &Rig, args: &[&str]) -> Result<String> {
    let output = rules(rig, args)?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{args:?}: {error}{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Starts acctd as the rules' first line says.
pub(super) fn acctd_for(rig: &Rig, args: &[&str]) -> Result<Acctd> {
    let printed = rules_ok(rig, args)?;
    let line = printed.lines().next().context("a line")?;
    let flags = line.strip_prefix("# acctd ").context("a command line")?;
    let flags: Vec<&str> = flags.split_whitespace().collect();
    rig.acctd(&[&["-interval=36500d"], flags.as_slice()].concat())
}

fn counts_each_packet_once(scenario: Scenario, format: &str, more: &[&str]) -> Result<()> {
    let format = format!("--format={format}");
    let args = [scenario.args, &[&format], more].concat();
    let (rig, server) = wired()?;
    // Somebody else's, which stay.
    rig.router
        .run(&["iptables", "-t", "mangle", "-A", "FORWARD", "-j", "ACCEPT"])?;
    for _ in 0..2 {
        rules_ok(&rig, &[&args[..], &["--apply"]].concat())?;
        ensure!(rules_ok(&rig, &[&args[..], &["--check"]].concat())?.is_empty());
    }
    let acctd = acctd_for(&rig, &args)?;
    give_addresses(&rig, &server)?;
    ping_everyone(&rig)?;
    be_quiet(&rig, &["lan0", "wan0"])?;
    acctd.finish()?;
    let files = rig.files()?;
    for (is_ip4, family) in [(true, "4"), (false, "6")] {
        let witness = |name: &str| rig.counter(&format!("{name}{family}"));
        let [source, dest] = scenario.witnesses.map(witness);
        let (source, mut dest) = (source?, dest?);
        if let Some(devices) = more
            .iter()
            .find_map(|arg| arg.strip_prefix("--egress-hook="))
        {
            dest = went_out(&rig, devices, family)?;
        }
        ensure!(source.packets >= REQUESTS && dest.packets >= REQUESTS);
        let counted = totals(&files, is_ip4);
        ensure!(
            counted == (source, dest),
            "{family}: {counted:?} != {:?}",
            (source, dest)
        );
    }
    let expected = scenario.pings_of_client * REQUESTS;
    let expected_dest = if more
        .iter()
        .any(|arg| arg.starts_with("--egress-hook=lan0,wan0"))
    {
        expected + REQUESTS
    } else {
        expected
    };
    ensure_row(&files, CLIENT[0], (expected, expected_dest))?;
    ensure!(rig.summed("lost")? == 0 && rig.summed("undecodable")? == 0);
    for _ in 0..2 {
        rules_ok(&rig, &["--remove", &format])?;
        let check = rules(&rig, &[&args[..], &["--check"]].concat())?;
        ensure!(check.status.code() == Some(1), "{check:?}");
        ensure!(String::from_utf8(check.stdout)?.contains("missing: "));
    }
    let left = rig.router.run(&["nft", "list", "tables"])?;
    ensure!(
        left.contains("inet witness") && !left.contains("acctd"),
        "{left}"
    );
    let left = rig.router.run(&["iptables-save", "-t", "mangle"])?;
    ensure!(
        left.contains("-A FORWARD -j ACCEPT") && !left.contains("ACCTD"),
        "{left}"
    );
    Ok(())
}

/// What these devices were given, without their Ethernet headers, which nft counts there.
fn went_out(rig: &Rig, devices: &str, family: &str) -> Result<Count> {
    let mut sum = NONE;
    for device in devices.split(',') {
        let Count { packets, bytes } = rig.counter(&format!("egress_{device}_{family}"))?;
        sum.packets += packets;
        sum.bytes += bytes - 14 * packets;
    }
    Ok(sum)
}

/// Packets of 228 bytes, by source and by destination.
fn ensure_row(files: &[CsvFile], address: &str, (source, dest): (u64, u64)) -> Result<()> {
    let address: std::net::IpAddr = address.parse()?;
    let rows = files.iter().flat_map(|file| &file.rows);
    let row = rows.into_iter().find(|row| row.ip == address);
    let row = row.with_context(|| format!("no row of {address} in {files:?}"))?;
    let of = |packets| Count {
        packets,
        bytes: 228 * packets,
    };
    ensure!((row.source, row.dest) == (of(source), of(dest)), "{row:?}");
    Ok(())
}

/// client (the rig's wire) ── lan0 [bridge in the router] port1 ── server
fn rules_of_a_bridge(more: &[&str]) -> Result<()> {
    let rig = Rig::new()?;
    let server = rig.router.peer()?;
    Veth::new(&rig.router, "port1", &server, "server0")?;
    rig.router
        .run(&["ip", "link", "add", "br0", "type", "bridge"])?;
    for port in ["lan0", "port1"] {
        rig.router
            .run(&["ip", "link", "set", port, "master", "br0"])?;
    }
    rig.rules(
        "table bridge witness {
            counter from4 {}
            counter from6 {}
            counter to4 {}
            counter to6 {}
            counter forwarded_from4 {}
            counter forwarded_from6 {}
            counter forwarded_to4 {}
            counter forwarded_to6 {}
            chain prerouting {
                type filter hook prerouting priority -310
                iifname lan0 ether type ip counter name from4
                iifname lan0 ether type ip6 counter name from6
            }
            chain forward {
                type filter hook forward priority 90
                iifname lan0 ether type ip counter name forwarded_from4
                iifname lan0 ether type ip6 counter name forwarded_from6
                oifname lan0 ether type ip counter name forwarded_to4
                oifname lan0 ether type ip6 counter name forwarded_to6
            }
            chain postrouting {
                type filter hook postrouting priority 310
                oifname lan0 ether type ip counter name to4
                oifname lan0 ether type ip6 counter name to6
            }
        }",
    )?;
    let args = [&["bridge", "--lan=lan0"], more].concat();
    for _ in 0..2 {
        rules_ok(&rig, &[&args[..], &["--apply"]].concat())?;
        ensure!(rules_ok(&rig, &[&args[..], &["--check"]].concat())?.is_empty());
    }
    let acctd = acctd_for(&rig, &args)?;
    rig.router.run(&["ip", "link", "set", "br0", "up"])?;
    for (namespace, device, addresses) in [
        (&rig.router, "br0", ["10.1.0.1/24", "fd00:1::1/64"]),
        (&rig.wire, "wire0", ["10.1.0.2/24", "fd00:1::2/64"]),
        (&server, "server0", ["10.1.0.3/24", "fd00:1::3/64"]),
    ] {
        for address in addresses {
            add_address(namespace, device, address)?;
        }
    }
    for (server, router) in [("10.1.0.3", "10.1.0.1"), ("fd00:1::3", "fd00:1::1")] {
        ping(&rig.wire, server)?;
        ping(&rig.wire, router)?;
    }
    be_quiet(&rig, &["br0", "lan0", "port1"])?;
    acctd.finish()?;
    let (front, pings_of_client) = if more.is_empty() {
        ("", 2)
    } else {
        ("forwarded_", 1)
    };
    let files = rig.files()?;
    for (is_ip4, family) in [(true, "4"), (false, "6")] {
        let source = rig.counter(&format!("{front}from{family}"))?;
        let dest = rig.counter(&format!("{front}to{family}"))?;
        ensure!(source.packets >= REQUESTS && dest.packets >= REQUESTS);
        let counted = totals(&files, is_ip4);
        // In bridges nft counts frames without their Ethernet header, so bytes are comparable.
        ensure!(
            counted == (source, dest),
            "{family}: {counted:?} != {:?}",
            (source, dest)
        );
    }
    let expected = pings_of_client * REQUESTS;
    ensure_row(&files, "10.1.0.2", (expected, expected))?;
    for _ in 0..2 {
        rules_ok(&rig, &["--remove"])?;
    }
    let left = rig.router.run(&["nft", "list", "tables"])?;
    ensure!(left == "table bridge witness\n", "{left}");
    Ok(())
}

/// As go-nflog-acctd's manual has them, with the flags that it has beside them.
fn rules_of_the_go_manual() -> Result<()> {
    let (rig, server) = wired()?;
    rig.router.run(&["sh", "-e", "-c", go_manual::RULES])?;
    let acctd = rig.acctd(&[
        "-interval",
        "36500d",
        "-ip4-dst-group=4",
        "-ip4-src-group=5",
        "-ip6-dst-group=6",
        "-ip6-src-group=7",
    ])?;
    give_addresses(&rig, &server)?;
    ping_everyone(&rig)?;
    be_quiet(&rig, &["lan0", "wan0"])?;
    acctd.finish()?;
    let files = rig.files()?;
    for (is_ip4, family) in [(true, "4"), (false, "6")] {
        let source = rig.counter(&format!("in{family}"))?;
        let dest = rig.counter(&format!("out{family}"))?;
        let counted = totals(&files, is_ip4);
        ensure!(
            counted == (source, dest),
            "{counted:?} != {:?}",
            (source, dest)
        );
    }
    ensure_row(&files, CLIENT[0], (2 * REQUESTS, 2 * REQUESTS))
}
