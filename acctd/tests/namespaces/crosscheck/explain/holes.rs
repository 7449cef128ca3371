//! Rules with a hole as real networks have them: fourteen that everybody meets, and others.

use anyhow::{Context as _, Result, ensure};
use testkit::craft::{Ethernet, Ipv4, Ipv6, VlanTag};
use testkit::netns::{Namespace, Privilege};
use testkit::veth::{Veth, add_address};

use super::{PAYLOAD, SOURCE, WANTED, explain, udp};
use crate::crosscheck::holes::router_between_hosts;
use crate::crosscheck::{Router, streams};
use crate::rig::Rig;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (Needs::Root, "explain_a_rule_on_the_wrong_hook", wrong_hook),
    (Needs::Root, "explain_a_family_without_a_rule", other_family),
    (Needs::Root, "explain_a_rule_for_a_protocol", protocol),
    (
        Needs::Root,
        "explain_a_rule_for_new_connections",
        new_connections,
    ),
    (Needs::Root, "explain_a_rule_for_a_user", user),
    (Needs::Root, "explain_a_rule_for_a_mark", mark),
    (
        Needs::Root,
        "explain_a_rule_for_another_interface",
        interface,
    ),
    (Needs::Root, "explain_a_rule_with_a_limit", limit),
    (Needs::Root, "explain_an_accept_before_the_rule", accepted),
    (Needs::Root, "explain_a_drop_in_an_earlier_chain", dropped),
    (Needs::Root, "explain_two_rules_for_the_same_packets", twice),
    (Needs::Flowtable, "explain_a_flowtable", flowtable),
    (Needs::Root, "explain_rp_filter", rp_filter),
    (Needs::Root, "explain_a_port_of_a_bridge", bridge_port),
    (Needs::Root, "explain_a_rule_in_a_nat_chain", nat_chain),
    (
        Needs::Device("vlan"),
        "explain_a_vlan_of_the_interface",
        vlan,
    ),
    (Needs::Root, "explain_a_rule_for_a_set_of_addresses", set),
    (Needs::Root, "explain_a_ttl_that_ends", ttl),
    (Needs::Root, "explain_a_return_before_the_rule", returned),
    (
        Needs::Root,
        "explain_an_accept_of_established_connections",
        established,
    ),
    (Needs::Root, "explain_a_snaplen_too_small", snaplen),
    (Needs::Root, "explain_half_of_a_spread", spread),
    (Needs::Root, "explain_ports_of_iptables", iptables_ports),
];

/// Packets from 10.1.0.1 and .2 to a host behind the router, of which the rules are to miss the second.
fn ensure_missed(rules: &str, id: &str) -> Result<()> {
    let router = Router::new(rules)?;
    let rig = &router.rig;
    let frames = [udp(rig, 1, WANTED), udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &["10.1.0.0/24"], || {
        rig.send_frames(&frames).map(drop)
    })?;
    explained.ensure_hole("10.1.0.1", "10.1.0.2", id)
}

/// The same, if no packet is logged.
fn ensure_all_missed(rules: &str, id: &str) -> Result<()> {
    let router = Router::new(rules)?;
    let rig = &router.rig;
    let frames = [udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &["10.1.0.2"], || {
        rig.send_frames(&frames).map(drop)
    })?;
    explained.ensure_hole("", "10.1.0.2", id)
}

fn wrong_hook() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain input { type filter hook input priority 0
            log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    let frames = [udp(rig, 1, [10, 9, 0, 1]), udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_hole("10.1.0.1", "10.1.0.2", "hook")
}

fn other_family() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            meta nfproto ipv4 log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    let packet = Ipv6::udp(
        [0x2001, 0xdb8, 1, 0, 0, 0, 0, 1],
        [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1],
        PAYLOAD,
    );
    let frames = [
        udp(rig, 1, WANTED),
        Ethernet::to(rig.veth.near_mac).frame(&packet.packet()),
    ];
    let flags = ["-ip4-src-group=5", "-ip6-src-group=7", "-crosscheck=lan0"];
    let explained = explain(rig, &flags, &["10.1.0.1", "2001:db8:1::1"], || {
        rig.send_frames(&frames).map(drop)
    })?;
    explained.ensure_hole("10.1.0.1", "2001:db8:1::1", "no-rule")
}

fn protocol() -> Result<()> {
    ensure_all_missed(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            meta l4proto { tcp, icmp } log group 5 snaplen 20; }; }",
        "protocol",
    )
}

/// A ping is answered, so only its first packet is new.
fn new_connections() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    rig.rules(
        "table inet rig { chain prerouting { type filter hook prerouting priority 0
            ct state new log group 5 snaplen 20; }; }",
    )?;
    let explained = explain(&rig, &SOURCE, &["10.9.0.2"], || {
        ping(&rig.wire, &["-c", "5", "-i", "0.05", "10.9.0.1"])
    })?;
    explained.ensure_cause("10.9.0.2", "state")?;
    ensure!(explained.passed("10.9.0.2", "by_both") > 0);
    Ok(())
}

