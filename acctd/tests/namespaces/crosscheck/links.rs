//! Kinds of devices beside Ethernet's: rules that name one, and the cross-check of it, count the same packets.

use anyhow::{Result, ensure};
use testkit::netns::{Namespace, Privilege};

use super::run::Run;
use crate::doctor::{doctor, is_well, names_first};
use crate::rig::{NONE, Rig};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::Device("vlan"),
        "crosscheck_of_a_vlan_device_matches",
        vlan,
    ),
    (
        Needs::Device("vlan"),
        "crosscheck_of_a_vlan_in_a_vlan_matches",
        vlan_in_vlan,
    ),
    (
        Needs::Device("bond"),
        "crosscheck_of_a_bond_and_of_its_port_matches",
        bond,
    ),
    (
        Needs::Device("wireguard"),
        "crosscheck_of_wireguard_matches_inside_and_outside",
        wireguard,
    ),
    (
        Needs::Device("vrf"),
        "crosscheck_of_a_port_of_a_vrf_matches_and_rules_without_an_interface_count_twice",
        vrf,
    ),
];

const PINGS: u64 = 50;

fn script(namespace: &Namespace, commands: &str) -> Result<()> {
    namespace.run(&["sh", "-e", "-c", commands]).map(drop)
}

/// What comes in by `device` is logged by source, and what goes out by it by destination.
fn rules(device: &str) -> String {
    format!(
        "table inet rig; delete table inet rig; table inet rig {{
            counter in {{}}
            counter out {{}}
            chain prerouting {{ type filter hook prerouting priority raw;
                iifname \"{device}\" meta nfproto ipv4 counter name in log group 5 snaplen 20; }}
            chain postrouting {{ type filter hook postrouting priority 300;
                oifname \"{device}\" meta nfproto ipv4 counter name out log group 4 snaplen 20; }}
        }}"
    )
}

fn pings(to: &str) -> String {
    format!("ping -q -c {PINGS} -i 0.01 -W 5 {to}")
}

/// What acctd has counted of these commands' packets on `device`.
fn run(rig: &Rig, commands: &str, device: &str) -> Result<Run> {
    let crosscheck = format!("-crosscheck={device}");
    let args = ["-ip4-src-group=5", "-ip4-dst-group=4", &crosscheck];
    Run::of(rig, &args, || script(&rig.router, commands))
}

/// Rules and cross-check of `device` count what nft counts there, in both directions.
fn ensure_match(rig: &Rig, commands: &str, device: &str) -> Result<()> {
    rig.rules(&rules(device))?;
    ensure_loaded_match(rig, commands, device)
}

/// The same with the rules that are loaded.
fn ensure_loaded_match(rig: &Rig, commands: &str, device: &str) -> Result<()> {
    let run = run(rig, commands, device)?;
    let (received, sent) = (rig.counter("in")?, rig.counter("out")?);
    ensure!(received.packets >= PINGS && sent.packets >= PINGS);
    let totals = [
        run.total(true, |row| row.source),
        run.total(true, |row| row.tc_source),
        run.total(true, |row| row.dest),
        run.total(true, |row| row.tc_dest),
    ];
    ensure!(
        totals == [received, received, sent, sent],
        "{device}: {totals:?}, nft {received:?} and {sent:?}"
    );
    for row in &run.interval.rows {
        ensure!(row.verdict == "match", "{device}: {row:?}");
    }
    Ok(())
}

fn vlan() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    for (namespace, device, number) in [(&rig.router, "lan0", 1), (&rig.wire, "wire0", 2)] {
        let commands = format!(
            "ip link add link {device} name {device}.5 type vlan id 5
            ip addr add 10.9.0.{number}/24 dev {device}.5
            ip link set {device}.5 up"
        );
        script(namespace, &commands)?;
    }
    ensure_match(&rig, &pings("10.9.0.2"), "lan0.5")?;
    // The rules name the VLAN device, and the program sees the tagged frames below it.
    rig.rules(&rules("lan0.5"))?;
    let run = run(&rig, &pings("10.9.0.2"), "lan0")?;
    let (received, sent) = (rig.counter("in")?, rig.counter("out")?);
    let row = run.interval.row("10.9.0.2".parse()?);
    ensure!(
        row.is_some_and(|row| (row.tc_source, row.tc_dest) == (received, sent)
            && (row.source, row.dest) == (received, sent)
            && row.verdict == "match"),
        "{row:?}"
    );
    ensure!(run.interval.uncounted("unknown_vlan") == NONE);
    Ok(())
}

/// `QinQ`, as a provider hands over its customers' VLANs.
fn vlan_in_vlan() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    for (namespace, device, number) in [(&rig.router, "lan0", 1), (&rig.wire, "wire0", 2)] {
        let commands = format!(
            "ip link add link {device} name outer type vlan proto 802.1ad id 5
            ip link set outer up
            ip link add link outer name inner type vlan id 7
            ip addr add 10.9.0.{number}/24 dev inner
            ip link set inner up"
        );
        script(namespace, &commands)?;
    }
    ensure_match(&rig, &pings("10.9.0.2"), "inner")?;
    rig.rules(&rules("inner"))?;
    for below in ["outer", "lan0"] {
        let run = run(&rig, &pings("10.9.0.2"), below)?;
        let row = run.interval.row("10.9.0.2".parse()?);
        ensure!(
            row.is_some_and(|row| row.verdict == "match"),
            "{below}: {row:?}"
        );
    }
    Ok(())
}

