//! What is counted is what the rules saw.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Stdio;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::process::Process;
use testkit::traffic::{Sizes, TrafficArgs};
use testkit::usage;

use crate::kernel::scaled;
use crate::rig::{CsvFile, LOG_AND_DROP, NONE, Rig, ensure_contiguous, totals};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Alone(&Needs::Namespace),
        "a_million_packets_at_full_speed_are_all_counted",
        a_million_packets_at_full_speed_are_all_counted,
    ),
    (
        Needs::Namespace,
        "four_groups_over_thirty_intervals_add_up_and_rows_stand_in_their_second",
        four_groups_over_thirty_intervals_add_up_and_rows_stand_in_their_second,
    ),
    (
        Needs::Namespace,
        "two_groups_put_each_packet_into_the_same_file",
        two_groups_put_each_packet_into_the_same_file,
    ),
    (
        Needs::Namespace,
        "a_process_that_was_stopped_sorts_what_waited_into_its_seconds",
        a_process_that_was_stopped_sorts_what_waited,
    ),
    (
        Needs::Namespace,
        "a_direction_spread_over_groups_is_one_count",
        a_direction_spread_over_groups_is_one_count,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "a_million_prefixes_stay_within_a_hundred_mebibytes",
        a_million_prefixes_stay_within_a_hundred_mebibytes,
    ),
    (
        Needs::Namespace,
        "an_ip4_mapped_address_is_no_ip4_address",
        an_ip4_mapped_address_is_no_ip4_address,
    ),
];

fn a_million_packets_at_full_speed_are_all_counted() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=5s", "-ip4-src-group=5", "-ip6-src-group=7"])?;
    for (source, dest) in [
        ("10.0.0.0/8", "10.255.0.1/32"),
        ("2001:db8::/32", "2001:db8:ffff::1/128"),
    ] {
        let sent = rig.send(&TrafficArgs {
            sources: 65_536,
            count: scaled(1_000_000),
            rate: Rig::fastest_rate(),
            size: Sizes {
                min: 60,
                max: 1_400,
            },
            ..rig.traffic(source, dest)?
        })?;
        ensure!(sent.packets == scaled(1_000_000));
    }
    acctd.finish()?;
    let files = rig.files()?;
    let (ip4, ip6) = (rig.counter("v4")?, rig.counter("v6")?);
    ensure!(ip4.packets == scaled(1_000_000) && ip6.packets == ip4.packets);
    ensure!(
        totals(&files, true) == (ip4, NONE),
        "{:?} != {ip4:?}",
        totals(&files, true)
    );
    ensure!(
        totals(&files, false) == (ip6, NONE),
        "{:?} != {ip6:?}",
        totals(&files, false)
    );
    let addresses = |ip4: bool| -> BTreeSet<_> {
        let rows = files.iter().flat_map(|file| &file.rows);
        rows.map(|row| row.ip)
            .filter(|ip| ip.is_ipv4() == ip4)
            .collect()
    };
    ensure!(addresses(true).len() == 65_536 && addresses(false).len() == 65_536);
    ensure!(rig.summed("lost")? == 0 && rig.summed("undecodable")? == 0);
    Ok(())
}

