//! Packets count alike from whichever table and hook they are logged, and what cannot be counted
//! is in the counter that says why.

use anyhow::{Result, ensure};
use testkit::nft::Count;
use testkit::traffic::{Sent, Sizes, TrafficArgs};
use testkit::veth::{Veth, add_address};

use crate::rig::{NONE, Rig, totals};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::NetdevEgress,
        "inet_and_netdev_hooks_of_a_router_count_alike",
        inet_and_netdev_hooks_of_a_router,
    ),
    (
        Needs::NetdevEgress,
        "bridge_and_netdev_hooks_of_a_bridge_count_alike",
        bridge_and_netdev_hooks_of_a_bridge,
    ),
    (
        Needs::NetdevEgress,
        "vlan_tags_do_not_hide_packets",
        vlan_tags_do_not_hide_packets,
    ),
    (
        Needs::NetdevEgress,
        "what_is_no_ip_is_counted_as_that",
        what_is_no_ip_is_counted_as_that,
    ),
    (
        Needs::Namespace,
        "packets_without_a_length_are_counted_as_that",
        packets_without_a_length,
    ),
    (
        Needs::Namespace,
        "a_tunnels_packets_are_counted_inside_and_outside_unless_rules_name_an_interface",
        tunnel,
    ),
    (
        Needs::Namespace,
        "a_snaplen_too_small_is_counted_and_explained",
        a_snaplen_too_small,
    ),
    (
        Needs::Namespace,
        "the_other_family_is_counted_and_explained",
        the_other_family,
    ),
];

fn mixed_sizes(traffic: TrafficArgs) -> TrafficArgs {
    TrafficArgs {
        sources: 10,
        count: 1_000,
        size: Sizes {
            min: 60,
            max: 1_400,
        },
        ..traffic
    }
}

fn as_count(sent: Sent) -> Count {
    Count {
        packets: sent.packets,
        bytes: sent.bytes,
    }
}

/// A second pair of devices, the other end on the wire as well.
fn second_link(rig: &Rig) -> Result<Veth> {
    Veth::new(&rig.router, "wan0", &rig.wire, "wire1")
}

/// acctd on each of these groups in turn; each must show just what was sent.
fn each_group_counts(rig: &Rig, ip4: bool, groups: &[&str], traffic: &TrafficArgs) -> Result<()> {
    let flag = if ip4 {
        "-ip4-src-group"
    } else {
        "-ip6-src-group"
    };
    for group in groups {
        let acctd = rig.acctd(&["-interval=36500d", flag, group])?;
        let before = rig.counter("passed")?.packets;
        let sent = as_count(rig.send(traffic)?);
        // The last hook.
        wait_until("all have passed", || {
            Ok(rig.counter("passed")?.packets >= before + sent.packets)
        })?;
        acctd.finish()?;
        let counted = totals(&rig.files()?, ip4);
        ensure!(
            counted == (sent, NONE),
            "group {group}: {counted:?} != {sent:?}"
        );
        ensure!(rig.summed("undecodable")? == 0 && rig.summed("late")? == 0);
        std::fs::remove_dir_all(rig.log_directory())?;
    }
    Ok(())
}

fn inet_and_netdev_hooks_of_a_router() -> Result<()> {
    let rig = Rig::new()?;
    let wan = second_link(&rig)?;
    let gateway = wan.far_mac.to_string();
    add_address(&rig.router, "wan0", "10.254.0.1/24")?;
    add_address(&rig.router, "wan0", "2001:db8:fe::1/64")?;
    add_address(&rig.router, "lan0", "10.253.0.1/24")?;
    add_address(&rig.router, "lan0", "2001:db8:fd::1/64")?;
    for words in [
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        &format!("ip neigh add 10.254.0.2 lladdr {gateway} dev wan0"),
        &format!("ip neigh add 2001:db8:fe::2 lladdr {gateway} dev wan0"),
        "ip route add 10.255.0.0/16 via 10.254.0.2",
        "ip route add 2001:db8:ff::/48 via 2001:db8:fe::2",
    ] {
        rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
    }
    rig.rules(
        "table inet rig {
            chain ingress { type filter hook ingress device lan0 priority 0
                udp dport 9 log group 10 snaplen 60; }
            chain prerouting { type filter hook prerouting priority 0
                udp dport 9 log group 11 snaplen 60 queue-threshold 500; }
            chain forward { type filter hook forward priority 0
                udp dport 9 log prefix \"forwarded\" group 12; }
            chain postrouting { type filter hook postrouting priority 0
                udp dport 9 log group 13 snaplen 60 queue-threshold 20; }
        }
        table netdev rig {
            counter passed {}
            chain ingress { type filter hook ingress device lan0 priority 1
                udp dport 9 log group 14 snaplen 60; }
            chain egress { type filter hook egress device wan0 priority 0
                udp dport 9 counter name passed log group 15 snaplen 60 queue-threshold 50; }
        }
        table ip rig {
            chain forward { type filter hook forward priority 1
                udp dport 9 log group 16 snaplen 60; }
        }
        table ip6 rig {
            chain forward { type filter hook forward priority 1
                udp dport 9 log group 17 snaplen 60; }
        }",
    )?;
    let ip4 = mixed_sizes(rig.traffic("10.1.0.0/16", "10.255.0.1/32")?);
    each_group_counts(
        &rig,
        true,
        &["10", "11", "12", "13", "14", "15", "16"],
        &ip4,
    )?;
    let ip6 = mixed_sizes(rig.traffic("2001:db8:1::/48", "2001:db8:ff::1/128")?);
    each_group_counts(
        &rig,
        false,
        &["10", "11", "12", "13", "14", "15", "17"],
        &ip6,
    )
}

