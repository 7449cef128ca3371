//! Frames of which nobody has thought: valid ones with bytes of the IP header changed at random.
//! The kernel lets pass what it lets pass, and the TC program must have counted just that.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use testkit::craft::{Ethernet, Extension, Fragment, Ipv4, Ipv6, Payload};
use testkit::mac::MacAddr;

use super::run::{Run, since};
use crate::rig::Rig;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_fuzz_of_ip4_headers",
        fuzz_of_ip4_headers,
    ),
    (
        Needs::Root,
        "crosscheck_fuzz_of_ip6_headers",
        fuzz_of_ip6_headers,
    ),
];

/// Frames in a run. They go to the sender as its arguments, in pieces that fit there.
const FRAMES: usize = 20_000;
const FRAMES_AT_ONCE: usize = 1_500;

/// The packets that NFLOG cannot measure, counted beside the others, because nft can.
const RULES: &str = "
    table inet rig {
        counter v4 {}
        counter v6 {}
        counter without_length {}
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv6 counter name v6 log group 7 snaplen 40 queue-threshold 50
            meta nfproto ipv6 ip6 length 0 ip6 nexthdr != 59 counter name without_length
            drop
        }
    }";

/// Few prefixes: thousands of new ones in a moment may be more than the kernel has memory at hand
/// for, and what is at stake here are the packets.
const ARGS: &[&str] = &[
    "-ip4-src-group=5",
    "-ip6-src-group=7",
    "-ip4-prefix-length=8",
    "-ip6-prefix-length=16",
    "-crosscheck=lan0",
];

/// `SplitMix64`: the same frames on each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }
}

/// Bytes that mean something somewhere in a header.
const TELLING: &[u8] = &[
    0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 40, 43, 44, 48, 49, 51, 59, 60, 0x31, 0x40, 0x45, 0x4f,
    0x60, 0x7f, 0x80, 0xc0, 0xc2, 0xfe, 0xff,
];

/// Changes one to four of the bytes in `range`.
fn mutate(random: &mut Random, bytes: &mut [u8], range: std::ops::Range<usize>) {
    for _ in 0..=random.below(4) {
        let at = range.start + random.below(range.len());
        bytes[at] = match random.below(3) {
            0 => bytes[at] ^ 1 << random.below(8),
            1 => random.pick(TELLING),
            _ => random.pick(&[0, 0x55, 0xff]) ^ random.next().to_le_bytes()[0],
        };
    }
}

/// Cuts the frame or adds padding to it, now and then.
fn resize(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(8) {
        0 => bytes.truncate(bytes.len() - random.below(bytes.len() - 14)),
        1 => bytes.resize(bytes.len() + random.below(20), 0),
        _ => {}
    }
}

const ETHERNET: usize = 14;

