//! Frames crafted byte by byte, each explained to the byte: it is in its row, or in the counter
//! that says why not. Whether it got into netfilter at all is the nft counter's word.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use testkit::craft::{
    ANOTHER_HOST, BROADCAST, Ethernet, Extension, Frame, Ipv4, Ipv6, Packet, VlanTag, multicast_mac,
};
use testkit::mac::MacAddr;
use testkit::nft::Count;
use testkit::traffic::{self, Tun};
use testkit::veth::add_address;

use super::prefix_of;
use super::run::{Run, add, count, from, to};
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::{Case, Needs};

pub(super) mod fragments;
pub(super) mod headers;

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_frames_for_others_and_of_other_kinds_are_counted_as_that",
        link_layer,
    ),
    (
        Needs::NetdevEgress,
        "crosscheck_tagged_frames_on_the_way_out_match",
        tagged_on_the_way_out,
    ),
    (
        Needs::Root,
        "crosscheck_multicast_of_ones_own_that_comes_back_matches",
        own_multicast,
    ),
    (
        Needs::Root,
        "crosscheck_packets_of_a_tun_device_of_any_length",
        tun_device,
    ),
];

/// What is to become of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is in its row, with the length that its header states.
    Counted,
    /// It is in its row, without bytes.
    WithoutLength,
    /// The kernel discards it, for this reason.
    Uncounted(&'static str),
}
use Fate::{Counted, Uncounted, WithoutLength};

#[derive(Debug)]
struct Kind {
    name: &'static str,
    source: IpAddr,
    frame: Frame,
    fate: Fate,
}

/// The kinds of frames in one run. The n-th is sent n times, so that no two can be mistaken for
/// each other, and each has a source of its own.
struct Kinds {
    link: Ethernet,
    kinds: Vec<Kind>,
}

impl Kinds {
    fn to(mac: MacAddr) -> Self {
        Self {
            link: Ethernet::to(mac),
            kinds: Vec::new(),
        }
    }

    fn number(&self) -> u8 {
        u8::try_from(self.kinds.len() + 1).unwrap_or(0)
    }

    fn ip4(&mut self, name: &'static str, fate: Fate, edit: impl FnOnce(&mut Ipv4)) -> &mut Kind {
        let mut packet = Ipv4::udp([10, 1, 0, self.number()], [10, 255, 0, 1], &[0x5a; 30]);
        edit(&mut packet);
        let frame = self.link.frame(&packet.packet());
        self.push(name, fate, packet.source.into(), frame)
    }

    fn ip6(&mut self, name: &'static str, fate: Fate, edit: impl FnOnce(&mut Ipv6)) -> &mut Kind {
        let source = [0x2001, 0xdb8, 0, self.number().into(), 0, 0, 0, 1];
        let mut packet = Ipv6::udp(source, [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1], &[0x5a; 30]);
        edit(&mut packet);
        let frame = self.link.frame(&packet.packet());
        self.push(name, fate, packet.source.into(), frame)
    }

    fn push(&mut self, name: &'static str, fate: Fate, source: IpAddr, frame: Frame) -> &mut Kind {
        let at = self.kinds.len();
        self.kinds.push(Kind {
            name,
            source,
            frame,
            fate,
        });
        &mut self.kinds[at]
    }
}

impl Kind {
    fn edit_frame(&mut self, edit: impl FnOnce(Frame) -> Frame) {
        self.frame = edit(self.frame.clone());
    }

    /// The length of the frame at TC: the outermost tag is not in it any more.
    fn length(&self) -> u64 {
        let bytes = self.frame.bytes();
        let is_tagged = bytes.len() > 16 && matches!(bytes[12..14], [0x81, 0] | [0x88, 0xa8]);
        (bytes.len() - if is_tagged { 4 } else { 0 }) as u64
    }

    /// The length of the packet once the kernel has cut off what is behind it.
    fn length_for_netfilter(&self) -> u64 {
        let has_hop_by_hop = self.frame.bytes().get(14 + 6) == Some(&0);
        match self.fate {
            Counted => self.frame.ip_length().into(),
            WithoutLength if has_hop_by_hop => self.length() - 14,
            WithoutLength => 40,
            Uncounted(_) => 0,
        }
    }
}