fn four_groups_over_thirty_intervals_add_up_and_rows_stand_in_their_second() -> Result<()> {
    let rig = Rig::new()?;
    // Each packet is logged twice: its source and its destination are accounted.
    rig.rules(
        "table inet rig {
            counter v4s {}
            counter v4d {}
            counter v6s {}
            counter v6d {}
            chain prerouting {
                type filter hook prerouting priority raw
                meta nfproto ipv4 counter name v4s log group 5 snaplen 20 queue-threshold 5000
                meta nfproto ipv4 counter name v4d log group 4 snaplen 20 queue-threshold 50
                meta nfproto ipv6 counter name v6s log group 7 snaplen 40 queue-threshold 1000
                meta nfproto ipv6 counter name v6d log group 6 snaplen 40
                drop
            }
        }",
    )?;
    let acctd = rig.acctd(&[
        "-interval=1s",
        "-utc",
        "-ip4-src-group=5",
        "-ip4-dst-group=4",
        "-ip6-src-group=7",
        "-ip6-dst-group=6",
    ])?;
    let traffic = |ip4: bool, rate: u32, seconds: u64| -> Result<TrafficArgs> {
        let (source, dest) = if ip4 {
            ("10.1.0.0/16", "10.2.0.0/16")
        } else {
            ("2001:db8::/32", "2001:db9::/32")
        };
        Ok(TrafficArgs {
            clock_sources: true,
            clock_dests: true,
            rate,
            count: u64::from(rate) * seconds,
            size: Sizes { min: 60, max: 900 },
            ..rig.traffic(source, dest)?
        })
    };
    // Uneven: long and short, fast and slow, with pauses, 30 s in all; one family, then the other,
    // then both, where all four groups have traffic at once.
    let mut straddled = 0;
    for (ip4, ip6) in [(true, false), (false, true), (true, true)] {
        for (rate, seconds) in [(200, 2), (20_000, 3), (1_000, 2), (60_000, 1), (7, 2)] {
            let beside = ip6
                .then(|| rig.send_in_background(&traffic(false, rate, seconds)?))
                .transpose()?;
            if ip4 {
                straddled += rig.send(&traffic(true, rate, seconds)?)?.straddled;
            }
            if let Some(beside) = beside {
                straddled += beside.finish()?.straddled;
            }
        }
    }
    acctd.finish()?;
    let files = rig.files()?;
    ensure!(files.len() >= 28, "{} files", files.len());
    ensure_contiguous(&files)?;
    let counted = (totals(&files, true), totals(&files, false));
    let truth = (
        (rig.counter("v4s")?, rig.counter("v4d")?),
        (rig.counter("v6s")?, rig.counter("v6d")?),
    );
    ensure!(counted == truth, "{counted:?} != {truth:?}");
    ensure!(rig.summed("lost")? == 0 && rig.summed("late")? == 0);
    ensure_rows_stand_in_their_second(&files, straddled)
}

/// The low 16 bits of an address (of its /64) are the second in which it was sent. `straddled` packets
/// were sent while the clock passed a full second.
fn ensure_rows_stand_in_their_second(files: &[CsvFile], straddled: u64) -> Result<()> {
    let mut misplaced = (0, 0);
    for row in files.iter().flat_map(|file| &file.rows) {
        let sent_in = match row.ip {
            IpAddr::V4(ip4) => ip4.to_bits() & 0xffff,
            IpAddr::V6(ip6) => u32::from(ip6.segments()[3]),
        };
        let stands_in = unix_seconds(&row.time)? & 0xffff;
        if i64::from(sent_in) != stands_in {
            misplaced.0 += row.source.packets;
            misplaced.1 += row.dest.packets;
        }
    }
    ensure!(
        misplaced.0 <= straddled && misplaced.1 <= straddled,
        "{misplaced:?} packets stand in another second than theirs, {straddled} may"
    );
    Ok(())
}

/// Without a silence around the boundaries, and in batches that end at different times: the kernel
/// stamps a packet once, so both groups must put it into the same file.
fn two_groups_put_each_packet_into_the_same_file() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            counter v4 {}
            chain prerouting {
                type filter hook prerouting priority raw
                iifname lo accept
                meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 5000
                meta nfproto ipv4 log group 4 snaplen 20 queue-threshold 7
                drop
            }
        }",
    )?;
    // The kernel stamps packets when they arrive if any socket wants stamps, as ping's does, and
    // else when they are logged, each time anew.
    let mut ping = rig.router.command("ping");
    ping.args(["-q", "-i", "3600", "127.0.0.1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let _ping = Process::spawn(&mut ping)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5", "-ip4-dst-group=4"])?;
    rig.send(&TrafficArgs {
        sources: 100,
        dests: 100,
        rate: scaled(40_000),
        count: scaled(320_000),
        size: Sizes { min: 60, max: 900 },
        ..rig.traffic("10.1.0.0/16", "10.2.0.0/16")?
    })?;
    acctd.finish()?;
    let files = rig.files()?;
    let v4 = rig.counter("v4")?;
    ensure!(v4.packets == scaled(320_000) && totals(&files, true) == (v4, v4));
    ensure!(rig.summed("late")? == 0);
    let with_traffic = files.iter().filter(|file| !file.rows.is_empty()).count();
    ensure!(with_traffic >= 8, "{with_traffic} files");
    for file in &files {
        let (source, dest) = totals(std::slice::from_ref(file), true);
        ensure!(source == dest, "{}: {source:?} != {dest:?}", file.start);
    }
    Ok(())
}

