//! Fragments, before and after reassembly.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use testkit::craft::{Ethernet, Extension, Frame, Ipv4, Ipv6};
use testkit::nft::Count;
use testkit::veth::add_address;

use super::ARGS;
use crate::crosscheck::run::{Run, count, from, since, to};
use crate::crosscheck::{LINK_HEADER, prefix_of};
use crate::rig::{LOG_AND_DROP, NONE, Rig};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_fragments_one_by_one",
        fragments_one_by_one,
    ),
    (
        Needs::Root,
        "crosscheck_fragments_put_together_by_conntrack_match",
        fragments_put_together,
    ),
    (
        Needs::Root,
        "crosscheck_fragments_that_never_complete_are_uncovered",
        fragments_that_never_complete,
    ),
    (
        Needs::NetdevEgress,
        "crosscheck_large_local_packets_match_before_and_after_their_fragmentation",
        fragments_on_the_way_out,
    ),
];

/// Three fragments each, two of IPv4 and two of IPv6, with headers of different lengths.
fn fragmented(rig: &Rig) -> Vec<(IpAddr, Vec<Frame>)> {
    let link = Ethernet::to(rig.veth.near_mac);
    let mut all = Vec::new();
    for (n, options) in [(1, Vec::new()), (2, vec![1; 12])] {
        let packet = Ipv4 {
            options,
            ..Ipv4::udp([10, 1, 0, n], [10, 255, 0, 1], &[7; 60])
        };
        let frames = packet.fragments(n.into(), &[16, 24]);
        let frames = frames.iter().map(|packet| link.frame(packet)).collect();
        all.push((packet.source.into(), frames));
    }
    let options = Extension::DestinationOptions(vec![0x1e, 2, 0, 0]);
    let alert = Extension::HopByHop(vec![5, 2, 0, 0]);
    for (n, extensions) in [(3, Vec::new()), (4, vec![alert, options])] {
        let source = [0x2001, 0xdb8, 0, n, 0, 0, 0, 1];
        let packet = Ipv6 {
            extensions,
            ..Ipv6::udp(source, [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1], &[7; 60])
        };
        let frames = packet.fragments(n, &[16, 24]);
        let frames = frames.iter().map(|packet| link.frame(packet)).collect();
        all.push((prefix_of(packet.source.into()), frames));
    }
    all
}

fn lengths(frames: &[Frame]) -> Count {
    let bytes = frames
        .iter()
        .map(|frame| u64::from(frame.ip_length()))
        .sum();
    count(frames.len() as u64, bytes)
}

fn flat(fragmented: &[(IpAddr, Vec<Frame>)]) -> Vec<&Frame> {
    fragmented.iter().flat_map(|(_, frames)| frames).collect()
}

fn fragments_one_by_one() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let fragmented = fragmented(&rig);
    let run = Run::of(&rig, ARGS, || rig.send_frames(&flat(&fragmented)).map(drop))?;
    let rows = fragmented.iter().map(|(ip, frames)| {
        let all = lengths(frames);
        (*ip, from(*ip, all, all, "match"))
    });
    ensure!(run.rows() == rows.collect(), "{run:?}");
    ensure!(run.explained_by_fragments() == 0 && run.uncounted().is_empty());
    Ok(())
}

/// Conntrack puts fragments together (at -400) before they are logged (at -300).
const DEFRAGMENTED: &str = "
    table inet rig {
        counter v4 {}
        counter v6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter name v4 log group 5 snaplen 20
            meta nfproto ipv6 counter name v6 log group 7 snaplen 40
        }
        chain later {
            type filter hook prerouting priority filter
            ct state new drop
            drop
        }
    }";

fn fragments_put_together() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(DEFRAGMENTED)?;
    let fragmented = fragmented(&rig);
    let run = Run::of(&rig, ARGS, || rig.send_frames(&flat(&fragmented)).map(drop))?;
    // The headers, the one of UDP, and what it carries.
    let headers = [20, 20 + 12, 40, 40 + 8 + 8];
    let mut rows = BTreeMap::new();
    for ((ip, frames), header) in fragmented.iter().zip(headers) {
        let whole = count(1, header + 8 + 60);
        rows.insert(*ip, from(*ip, whole, lengths(frames), "match"));
    }
    ensure!(run.rows() == rows, "{run:?}\n!= {rows:?}");
    ensure!(run.explained_by_fragments() == 4 && run.uncounted().is_empty());
    ensure!(rig.counter("v4")? == count(2, 88 + 100) && rig.counter("v6")?.packets == 2);
    Ok(())
}