const ARGS: &[&str] = &["-ip4-src-group=5", "-ip6-src-group=7", "-crosscheck=lan0"];

impl Kinds {
    /// Sends them all, and compares everything there is.
    fn check_on(&self, rig: &Rig) -> Result<()> {
        rig.rules(LOG_AND_DROP)?;
        let mut frames: Vec<&[u8]> = Vec::new();
        let mut passed = (NONE, NONE);
        let mut rows = BTreeMap::new();
        let mut uncounted = BTreeMap::new();
        for (kind, n) in self.kinds.iter().zip(1..) {
            frames.extend((0..n).map(|_| kind.frame.bytes()));
            let of_length = |length: u64| Count {
                packets: n,
                bytes: n * length,
            };
            let reason = match kind.fate {
                Counted => None,
                WithoutLength => Some("without_length"),
                Uncounted(reason) => Some(reason),
            };
            if let Some(reason) = reason {
                let count = uncounted.entry(reason.to_owned()).or_insert(NONE);
                add(count, of_length(kind.length()));
            }
            if matches!(kind.fate, Uncounted(_)) {
                continue;
            }
            let counter = match kind.source {
                IpAddr::V4(_) => &mut passed.0,
                IpAddr::V6(_) => &mut passed.1,
            };
            let source = prefix_of(kind.source);
            add(counter, of_length(kind.length_for_netfilter()));
            let length = match kind.fate {
                Counted => kind.frame.ip_length().into(),
                _ => 0,
            };
            let row = from(source, of_length(length), of_length(length), "match");
            ensure!(rows.insert(source, row).is_none(), "two from {source}");
        }
        let run = Run::of(rig, ARGS, || {
            ensure!(rig.send_frames(&frames)? == frames.len() as u64);
            Ok(())
        })?;
        let found = run.rows();
        for (kind, n) in self.kinds.iter().zip(1..) {
            let row = prefix_of(kind.source);
            let (row, expected) = (found.get(&row), rows.get(&row));
            ensure!(
                row == expected,
                "{n} × {}: {row:?} != {expected:?}",
                kind.name
            );
        }
        ensure!(found == rows, "{found:?} != {rows:?}");
        ensure!(
            *run.uncounted() == uncounted,
            "{:?} != {uncounted:?}",
            run.uncounted()
        );
        let counters = (rig.counter("v4")?, rig.counter("v6")?);
        ensure!(counters == passed, "nft {counters:?} != {passed:?}");
        ensure!(run.explained_by_fragments() == 0);
        Ok(())
    }
}

fn link_layer() -> Result<()> {
    let rig = Rig::new()?;
    let mut kinds = Kinds::to(rig.veth.near_mac);
    let link = kinds.link.clone();
    let mut on = |name, fate, link: Ethernet| {
        kinds.link = link.clone();
        kinds.ip4(name, fate, |_| ());
        kinds.ip6(name, fate, |_| ());
    };
    let to = |to| Ethernet { to, ..link.clone() };
    let tagged = |tags: &[VlanTag]| Ethernet {
        tags: tags.to_vec(),
        ..link.clone()
    };
    on("to everyone", Counted, to(BROADCAST));
    on(
        "to a group",
        Counted,
        to(multicast_mac(Ipv4Addr::new(224, 0, 0, 251))),
    );
    on("to another host", Uncounted("other_host"), to(ANOTHER_HOST));
    let priority = VlanTag::customer(0x6000);
    on("priority", Counted, tagged(&[priority]));
    on(
        "priority of a service",
        Counted,
        tagged(&[VlanTag::service(0x2000)]),
    );
    on(
        "priorities",
        Counted,
        tagged(&[VlanTag::service(0), priority]),
    );
    on(
        "a VLAN",
        Uncounted("unknown_vlan"),
        tagged(&[VlanTag::customer(5)]),
    );
    on(
        "the last VLAN",
        Uncounted("unknown_vlan"),
        tagged(&[VlanTag::customer(0xffff)]),
    );
    on(
        "QinQ",
        Uncounted("unknown_vlan"),
        tagged(&[VlanTag::service(5), VlanTag::customer(7)]),
    );
    on(
        "a VLAN within a priority",
        Uncounted("unknown_vlan"),
        tagged(&[priority, VlanTag::customer(7)]),
    );
    on(
        "another host's priority",
        Uncounted("other_host"),
        Ethernet {
            to: ANOTHER_HOST,
            ..tagged(&[priority])
        },
    );
    for (name, ether_type) in [("ARP", 0x0806), ("an experiment", 0x88b5), ("a length", 44)] {
        on(
            name,
            Uncounted("not_ip"),
            Ethernet {
                ether_type: Some(ether_type),
                ..link.clone()
            },
        );
    }
    on(
        "a priority's ARP",
        Uncounted("not_ip"),
        Ethernet {
            ether_type: Some(0x0806),
            ..tagged(&[priority])
        },
    );
    kinds.check_on(&rig)
}