fn ping(namespace: &Namespace, args: &[&str]) -> Result<()> {
    namespace
        .run(&[&["ping", "-q", "-W", "1"], args].concat())
        .map(drop)
}

/// What another user sends.
fn user() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    rig.rules(
        "table inet rig { chain output { type filter hook output priority 0
            meta skuid 12345 log group 4 snaplen 20; }; }",
    )?;
    let flags = ["-ip4-dst-group=4", "-crosscheck=lan0"];
    let explained = explain(&rig, &flags, &["10.9.0.2"], || {
        ping(&rig.router, &["-c", "2", "-i", "0.05", "10.9.0.2"])
    })?;
    explained.ensure_hole("", "10.9.0.2", "owner")
}

fn mark() -> Result<()> {
    ensure_all_missed(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            meta mark 7 log group 5 snaplen 20; }; }",
        "mark",
    )
}

fn interface() -> Result<()> {
    ensure_all_missed(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            iifname wan0 meta nfproto ipv4 log group 5 snaplen 20; }; }",
        "interface",
    )
}

fn limit() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            limit rate 2/second burst 1 packets log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    let frames = [udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_cause("10.1.0.2", "limit")?;
    ensure!(explained.passed("10.1.0.2", "by_both") > 0);
    Ok(())
}

fn accepted() -> Result<()> {
    ensure_missed(
        "table inet rig { chain forward { type filter hook forward priority 0
            ip saddr 10.1.0.2 accept
            log group 5 snaplen 20; }; }",
        "accepted-before",
    )
}

fn dropped() -> Result<()> {
    ensure_missed(
        "table inet firewall { chain prerouting { type filter hook prerouting priority raw - 1
            ip saddr 10.1.0.2 drop; }; }
        table inet rig { chain prerouting { type filter hook prerouting priority raw
            log group 5 snaplen 20; }; }",
        "dropped-before",
    )
}

fn twice() -> Result<()> {
    let router = Router::new(
        "table inet rig {
            chain prerouting { type filter hook prerouting priority raw
                iifname lan0 log group 5 snaplen 20; }
            chain forward { type filter hook forward priority 0
                ip saddr 10.1.0.2 log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    let frames = [udp(rig, 1, WANTED), udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    let totals = &explained.json["report"]["totals"];
    ensure!(
        totals["by_tc_alone"] == 0 && totals["by_nflog_alone"] == 0,
        "{totals}"
    );
    ensure!(totals["by_nflog_twice"].as_u64() > Some(0), "{totals}");
    let causes = explained.json["causes"].as_array().context("causes")?;
    ensure!(
        causes.len() == 1 && causes[0]["id"] == "twice",
        "{causes:?}"
    );
    ensure!(causes[0]["check"] == "ok", "{causes:?}");
    let flows = causes[0]["flows"].to_string();
    ensure!(
        flows.contains("10.1.0.2") && !flows.contains("10.1.0.1"),
        "{flows}"
    );
    Ok(())
}

fn flowtable() -> Result<()> {
    let (rig, server, _wan) = router_between_hosts(
        "table inet rig {
            flowtable fast { hook ingress priority 0; devices = { lan0, wan0 }; }
            chain forward { type filter hook forward priority 0
                iifname lan0 log group 5 snaplen 20
                ip protocol tcp ct state established flow add @fast; }; }",
    )?;
    let explained = explain(&rig, &SOURCE, &["10.9.0.2"], || {
        streams::exchange_between(&rig, &server, &rig.wire, "10.8.0.2")
    })?;
    explained.ensure_cause("10.9.0.2", "flowtable")
}

/// 10.1.0.2 is not behind lan0, as far as the routes say.
fn rp_filter() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain forward { type filter hook forward priority 0
            iifname lan0 log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    for words in [
        "ip route add 10.1.0.1/32 dev lan0",
        "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.lan0.rp_filter=1",
    ] {
        rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
    }
    let frames = [udp(rig, 1, WANTED), udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_hole("10.1.0.1", "10.1.0.2", "rp-filter")
}

/// The bridge switches what is for the host behind wan0.
fn bridge_port() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    let wan = Veth::new(&rig.router, "wan0", &rig.wire, "wire1")?;
    for words in [
        "ip link add br0 type bridge",
        "ip link set br0 up",
        "ip link set lan0 master br0",
        "ip link set wan0 master br0",
    ] {
        rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
    }
    // Where br_netfilter is loaded, what is switched passes these rules too.
    let calls = "net.bridge.bridge-nf-call-iptables=0";
    let _not_there = rig.router.run(&["sysctl", "-qw", calls]);
    rig.rules(
        "table inet rig { chain postrouting { type filter hook postrouting priority 0
            oifname br0 log group 4 snaplen 20; }; }",
    )?;
    let packet = Ipv4::udp([10, 1, 0, 2], WANTED, PAYLOAD).packet();
    let frames = [Ethernet::to(wan.far_mac).frame(&packet)];
    let flags = ["-ip4-dst-group=4", "-crosscheck=wan0"];
    let explained = explain(&rig, &flags, &["10.255.0.1"], || {
        rig.send_frames(&frames).map(drop)
    })?;
    explained.ensure_hole("", "10.255.0.1", "bridge-port")
}