/// A bridge between the two links.
fn bridge(rig: &Rig) -> Result<()> {
    second_link(rig)?;
    for words in [
        "ip link add br0 type bridge mcast_snooping 0",
        "ip link set lan0 master br0",
        "ip link set wan0 master br0",
        "sysctl -qw net.ipv6.conf.br0.disable_ipv6=1",
        "ip link set br0 up",
    ] {
        rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
    }
    Ok(())
}

const BRIDGE_RULES: &str = "
    table bridge rig {
        chain prerouting { type filter hook prerouting priority 0
            iifname lan0 log group 20 snaplen 60 queue-threshold 50; }
        chain forward { type filter hook forward priority filter
            iifname lan0 log group 21 snaplen 60; }
    }
    table netdev rig {
        counter passed {}
        chain ingress { type filter hook ingress device lan0 priority 0
            log group 22 snaplen 60; }
        chain egress { type filter hook egress device wan0 priority 0
            counter name passed log group 23 snaplen 80 queue-threshold 50; }
    }";

/// To a station that the bridge has not seen, so it goes out of the other port.
fn through_the_bridge(rig: &Rig, source: &str, dest: &str) -> Result<TrafficArgs> {
    let mut traffic = mixed_sizes(rig.traffic(source, dest)?);
    traffic.to_mac.0 = [2, 0, 0, 0, 0, 0x77];
    Ok(traffic)
}

fn bridge_and_netdev_hooks_of_a_bridge() -> Result<()> {
    let rig = Rig::new()?;
    bridge(&rig)?;
    rig.rules(BRIDGE_RULES)?;
    let groups = ["20", "21", "22", "23"];
    let ip4 = through_the_bridge(&rig, "10.1.0.0/16", "10.255.0.1/32")?;
    each_group_counts(&rig, true, &groups, &ip4)?;
    let ip6 = through_the_bridge(&rig, "2001:db8::/32", "2001:db8:ffff::1/128")?;
    each_group_counts(&rig, false, &groups, &ip6)
}

fn vlan_tags_do_not_hide_packets() -> Result<()> {
    let rig = Rig::new()?;
    bridge(&rig)?;
    rig.rules(BRIDGE_RULES)?;
    for vlan in [vec![5], vec![5, 7]] {
        let traffic = through_the_bridge(&rig, "10.1.0.0/16", "10.255.0.1/32")?;
        let tagged = TrafficArgs { vlan, ..traffic };
        each_group_counts(&rig, true, &["20", "21", "22", "23"], &tagged)?;
    }
    Ok(())
}

/// Sends 1,000 packets for the one counter of `field` and none for the rows.
fn all_go_to(
    rig: &Rig,
    acctd_args: &[&str],
    traffic: &TrafficArgs,
    field: &str,
) -> Result<Vec<String>> {
    let acctd = rig.acctd(acctd_args)?;
    rig.send(traffic)?;
    let ended = acctd.finish()?;
    ensure!(totals(&rig.files()?, true) == (NONE, NONE));
    ensure!(totals(&rig.files()?, false) == (NONE, NONE));
    ensure!(rig.summed(field)? == 1_000, "{:?}", rig.summaries()?);
    ensure!(rig.summed("undecodable")? == 1_000 && rig.summed("lost")? == 0);
    Ok(ended.log)
}

fn what_is_no_ip_is_counted_as_that() -> Result<()> {
    let rig = Rig::new()?;
    bridge(&rig)?;
    rig.rules(BRIDGE_RULES)?;
    let junk = TrafficArgs {
        ether_type: Some(0x88b5),
        ..through_the_bridge(&rig, "10.1.0.0/16", "10.255.0.1/32")?
    };
    for group in ["20", "21", "22", "23"] {
        let log = all_go_to(&rig, &["-ip4-src-group", group], &junk, "not_ip")?;
        ensure!(
            log.iter()
                .any(|line| line.contains("1000 packets not counted that are not IP"))
        );
        std::fs::remove_dir_all(rig.log_directory())?;
    }
    Ok(())
}