/// No link-layer header, and packets that are not in one piece in the kernel's memory.
fn tun_device() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let mut packets = Vec::new();
    let mut rows = BTreeMap::new();
    let mut totals = (NONE, NONE);
    let sizes = [
        0, 1, 100, 1_400, 3_000, 3_500, 3_600, 3_700, 3_800, 4_000, 4_100, 8_000, 30_000, 60_000,
    ];
    for (n, size) in (1_u8..).zip(sizes) {
        let ip4 = Ipv4 {
            options: vec![1; usize::from(n % 3) * 4],
            ..Ipv4::udp([10, 1, 0, n], [10, 255, 0, 1], &vec![7; size])
        };
        let ip6 = Ipv6 {
            extensions: vec![Extension::HopByHop(vec![5, 2, 0, 0]); usize::from(n % 2)],
            ..Ipv6::udp(
                [0x2001, 0xdb8, 0, n.into(), 0, 0, 0, 1],
                [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1],
                &vec![7; size],
            )
        };
        let mut expect = |ip: IpAddr, packet: &Packet, total: &mut Count| {
            let length = count(1, packet.ip_length().into());
            rows.insert(prefix_of(ip), from(prefix_of(ip), length, length, "match"));
            add(total, length);
            packets.push(packet.bytes().to_vec());
        };
        expect(ip4.source.into(), &ip4.packet(), &mut totals.0);
        expect(ip6.source.into(), &ip6.packet(), &mut totals.1);
    }
    // And what the kernel discards.
    let too_long = Ipv4 {
        total_length: Some(4_129),
        ..Ipv4::udp([10, 1, 1, 1], [10, 255, 0, 1], &[7; 4_100])
    };
    let too_long_6 = Ipv6 {
        payload_length: Some(4_109),
        ..Ipv6::udp(
            [0x2001, 0xdb8, 1, 1, 0, 0, 0, 1],
            [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1],
            &[7; 4_100],
        )
    };
    let wrong = Ipv4 {
        wrong_checksum: true,
        ..Ipv4::udp([10, 1, 1, 2], [10, 255, 0, 1], &[7; 4_100])
    };
    packets.extend([too_long.packet(), wrong.packet()].map(|packet| packet.bytes().to_vec()));
    packets.push(too_long_6.packet().bytes().to_vec());
    let n_packets = packets.len() as u64;
    let mut tun = Tun::new(&rig.router, rig.generator(), "tun0", &packets)?;
    let mut flags = ARGS.to_vec();
    flags.retain(|flag| !flag.starts_with("-crosscheck"));
    flags.push("-crosscheck=tun0");
    let run = Run::of(&rig, &flags, || {
        ensure!(tun.write()? == n_packets);
        Ok(())
    })?;
    let found = run.rows();
    for (ip, row) in &rows {
        ensure!(found.get(ip) == Some(row), "{:?} != {row:?}", found.get(ip));
    }
    ensure!(found == rows, "{found:?}");
    ensure!((rig.counter("v4")?, rig.counter("v6")?) == totals);
    let truncated = count(2, 4_128 + 4_148);
    ensure!(
        run.interval.uncounted("truncated") == truncated,
        "{:?}",
        run.uncounted()
    );
    ensure!(run.interval.uncounted("bad_checksum") == count(1, 4_128));
    ensure!(run.uncounted().len() == 2, "{:?}", run.uncounted());
    Ok(())
}