/// If fragments are never reassembled, no rule logs them. They are uncovered, and no allowance hides that.
fn fragments_that_never_complete() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(DEFRAGMENTED)?;
    let mut fragmented = fragmented(&rig);
    for (_, frames) in &mut fragmented {
        frames.remove(1);
    }
    let run = Run::of(&rig, ARGS, || rig.send_frames(&flat(&fragmented)).map(drop))?;
    let rows = fragmented
        .iter()
        .map(|(ip, frames)| (*ip, from(*ip, NONE, lengths(frames), "uncovered")));
    ensure!(run.rows() == rows.collect(), "{run:?}");
    ensure!(run.interval.tally("uncovered").prefixes == 4);
    Ok(())
}

/// A packet that came as three fragments is one that the kernel cuts into three: local packets are
/// logged whole by the hook output, and piece by piece by the netdev hook behind it.
fn fragments_on_the_way_out() -> Result<()> {
    let rig = Rig::new()?;
    add_address(&rig.router, "lan0", "10.9.0.1/24")?;
    add_address(&rig.router, "lan0", "2001:db8:9::1/32")?;
    let far = rig.veth.far_mac.to_string();
    for peer in ["10.9.0.2", "2001:db8:8::2"] {
        let words = ["ip", "neigh", "add", peer, "lladdr", &far, "dev", "lan0"];
        rig.router.run(&words)?;
    }
    rig.rules(
        "table inet rig {
            counter v4 {}
            counter v6 {}
            chain output {
                type filter hook output priority 0
                meta nfproto ipv4 counter name v4 log group 5 snaplen 20
                meta nfproto ipv6 counter name v6 log group 7 snaplen 40
            }
        }
        table netdev rig {
            counter out4 {}
            counter out6 {}
            chain egress {
                type filter hook egress device lan0 priority 0
                meta protocol ip counter name out4 log group 15 snaplen 34
                meta protocol ip6 ip6 daddr 2001:db8:8::2 counter name out6
                meta protocol ip6 log group 17 snaplen 54
            }
        }",
    )?;
    let pings = || {
        // Nobody answers.
        let ping = "for to in 10.9.0.2 2001:db8:8::2; do ping -q -c 3 -i 0.1 -W 0.1 -s 4000 $to; done; true";
        rig.router.run(&["sh", "-c", ping]).map(drop)
    };
    let ip4: IpAddr = [10, 9, 0, 2].into();
    let ip6: IpAddr = "2001:db8:8::".parse()?;
    // 4,008 bytes of ICMP in pieces of 1,480 and 1,448 (a multiple of 8).
    let whole = [count(3, 3 * 4_028), count(3, 3 * 4_048)];
    let pieces = [
        count(9, 3 * (4_008 + 3 * 20)),
        count(9, 3 * (4_008 + 3 * 48)),
    ];
    for (groups, nflog, n_explained) in [(["5", "7"], whole, 2), (["15", "17"], pieces, 0)] {
        let before = (rig.counter("out4")?, rig.counter("out6")?);
        let flags = [
            "-ip4-dst-group",
            groups[0],
            "-ip6-dst-group",
            groups[1],
            "-crosscheck=lan0",
        ];
        let run = Run::of(&rig, &flags, pings)?;
        let rows = run.rows();
        for (ip, nflog, tc) in [(ip4, nflog[0], pieces[0]), (ip6, nflog[1], pieces[1])] {
            ensure!(
                rows.get(&ip) == Some(&to(ip, nflog, tc, "match")),
                "{rows:?}"
            );
        }
        ensure!(rows.values().all(|row| row.verdict == "match"), "{rows:?}");
        ensure!(run.explained_by_fragments() == n_explained);
        let sent = since(before.0, rig.counter("out4")?);
        ensure!(
            sent == count(9, pieces[0].bytes + 9 * LINK_HEADER),
            "{sent:?}"
        );
        let sent = since(before.1, rig.counter("out6")?);
        ensure!(
            sent == count(9, pieces[1].bytes + 9 * LINK_HEADER),
            "{sent:?}"
        );
    }
    Ok(())
}