fn nat_chain() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain prerouting { type nat hook prerouting priority dstnat
            iifname lan0 log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    let frames = [udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_cause("10.1.0.2", "nat-chain")
}

fn vlan() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            iifname lan0 log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    for words in [
        "ip link add link lan0 name lan0.7 type vlan id 7",
        "ip link set lan0.7 up",
    ] {
        rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
    }
    let packet = Ipv4::udp([10, 1, 0, 2], WANTED, PAYLOAD).packet();
    let tagged = Ethernet {
        tags: vec![VlanTag::customer(7)],
        ..Ethernet::to(rig.veth.near_mac)
    };
    let frames = [udp(rig, 1, WANTED), tagged.frame(&packet)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_hole("10.1.0.1", "10.1.0.2", "interface")?;
    let cure = explained.json["causes"][0]["cure"].as_str();
    ensure!(
        cure.is_some_and(|it| it.contains("iifname \"lan0.7\"")),
        "{cure:?}"
    );
    Ok(())
}

fn set() -> Result<()> {
    ensure_missed(
        "table inet rig {
            set customers { type ipv4_addr; elements = { 10.1.0.1, 10.1.0.3 }; }
            chain prerouting { type filter hook prerouting priority raw
            ip saddr @customers log group 5 snaplen 20; }; }",
        "address",
    )
}

fn ttl() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain forward { type filter hook forward priority 0
            log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    let ends = Ipv4 {
        ttl: 1,
        ..Ipv4::udp([10, 1, 0, 2], WANTED, PAYLOAD)
    };
    let frames = [
        udp(rig, 1, WANTED),
        Ethernet::to(rig.veth.near_mac).frame(&ends.packet()),
    ];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_hole("10.1.0.1", "10.1.0.2", "ttl")
}

fn returned() -> Result<()> {
    ensure_missed(
        "table inet rig {
            chain accounted { ip saddr 10.1.0.2 return; log group 5 snaplen 20; }
            chain prerouting { type filter hook prerouting priority raw
                iifname lan0 jump accounted; }; }",
        "returned-before",
    )
}

/// As firewalls have it: what is established is accepted first.
fn established() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    rig.rules(
        "table inet rig { chain input { type filter hook input priority 0
            ct state invalid drop
            ct state { established, related } accept
            tcp dport 22 accept
            log group 5 snaplen 20; }; }",
    )?;
    let explained = explain(&rig, &SOURCE, &["10.9.0.2"], || {
        ping(&rig.wire, &["-c", "5", "-i", "0.05", "10.9.0.1"])
    })?;
    explained.ensure_cause("10.9.0.2", "accepted-before")?;
    let cause = explained.json["causes"][0]["cause"].as_str();
    ensure!(
        cause.is_some_and(|it| it.contains("established") && it.contains("if they match")),
        "{cause:?}"
    );
    Ok(())
}

fn snaplen() -> Result<()> {
    ensure_all_missed(
        "table inet rig { chain prerouting { type filter hook prerouting priority raw
            log group 5 snaplen 19; }; }",
        "snaplen",
    )
}

/// Every other packet goes to a chain that does not log.
fn spread() -> Result<()> {
    let router = Router::new(
        "table inet rig {
            chain first { log group 5 snaplen 20; }
            chain second { counter; }
            chain prerouting { type filter hook prerouting priority raw
                numgen inc mod 2 vmap { 0 : jump first, 1 : jump second }; }; }",
    )?;
    let rig = &router.rig;
    let frames = [udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_cause("10.1.0.2", "spread")?;
    ensure!(explained.passed("10.1.0.2", "by_both") > 0);
    Ok(())
}

fn iptables_ports() -> Result<()> {
    let router = Router::new("")?;
    let rig = &router.rig;
    let words = "iptables -t mangle -A PREROUTING -i lan0 -p udp --dport 50000:50001 -j NFLOG --nflog-group 5";
    rig.router.run(&words.split(' ').collect::<Vec<_>>())?;
    let frames = [udp(rig, 2, WANTED)];
    let explained = explain(rig, &SOURCE, &[], || rig.send_frames(&frames).map(drop))?;
    explained.ensure_hole("", "10.1.0.2", "condition")
}