/// There, tags are part of the frame, and the packet behind them is counted. What is no packet of
/// the version that its frame says is counted by neither side.
fn tagged_on_the_way_out() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table netdev rig {
            counter out {}
            chain egress {
                type filter hook egress device lan0 priority 0
                counter name out log group 4 snaplen 80
            }
        }",
    )?;
    let tagged = |tags: &[VlanTag]| Ethernet {
        tags: tags.to_vec(),
        ..Ethernet::to(rig.veth.far_mac)
    };
    let (outer, inner) = (VlanTag::service(5), VlanTag::customer(7));
    let mut frames = Vec::new();
    let mut rows = BTreeMap::new();
    for (n, tags) in (1_u8..).zip([&[][..], &[inner], &[outer], &[outer, inner]]) {
        let packet = Ipv4 {
            options: vec![1; usize::from(n) * 4],
            ..Ipv4::udp([10, 9, 0, 1], [10, 2, 0, n], &[7; 60])
        };
        let frame = tagged(tags).frame(&packet.packet());
        let all = count(n.into(), u64::from(n) * u64::from(frame.ip_length()));
        let dest = packet.dest.into();
        rows.insert(dest, to(dest, all, all, "match"));
        frames.extend((0..n).map(|_| frame.clone()));
    }
    let n_packets = frames.len() as u64;
    let no_version = Ipv4 {
        version: 5,
        ..Ipv4::udp([10, 9, 0, 1], [10, 2, 0, 99], &[7; 60])
    };
    let no_version = Ethernet::to(rig.veth.far_mac).frame(&no_version.packet());
    let length = no_version.bytes().len() as u64;
    frames.push(no_version);
    let run = Run::of(&rig, &["-ip4-dst-group=4", "-crosscheck=lan0"], || {
        let sent = traffic::send_frames_with_hooks(&rig.router, rig.generator(), "lan0", &frames)?;
        ensure!(sent == n_packets + 1);
        Ok(())
    })?;
    ensure!(run.rows() == rows, "{run:?}");
    ensure!(rig.counter("out")?.packets == n_packets + 1);
    ensure!(
        run.interval.uncounted("bad_header") == count(1, length),
        "{run:?}"
    );
    ensure!(run.uncounted().len() == 1, "{:?}", run.uncounted());
    Ok(())
}

/// What a host sends to a group that it is in comes back to it, as if it had come from the wire;
/// even where the group's scope is the interface.
fn own_multicast() -> Result<()> {
    let rig = Rig::new()?;
    add_address(&rig.router, "lan0", "2001:db8:9::1/64")?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    rig.router
        .run(&["sysctl", "-qw", "net.ipv4.icmp_echo_ignore_broadcasts=0"])?;
    rig.rules(
        "table inet rig {
            counter v4 {}
            counter v6 {}
            chain prerouting {
                type filter hook prerouting priority raw
                iifname lan0 icmpv6 type echo-request counter name v6
                iifname lan0 icmp type echo-request counter name v4
                iifname lan0 meta nfproto ipv4 log group 5 snaplen 20
                iifname lan0 meta nfproto ipv6 log group 7 snaplen 40
            }
        }",
    )?;
    let run = Run::of(&rig, ARGS, || {
        let ping = "for to in ff01::1%lan0 ff02::1%lan0 224.0.0.1; do \
            ping -q -c 3 -i 0.1 -W 0.1 -s 100 -L -I lan0 $to; \
            ping -q -c 2 -i 0.1 -W 0.1 -s 100 -I lan0 $to; done; true";
        rig.router.run(&["sh", "-c", ping]).map(drop)
    })?;
    let ip4: IpAddr = [10, 9, 0, 1].into();
    let ip6: IpAddr = "2001:db8:9::".parse()?;
    let (came4, came6) = (count(2, 2 * 128), count(4, 4 * 148));
    ensure!(
        (rig.counter("v4")?, rig.counter("v6")?) == (came4, came6),
        "{run:?}"
    );
    let rows = run.rows();
    ensure!(
        rows.get(&ip4) == Some(&from(ip4, came4, came4, "match")),
        "{run:?}"
    );
    ensure!(
        rows.get(&ip6) == Some(&from(ip6, came6, came6, "match")),
        "{run:?}"
    );
    ensure!(rows.values().all(|row| row.verdict == "match"), "{run:?}");
    ensure!(!run.uncounted().contains_key("bad_header"), "{run:?}");
    Ok(())
}