fn bond() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    script(&rig.wire, "ip addr add 10.9.0.2/24 dev wire0")?;
    script(
        &rig.router,
        "ip link add bond0 type bond mode active-backup miimon 10
        ip link set lan0 down
        ip link set lan0 master bond0
        ip addr add 10.9.0.1/24 dev bond0
        ip link set bond0 up",
    )?;
    wait_until("the bond has a port that is up", || {
        Ok(script(&rig.router, "ping -q -c 1 -W 1 10.9.0.2").is_ok())
    })?;
    ensure_match(&rig, &pings("10.9.0.2"), "bond0")?;
    // To the rules what its port receives comes from the bond.
    rig.rules(&rules("bond0"))?;
    let run = run(&rig, &pings("10.9.0.2"), "lan0")?;
    let row = run.interval.row("10.9.0.2".parse()?);
    ensure!(row.is_some_and(|row| row.verdict == "match"), "{row:?}");
    rig.rules(&rules("lan0"))?;
    let found = doctor(&rig, &["-ip4-src-group=5", "-ip4-dst-group=4"])?;
    names_first("a bond's port", &found, "port-of-bond")?;
    script(&rig.router, &pings("10.9.0.2"))?;
    ensure!((rig.counter("in")?, rig.counter("out")?) == (NONE, NONE));
    Ok(())
}

fn wireguard() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    let keys = rig.scratch().display();
    let ends = [(&rig.router, "lan0", 1), (&rig.wire, "wire0", 2)];
    for (namespace, ..) in ends {
        script(
            namespace,
            &format!(
                "cd {keys}
                for end in 1 2; do
                    [ -e $end.key ] || (umask 077; wg genkey > $end.key; wg pubkey < $end.key > $end.pub)
                done"
            ),
        )?;
    }
    for (namespace, device, number) in ends {
        let peer = 3 - number;
        let commands = format!(
            "cd {keys}
            ip addr add 10.9.0.{number}/24 dev {device}
            ip link add wg0 type wireguard
            wg set wg0 listen-port 51820 private-key {number}.key peer $(cat {peer}.pub) \
                allowed-ips 10.7.0.0/24 endpoint 10.9.0.{peer}:51820
            ip addr add 10.7.0.{number}/24 dev wg0"
        );
        script(namespace, &commands)?;
    }
    // Both ends are up only meanwhile: each sends keepalives and handshakes of its own accord.
    let both = |to: &str| {
        let wire = rig.wire.pid();
        format!("ip link set wg0 {to}; nsenter -t {wire} -n ip link set wg0 {to}")
    };
    let commands = format!("{}; {}; {}", both("up"), pings("10.7.0.2"), both("down"));
    ensure_match(&rig, &commands, "wg0")?;
    ensure_match(&rig, &commands, "lan0")
}

/// A packet for an address of a VRF passes prerouting twice: from the port, and again from the VRF.
fn vrf() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    script(
        &rig.router,
        "ip link add vrf0 type vrf table 10
        ip link set vrf0 up
        ip link set lan0 master vrf0
        ip addr add 10.9.0.1/24 dev lan0",
    )?;
    script(&rig.wire, "ip addr add 10.9.0.2/24 dev wire0")?;
    let from_vrf = pings("-I vrf0 10.9.0.2");
    ensure_match(&rig, &from_vrf, "lan0")?;
    // By destination too: what the host sends passes two times, as the VRF's and as the port's.
    let everywhere = rules("lan0")
        .replace("iifname \"lan0\"", "")
        .replace("oifname \"lan0\"", "");
    rig.rules(&everywhere)?;
    let run = run(&rig, &from_vrf, "lan0")?;
    let row = run.interval.row("10.9.0.2".parse()?);
    let twice = 2 * PINGS;
    ensure!(
        row.is_some_and(|row| row.source.packets == twice
            && row.tc_source.packets == PINGS
            && row.dest.packets == twice
            && row.tc_dest.packets == PINGS
            && row.verdict == "extra"),
        "{row:?}"
    );
    let args = ["-ip4-src-group=5", "-ip4-dst-group=4"];
    let of_doctor = names_first("a VRF", &doctor(&rig, &args)?, "vrf")?;
    // The condition that it names.
    ensure!(
        of_doctor.contains("add to the rule: iifname != vrf0"),
        "{of_doctor}"
    );
    rig.rules(
        &rules("lan0")
            .replace("iifname \"lan0\"", "iifname != vrf0")
            .replace("oifname \"lan0\"", "oifname != vrf0"),
    )?;
    is_well(&doctor(&rig, &args)?)?;
    ensure_loaded_match(&rig, &from_vrf, "lan0")?;
    for hook in ["input", "forward"] {
        rig.rules(&rules("lan0").replace("hook prerouting", &format!("hook {hook}")))?;
        names_first(hook, &doctor(&rig, &args)?, "port-of-vrf")?;
        script(&rig.router, &from_vrf)?;
        ensure!(rig.counter("in")? == NONE);
    }
    Ok(())
}