/// The engine wakes to several intervals that are over at once, and the packets of all of them
/// still wait in the socket.
fn a_process_that_was_stopped_sorts_what_waited() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-utc", "-ip4-src-group=5"])?;
    let traffic = rig.send_in_background(&TrafficArgs {
        clock_sources: true,
        rate: 2_000,
        count: 14_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    let wait_for = |packets| {
        wait_until("so many packets are logged", || {
            Ok(rig.counter("v4")?.packets >= packets)
        })
    };
    wait_for(2_000)?;
    acctd.signal(Signal::STOP)?;
    wait_for(10_000)?;
    acctd.signal(Signal::CONT)?;
    let sent = traffic.finish()?;
    acctd.finish()?;
    let files = rig.files()?;
    ensure_contiguous(&files)?;
    ensure!(files.len() >= 7, "{} files", files.len());
    ensure!(totals(&files, true) == (rig.counter("v4")?, NONE));
    ensure!(rig.summed("lost")? == 0, "lost {}", rig.summed("lost")?);
    ensure!(rig.summed("late")? == 0, "late {}", rig.summed("late")?);
    ensure_rows_stand_in_their_second(&files, sent.straddled)
}

fn unix_seconds(row_time: &str) -> Result<i64> {
    let time = chrono::NaiveDateTime::parse_from_str(row_time, "%Y-%m-%d %H:%M:%S")?;
    Ok(time.and_utc().timestamp())
}

fn a_direction_spread_over_groups_is_one_count() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            counter total {}
            chain prerouting {
                type filter hook prerouting priority raw
                counter name total
                ip saddr & 0.0.0.3 == 0.0.0.0 log group 10 snaplen 20 queue-threshold 500
                ip saddr & 0.0.0.3 == 0.0.0.1 log group 11 snaplen 20 queue-threshold 500
                ip saddr & 0.0.0.3 >= 0.0.0.2 log group 20 snaplen 20 queue-threshold 500
                drop
            }
        }",
    )?;
    let acctd = rig.acctd(&["-ip4-src-group=10-11,20", "-ip4-prefix-length=24"])?;
    rig.send(&TrafficArgs {
        sources: 1_024,
        count: 102_400,
        rate: Rig::fastest_rate(),
        ..rig.traffic("10.0.0.0/16", "10.255.0.1/32")?
    })?;
    acctd.finish()?;
    let files = rig.files()?;
    ensure!(totals(&files, true) == (rig.counter("total")?, NONE));
    // Each /24 has sources in all three groups and one row.
    let rows = &files[0].rows;
    ensure!(rows.len() == 4, "{rows:?}");
    ensure!(rows.iter().all(|row| row.source.packets == 25_600));
    Ok(())
}

fn a_million_prefixes_stay_within_a_hundred_mebibytes() -> Result<()> {
    const LIMIT: u64 = 100 * 1024 * 1024;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=10s", "-ip4-src-group=5"])?;
    // Over a boundary, so that a full ledger is written while the next one fills.
    rig.send(&TrafficArgs {
        sources: scaled(1_000_000),
        count: scaled(2_500_000),
        rate: if Rig::fastest_rate() == 0 {
            scaled(250_000)
        } else {
            100_000
        },
        ..rig.traffic("10.0.0.0/8", "10.255.0.1/32")?
    })?;
    let peak = usage::peak_memory(acctd.pid())?;
    acctd.finish()?;
    let files = rig.files()?;
    let (counted, v4) = (totals(&files, true), rig.counter("v4")?);
    ensure!(
        counted == (v4, NONE),
        "{counted:?} != {v4:?}, lost {}",
        rig.summed("lost")?
    );
    ensure!(
        files
            .iter()
            .any(|file| file.rows.len() == scaled(1_000_000))
    );
    ensure!(peak <= LIMIT, "peak {peak} bytes");
    Ok(())
}

/// The kernel drops packets from such addresses, and routes those to them.
fn an_ip4_mapped_address_is_no_ip4_address() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&[
        "-interval=36500d",
        "-utc",
        "-ip4-dst-group=5",
        "-ip6-dst-group=7",
        "-ip6-prefix-length=128",
    ])?;
    for (source, dest, count) in [
        ("198.51.100.1/32", "192.0.2.7/32", 30),
        ("2001:db8::1/128", "::ffff:192.0.2.7/128", 70),
    ] {
        rig.send(&TrafficArgs {
            count,
            ..rig.traffic(source, dest)?
        })?;
    }
    acctd.finish()?;
    let rows: Vec<_> = rig
        .files()?
        .into_iter()
        .flat_map(|file| file.rows)
        .collect();
    let found: Vec<_> = rows.iter().map(|row| (row.ip, row.dest)).collect();
    let expected = [
        ("192.0.2.7".parse::<IpAddr>()?, rig.counter("v4")?),
        ("::ffff:192.0.2.7".parse()?, rig.counter("v6")?),
    ];
    ensure!(found == expected, "{found:?} != {expected:?}");
    ensure!(expected[0].1.packets == 30 && expected[1].1.packets == 70);
    Ok(())
}