fn ip4_frames(to: MacAddr) -> Vec<Vec<u8>> {
    let mut random = Random(4);
    let options: &[&[u8]] = &[
        &[],
        &[1, 1, 1, 0],
        &[0x94, 4, 0, 0],
        &[7, 7, 4, 0, 0, 0, 0, 0],
        &[0x44, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[1; 40],
    ];
    let frames = (0..FRAMES).map(|n| {
        let [.., high, low] = n.to_be_bytes();
        let mut packet = Ipv4::udp([10, 1, high, low], [10, 255, 0, 1], &[0x5a; 48]);
        packet.options = random.pick(options).to_vec();
        if random.below(4) == 0 {
            packet.fragment = Some(Fragment {
                id: 7,
                offset: random.pick(&[0, 8, 1_024]),
                more: random.below(2) == 0,
            });
        }
        let header = 20 + packet.options.len();
        let mut bytes = Vec::from(Ethernet::to(to).frame(&packet.packet()));
        mutate(&mut random, &mut bytes, ETHERNET..ETHERNET + header);
        if random.below(2) == 0 {
            correct_checksum(&mut bytes[ETHERNET..]);
        }
        resize(&mut random, &mut bytes);
        bytes
    });
    frames.collect()
}

/// Makes the checksum right over as much as the header says that it is long.
fn correct_checksum(packet: &mut [u8]) {
    let length = usize::from(packet[0] & 0xf) * 4;
    packet[10..12].fill(0);
    let mut sum: u32 = packet[..length]
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [high, low] = (!sum).to_be_bytes()[2..] else {
        return;
    };
    packet[10] = high;
    packet[11] = low;
}

fn ip6_frames(to: MacAddr) -> Vec<Vec<u8>> {
    let mut random = Random(6);
    let router_alert = Extension::HopByHop(vec![5, 2, 0, 0]);
    let unknown = Extension::HopByHop(vec![0x1e, 3, 1, 2, 3, 0, 1, 0]);
    let long = Extension::HopByHop(
        [
            &[5, 2, 0, 0, 1, 3, 0, 0, 0, 0x3e, 4][..],
            &[9; 4],
            &[1, 5, 0, 0, 0, 0, 0],
        ]
        .concat(),
    );
    let many = Extension::HopByHop([[0x1e, 0, 0].as_slice(); 7].concat());
    let padded = Extension::HopByHop(vec![1, 4, 0, 0, 0, 0]);
    let jumbo = Extension::HopByHop(vec![0xc2, 4, 0, 1, 0, 0]);
    let aligned = Extension::HopByHop(vec![1, 0, 0x31, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    let routing = Extension::Routing {
        kind: 2,
        segments_left: 0,
        data: vec![0; 20],
    };
    let dest = Extension::DestinationOptions(vec![0x1e, 2, 0, 0]);
    let fragment = Extension::Fragment(Fragment {
        id: 9,
        offset: 8,
        more: true,
    });
    let chains: &[&[Extension]] = &[
        &[],
        std::slice::from_ref(&router_alert),
        &[unknown],
        &[long],
        &[many],
        &[padded],
        &[jumbo],
        &[aligned],
        &[router_alert.clone(), dest, routing, fragment.clone()],
        &[fragment],
    ];
    let frames = (0..FRAMES).map(|n| {
        let source: [u16; 8] = [0x2001, 0xdb8, 0, u16::try_from(n).unwrap_or(0), 0, 0, 0, 1];
        let mut packet = Ipv6::udp(source, [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 1], &[0x5a; 24]);
        packet.extensions = random.pick(chains).to_vec();
        match random.below(8) {
            0 => packet.payload_length = Some(0),
            1 => {
                packet.payload = Payload::Raw {
                    protocol: 59,
                    bytes: Vec::new(),
                }
            }
            _ => {}
        }
        let mut bytes = Vec::from(Ethernet::to(to).frame(&packet.packet()));
        // Where a header follows, most of what can go wrong is in it.
        let end = bytes.len().min(ETHERNET + 40 + 24);
        if bytes.len() > ETHERNET + 40 && !packet.extensions.is_empty() && random.below(3) > 0 {
            mutate(&mut random, &mut bytes, ETHERNET + 40..end);
        } else {
            mutate(&mut random, &mut bytes, ETHERNET..ETHERNET + 40);
        }
        resize(&mut random, &mut bytes);
        bytes
    });
    frames.collect()
}

fn fuzz_of_ip4_headers() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    let frames = ip4_frames(rig.veth.near_mac);
    all_are_explained(&rig, true, &frames)
}

fn fuzz_of_ip6_headers() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    let frames = ip6_frames(rig.veth.near_mac);
    all_are_explained(&rig, false, &frames)
}

fn all_are_explained(rig: &Rig, ip4: bool, frames: &[Vec<u8>]) -> Result<()> {
    let Err(error) = is_explained(rig, ip4, frames) else {
        return Ok(());
    };
    // Which one is it? Frames do not depend on each other, so half of them is wrong, too.
    let mut frames = frames;
    while frames.len() > 1 {
        let (first, second) = frames.split_at(frames.len() / 2);
        frames = if is_explained(rig, ip4, first).is_err() {
            first
        } else {
            second
        };
    }
    let shown: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
    let alone = is_explained(rig, ip4, frames);
    Err(error.context(format!("for one, by itself {alone:?}: {shown:?}")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}

fn is_explained(rig: &Rig, ip4: bool, frames: &[Vec<u8>]) -> Result<()> {
    let name = if ip4 { "v4" } else { "v6" };
    let before = (rig.counter(name)?, rig.counter("without_length")?);
    let run = Run::of(rig, ARGS, || {
        for some in frames.chunks(FRAMES_AT_ONCE) {
            let sent = rig.send_frames(some)?;
            ensure!(sent == some.len() as u64);
        }
        Ok(())
    })?;
    let mut passed = since(before.0, rig.counter(name)?);
    let without_length = since(before.1, rig.counter("without_length")?);
    passed.bytes -= without_length.bytes;
    let (tc, nflog) = (
        run.total(ip4, |row| row.tc_source),
        run.total(ip4, |row| row.source),
    );
    ensure!(nflog == passed, "NFLOG {nflog:?} != nft {passed:?}");
    ensure!(
        tc == passed,
        "TC {tc:?} != nft {passed:?}, {:?}",
        run.uncounted()
    );
    ensure!(
        run.interval.uncounted("without_length").packets == without_length.packets,
        "{:?} != {without_length:?}",
        run.uncounted()
    );
    let wrong = run.interval.rows.iter().find(|row| row.verdict != "match");
    ensure!(wrong.is_none(), "{wrong:?}");
    let others: u64 = run
        .uncounted()
        .iter()
        .filter(|(reason, _)| *reason != "without_length")
        .map(|(_, count)| count.packets)
        .sum();
    ensure!(
        others + passed.packets == frames.len() as u64,
        "{} frames, {passed:?} passed, the others: {:?}",
        frames.len(),
        run.uncounted()
    );
    Ok(())
}
