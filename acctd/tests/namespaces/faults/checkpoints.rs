//! No more is lost at a kill than what came after the last checkpoints, and saving them loses nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use testkit::traffic::TrafficArgs;

use super::killed::{checkpoint_name, ensure_files_and_lines_agree, names};
use crate::kernel::{is_emulated, scaled};
use crate::rig::{LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "killed_twelve_times_nothing_is_counted_twice_and_little_is_missing",
        || killed_again_and_again(12),
    ),
    (
        Needs::Soak,
        "soak_killed_two_hundred_times_nothing_is_counted_twice_and_little_is_missing",
        || killed_again_and_again(200),
    ),
    (
        Needs::Alone(&Needs::Root),
        "checkpoints_of_a_million_prefixes_lose_no_packet_at_full_speed",
        checkpoints_of_a_million_prefixes,
    ),
];

const CHECKPOINT: Duration = Duration::from_millis(250);

/// The packets have different source addresses, in order. If an address is in no row, it shows at which kill its packet
/// was lost. A kill may lose only packets that arrived after the third-last checkpoint: when that one existed, the next
/// two were not made yet, and one of them may be of another interval.
fn killed_again_and_again(n_kills: usize) -> Result<()> {
    const RATE: u32 = 20_000;
    const FIRST: u32 = 0x0a00_0000;
    /// Of the rule: the kernel holds fewer back.
    const THRESHOLD: u64 = 50;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let checkpoint = format!("-checkpoint={}ms", CHECKPOINT.as_millis());
    let args = ["-interval=1s", "-utc", &checkpoint, "-ip4-src-group=5"];
    let mut acctd = rig.acctd(&args)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 1 << 24,
        count: 1 << 24,
        rate: scaled(RATE),
        ..rig.traffic("10.0.0.0/8", "172.16.0.1/32")?
    })?;
    // The packets that were logged when acctd was killed, and those of them that must have been saved.
    let mut kills = Vec::new();
    let mut random = proptest::test_runner::TestRng::deterministic_rng(
        proptest::test_runner::RngAlgorithm::ChaCha,
    );
    for n_checkpoints in (0..5).cycle().take(n_kills) {
        use proptest::prelude::Rng as _;
        let must_be_saved = wait_for_checkpoints(&rig, n_checkpoints)?;
        // At any moment between two of them.
        let moment = u64::from(random.next_u32()) % u64::try_from(CHECKPOINT.as_millis())?;
        thread::sleep(Duration::from_millis(moment));
        acctd.signal(Signal::KILL)?;
        kills.push((rig.counter("v4")?.packets, must_be_saved));
        acctd.wait()?;
        acctd = rig.acctd(&args)?;
    }
    drop(traffic);
    acctd.finish()?;
    let sent = rig.counter("v4")?.packets;

    let files = rig.files()?;
    let mut counted = BTreeSet::new();
    for row in files.iter().flat_map(|file| &file.rows) {
        let IpAddr::V4(ip) = row.ip else {
            anyhow::bail!("{row:?}");
        };
        ensure!(
            row.source.packets == 1 && row.source.bytes == 100 && row.dest == NONE,
            "{row:?}"
        );
        let n = u64::from(ip.to_bits() - FIRST);
        ensure!(n < sent, "{ip} was never sent");
        ensure!(counted.insert(n), "{ip} is in two files");
    }
    ensure_files_and_lines_agree(&rig)?;
    // What is missing before a kill: from the first packet of the hole that it is in.
    let mut missing = Vec::new();
    let mut before = 0;
    for (killed, must_be_saved) in kills {
        let last = counted.range(before..killed).next_back();
        let first_missing = last.map_or(before, |last| last + 1);
        ensure!(
            first_missing + THRESHOLD > must_be_saved,
            "{must_be_saved} packets were logged before the last checkpoint but two, and from {first_missing} on they are missing up to {killed}"
        );
        missing.push(killed - first_missing);
        before = killed;
    }
    missing.sort_unstable();
    let as_time = |packets: u64| Duration::from_secs(packets) / scaled(RATE);
    let (median, most) = (as_time(missing[n_kills / 2]), as_time(missing[n_kills - 1]));
    eprintln!(
        "killed {n_kills} times in {} files: {} of {sent} packets counted; missing before a kill: {median:?} in the median, {most:?} at most, with a checkpoint every {CHECKPOINT:?}",
        files.len(),
        counted.len(),
    );
    // Copying and saving take their time, on a machine that runs other things too. How much an emulated processor takes
    // depends on what else its machine does.
    ensure!(is_emulated() || median <= 4 * CHECKPOINT, "{missing:?}");
    Ok(())
}

/// Waits until so many checkpoints have come, one after the other, and returns how many packets had been logged before
/// the last but two.
fn wait_for_checkpoints(rig: &Rig, count: usize) -> Result<u64> {
    let mut seen = newest_checkpoint(rig)?;
    let mut logged = 0;
    let mut logged_before = Vec::new();
    wait_until("checkpoints come", || {
        if logged_before.len() == count {
            return Ok(true);
        }
        // First, so that it was not there yet when these had been logged.
        let packets = rig.counter("v4")?.packets;
        let newest = newest_checkpoint(rig)?;
        if newest.is_some() && newest != seen {
            logged_before.push(logged);
            seen = newest;
        }
        logged = packets;
        Ok(logged_before.len() == count)
    })?;
    let last_but_two = logged_before.iter().rev().nth(2);
    Ok(last_but_two.copied().unwrap_or(0))
}

/// By its name and file: each takes the place of the one before, or is of the next interval.
fn newest_checkpoint(rig: &Rig) -> Result<Option<(String, u64)>> {
    let mut names = names(&rig.log_directory())?;
    names.retain(|name| name.ends_with(".checkpoint"));
    let Some(name) = names.pop() else {
        return Ok(None);
    };
    // It may be gone by now, with its interval.
    let found = fs::metadata(rig.log_directory().join(&name)).ok();
    Ok(found.map(|found| (name, found.ino())))
}

/// A reader copies its ledger for each of them, and packets wait meanwhile.
fn checkpoints_of_a_million_prefixes() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=36500d", "-checkpoint=500ms", "-ip4-src-group=5"])?;
    rig.send(&TrafficArgs {
        sources: scaled(1_000_000),
        count: scaled(2_000_000),
        scattered: true,
        ..rig.traffic("10.0.0.0/8", "172.16.0.1/32")?
    })?;
    wait_until(
        "there is a checkpoint",
        || Ok(checkpoint_name(&rig).is_ok()),
    )?;
    let status = fs::read_to_string(format!("/proc/{}/status", acctd.pid()))?;
    let peak = status.lines().find(|line| line.starts_with("VmHWM"));
    let sizes = fs::metadata(rig.log_directory().join(checkpoint_name(&rig)?))?.len();
    eprintln!(
        "a checkpoint of {sizes} bytes; {}",
        peak.unwrap_or_default()
    );
    acctd.finish()?;
    ensure!(rig.summed("lost")? == 0 && rig.summed("overruns")? == 0);
    let ip4 = rig.counter("v4")?;
    ensure!(totals(&rig.files()?, true) == (ip4, NONE) && ip4.packets == scaled(2_000_000));
    Ok(())
}