/// Seen on the ingress hook, before the kernel discards what is not really BIG TCP.
fn packets_without_a_length() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table netdev rig { chain ingress { type filter hook ingress device lan0 priority 0
            ip saddr 10.1.0.0/16 log group 5 snaplen 20
            ip6 saddr 2001:db8::/32 log group 7 snaplen 40
        }; }",
    )?;
    let acctd = rig.acctd(&["-ip4-src-group=5", "-ip6-src-group=7"])?;
    for (source, dest) in [
        ("10.1.0.0/16", "10.255.0.1/32"),
        ("2001:db8::/32", "2001:db8:ffff::1/128"),
    ] {
        let traffic = mixed_sizes(rig.traffic(source, dest)?);
        rig.send(&TrafficArgs {
            no_length: true,
            ..traffic
        })?;
    }
    acctd.finish()?;
    let files = rig.files()?;
    let counted = Count {
        packets: 1_000,
        bytes: 0,
    };
    ensure!(totals(&files, true) == (counted, NONE), "{files:?}");
    ensure!(totals(&files, false) == (counted, NONE), "{files:?}");
    ensure!(rig.summed("without_length")? == 2_000 && rig.summed("undecodable")? == 0);
    Ok(())
}

/// As docs/rules.md says it, and doctor notes that there is one.
fn tunnel() -> Result<()> {
    const PINGS: u64 = 100;
    let rig = Rig::new()?;
    for (namespace, device, number, other) in [
        (&rig.router, "lan0", 1, &rig.veth.far_mac),
        (&rig.wire, "wire0", 2, &rig.veth.near_mac),
    ] {
        let peer = 3 - number;
        let commands = format!(
            "ip addr add 10.9.0.{number}/24 dev {device}
            ip neigh add 10.9.0.{peer} lladdr {other} dev {device}
            ip link add vx0 address 02:00:00:00:00:0{number} type vxlan id 7 dev {device} \
                local 10.9.0.{number} remote 10.9.0.{peer} dstport 4789
            ip addr add 10.7.0.{number}/24 dev vx0
            ip link set vx0 up
            ip neigh add 10.7.0.{peer} lladdr 02:00:00:00:00:0{peer} dev vx0"
        );
        namespace.run(&["sh", "-e", "-c", &commands])?;
    }
    let args = ["-ip4-src-group=5", "-ip4-dst-group=4"];
    let inner = ("10.7.0.2", PINGS, PINGS * 84);
    // Ethernet, VXLAN, UDP and IP around it.
    let outer = ("10.9.0.2", PINGS, PINGS * (84 + 14 + 8 + 8 + 20));
    for (interface, expected) in [
        (None, &[inner, outer][..]),
        (Some("vx0"), &[inner]),
        (Some("lan0"), &[outer]),
    ] {
        let named = |key: &str| interface.map_or(String::new(), |it| format!("{key} {it}"));
        rig.rules(&format!(
            "table inet rig; delete table inet rig; table inet rig {{
                chain input {{ type filter hook input priority -300;
                    {} meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; }}
                chain output {{ type filter hook output priority -300;
                    {} meta nfproto ipv4 log group 4 snaplen 20 queue-threshold 50; }}
            }}",
            named("iifname"),
            named("oifname")
        ))?;
        let mut doctor = rig.router.command(rig.acctd_path());
        let said = doctor.args(["doctor", "-verbose"]).args(args).output()?;
        let said = String::from_utf8(said.stdout)?;
        ensure!(
            said.contains("a packet through vx0 (vxlan) is two packets"),
            "{said}"
        );
        let acctd = rig.acctd(&args)?;
        rig.router
            .run(&["ping", "-q", "-c", "100", "-i", "0.01", "10.7.0.2"])?;
        acctd.finish()?;
        let files = rig.files()?;
        let rows = files.iter().flat_map(|file| &file.rows);
        let found: Vec<_> = rows
            .map(|row| (row.ip.to_string(), row.source, row.dest))
            .collect();
        let expected = expected.iter().map(|&(ip, packets, bytes)| {
            let count = Count { packets, bytes };
            (ip.to_owned(), count, count)
        });
        ensure!(
            found == expected.collect::<Vec<_>>(),
            "{interface:?}: {found:?}"
        );
        std::fs::remove_dir_all(rig.log_directory())?;
    }
    Ok(())
}

fn a_snaplen_too_small() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            ip protocol udp log group 5 snaplen 19
            drop; }; }",
    )?;
    let traffic = mixed_sizes(rig.traffic("10.1.0.0/16", "10.255.0.1/32")?);
    let log = all_go_to(&rig, &["-ip4-src-group=5"], &traffic, "truncated")?;
    ensure!(
        log.iter().any(|line| line.contains("'snaplen 20'")),
        "{log:?}"
    );
    Ok(())
}

fn the_other_family() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            meta l4proto udp log group 5
            drop; }; }",
    )?;
    let traffic = mixed_sizes(rig.traffic("10.1.0.0/16", "10.255.0.1/32")?);
    let log = all_go_to(&rig, &["-ip6-src-group=5"], &traffic, "other_family")?;
    ensure!(
        log.iter()
            .any(|line| line.contains("1000 IPv4 packets not counted")),
        "{log:?}"
    );
    Ok(())
}
