//! What a firewall may tell apart: pings of one connection, UDP of new ones, TCP to ports that are mostly open and
//! mostly not, what this host sends itself, and what it forwards both ways.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use testkit::craft::{Ethernet, Frame, Ipv4, Payload};
use testkit::traffic::send_frames;
use testkit::veth::{Veth, add_address};

use crate::rig::Rig;
use crate::waiting::PATIENCE;

/// This host on `lan0`, and its neighbour on the wire.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Behind `wan0`.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const N_EACH: u8 = 20;
const OWN_PINGS: &str = "5";

/// Addresses and routes, and no address resolution that would come in between.
pub(super) fn prepare(rig: &Rig, forwards: bool) -> Result<()> {
    let router = &rig.router;
    let wan = Veth::new(router, "wan0", &rig.wire, "wire1")?;
    let neighbour = &rig.veth.far_mac.to_string();
    let host = &rig.veth.near_mac.to_string();
    let script = format!(
        "ip addr add {HOST}/24 dev lan0
         ip addr add 10.254.0.1/24 dev wan0
         ip neigh add {NEIGHBOUR} lladdr {neighbour} dev lan0
         ip neigh add 10.254.0.2 lladdr {} dev wan0
         ip route add 10.1.0.0/16 via {NEIGHBOUR}
         ip route add 10.255.0.0/16 via 10.254.0.2
         sysctl -qw net.ipv4.ip_forward={} net.ipv4.conf.all.rp_filter=0 net.ipv4.icmp_ratelimit=0",
        wan.far_mac,
        u8::from(forwards)
    );
    router.run(&["sh", "-e", "-c", &script])?;
    add_address(&rig.wire, "wire0", &format!("{NEIGHBOUR}/24"))?;
    rig.wire
        .run(&[
            "ip",
            "neigh",
            "add",
            &HOST.to_string(),
            "lladdr",
            host,
            "dev",
            "wire0",
        ])
        .map(drop)
}

/// Sends it and waits until all has arrived.
pub(super) fn send(rig: &Rig, forwards: bool) -> Result<()> {
    let to_host = Ethernet::to(rig.veth.near_mac);
    let mut frames: Vec<Frame> = Vec::new();
    for n in 0..N_EACH {
        let customer = Ipv4Addr::new(10, 1, 0, n);
        frames.push(to_host.frame(&carrying(NEIGHBOUR, HOST, 1, echo(n)).packet()));
        frames.push(to_host.frame(&Ipv4::udp(customer, HOST, &[n]).packet()));
        for port in [22, 8080] {
            let segment = syn(customer, HOST, port);
            frames.push(to_host.frame(&carrying(customer, HOST, 6, segment).packet()));
        }
        if forwards {
            frames.push(to_host.frame(&Ipv4::udp(customer, FAR, &[n]).packet()));
            let segment = syn(customer, FAR, 443);
            frames.push(to_host.frame(&carrying(customer, FAR, 6, segment).packet()));
        }
    }
    let sent = send_frames(&rig.wire, rig.generator(), &rig.veth.far, &frames, 1)?;
    if forwards {
        let wan_mac = rig.router.run(&["cat", "/sys/class/net/wan0/address"])?;
        let to_wan = Ethernet::to(wan_mac.trim().parse().map_err(anyhow::Error::msg)?);
        let answers: Vec<Frame> = (0..N_EACH)
            .map(|n| {
                let customer = Ipv4Addr::new(10, 1, 0, n);
                to_wan.frame(&Ipv4::udp(FAR, customer, &[n]).packet())
            })
            .collect();
        send_frames(&rig.wire, rig.generator(), "wire1", &answers, 1)?;
    }
    // A firewall may keep them in or their answers out.
    let ping = ["ping", "-q", "-c", OWN_PINGS, "-i", "0.01", "-W", "0.2"];
    let neighbour = NEIGHBOUR.to_string();
    let mut ping_command = rig.router.command(ping[0]);
    ping_command.args(&ping[1..]).arg(neighbour).output()?;
    let end = Instant::now() + PATIENCE;
    while rig.counter("received")?.packets < sent {
        ensure!(Instant::now() < end, "packets have not arrived");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn carrying(source: Ipv4Addr, dest: Ipv4Addr, protocol: u8, bytes: Vec<u8>) -> Ipv4 {
    Ipv4 {
        payload: Payload::Raw { protocol, bytes },
        ..Ipv4::udp(source, dest, &[])
    }
}

/// An echo request (RFC 792) of one series.
fn echo(number: u8) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 0x12, 0x34, 0, number];
    let sum = checksum(&bytes, 0);
    bytes[2..4].copy_from_slice(&sum);
    bytes
}

/// A TCP segment (RFC 9293) that begins a connection.
fn syn(source: Ipv4Addr, dest: Ipv4Addr, port: u16) -> Vec<u8> {
    const LENGTH: u32 = 20;
    let mut bytes = vec![0; LENGTH as usize];
    bytes[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    bytes[2..4].copy_from_slice(&port.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = 0x02;
    bytes[14..16].copy_from_slice(&1024_u16.to_be_bytes());
    let addresses = [source.octets(), dest.octets()].concat();
    let pseudo_header = sum(&addresses) + 6 + LENGTH;
    let sum = checksum(&bytes, pseudo_header);
    bytes[16..18].copy_from_slice(&sum);
    bytes
}

fn sum(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
        .sum()
}

/// RFC 1071.
fn checksum(bytes: &[u8], begun: u32) -> [u8; 2] {
    let mut sum = begun + sum(bytes);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it was folded")]
    let folded = !(sum as u16);
    folded.to_be_bytes()
}
