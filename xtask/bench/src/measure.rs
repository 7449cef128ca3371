//! One turn of one receiver.

use std::{
    fs::File,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use tempfile::TempDir;
use testkit::{
    interrupt::Interrupt,
    process::Process,
    usage::{self, CpuTime},
};

use crate::{
    bpf_stats::{BpfStats, runs_of},
    receiver::{Place, Receiver},
    setup::Setup,
    stage::{FLUSHED, Stage, last_words},
};

/// How long it may go on working on what it has received.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to write and end.
const STOP_LIMIT: Duration = Duration::from_mins(3);
/// How long where it may hang at the end, its file written.
const HANG_LIMIT: Duration = Duration::from_secs(8);

/// What a turn has shown.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// CPU time of the receiver for a packet that it counted, in nanoseconds.
    pub(crate) cpu_nanos: f64,
    /// Its part in user mode, from the scheduler's samples.
    pub(crate) user_nanos: f64,
    pub(crate) system_nanos: f64,
    /// Packets that the rule logged and the receiver did not count, of 100.
    pub(crate) loss_percent: f64,
    /// The same in packets.
    pub(crate) lost: i64,
    /// The most resident memory, to the end.
    pub(crate) peak_mib: f64,
    /// Packets in a netlink datagram.
    pub(crate) packets_a_datagram: Option<f64>,
    /// The sender's time for a packet, in nanoseconds: at full speed its own work and all that the
    /// kernel does in the packet's path.
    pub(crate) path_nanos: f64,
    /// A run of a TC program, in nanoseconds, the measuring included.
    pub(crate) tc_nanos: Option<f64>,
}

/// Lets a receiver receive.
pub(crate) fn measure(
    stage: &Stage,
    setup: &Setup,
    receiver: &dyn Receiver,
    interrupt: &Interrupt,
) -> Result<Sample> {
    in_a_place(stage, setup, receiver, |place| {
        turn(place, receiver, interrupt)
    })
}

/// Does something with a receiver in a directory of its own; an error has its last words.
pub(crate) fn in_a_place<T>(
    stage: &Stage,
    setup: &Setup,
    receiver: &dyn Receiver,
    work: impl FnOnce(&Place<'_>) -> Result<T>,
) -> Result<T> {
    let directory = TempDir::with_prefix("acctd-bench-")?;
    let place = Place {
        stage,
        setup,
        interval: 24 * 60 * 60,
        directory: directory.path(),
    };
    work(&place).with_context(|| {
        let words = last_words(directory.path());
        format!(
            "{}, {setup}{}{words}",
            receiver.name(),
            if words.is_empty() { "" } else { ": it says: " }
        )
    })
}

/// Loads the rules and starts a receiver; known prefixes are known to it from then on.
pub(crate) fn begin(
    place: &Place<'_>,
    receiver: &dyn Receiver,
    interrupt: &Interrupt,
) -> Result<Option<Process>> {
    let Place { stage, setup, .. } = place;
    stage.rules(setup, &receiver.objects(setup), &receiver.statement(setup))?;
    let mut process = start(place, receiver)?;
    if let Some(process) = &mut process {
        stage.wait_until_bound(&receiver.groups(), process, interrupt)?;
    }
    // Some prepare their memory after they have bound the group.
    wait_for_rest(process.as_ref(), interrupt)?;
    if let Some(warm_up) = setup.warm_up(&stage.link)? {
        stage.send(&warm_up, interrupt)?;
        settle(process.as_ref(), interrupt)?;
    }
    Ok(process)
}

fn turn(place: &Place<'_>, receiver: &dyn Receiver, interrupt: &Interrupt) -> Result<Sample> {
    let Place { stage, setup, .. } = place;
    let process = begin(place, receiver, interrupt)?;
    let seen_before = stage.seen()?;
    let cpu_before = cpu_time(process.as_ref())?;
    let stats = receiver
        .has_bpf_programs()
        .then(BpfStats::enable)
        .transpose()?;
    let runs_before = runs_of(process.as_ref());

    let sent = stage.send(&setup.traffic(&stage.link)?, interrupt)?;
    settle(process.as_ref(), interrupt)?;

    let cpu = cpu_time(process.as_ref())?.since(cpu_before);
    let tc_nanos = stats.and_then(|_on| runs_of(process.as_ref()).mean_since(runs_before));
    let seen = stage.seen()?;
    if seen - seen_before != sent.packets {
        bail!(
            "{} packets were sent, {} arrived",
            sent.packets,
            seen - seen_before
        );
    }
    let peak = match process {
        Some(process) => stop(process, receiver, interrupt)?,
        None => 0,
    };
    let counted = receiver
        .counted(place)
        .with_context(|| format!("what it has counted, in {}", place.directory.display()))?;
    let (n_seen, n_counted) = (as_figure(seen), as_figure(counted.packets));
    let n_sent = as_figure(sent.packets);
    let cpu_nanos = as_figure(cpu.nanos) / (n_sent * (n_counted / n_seen)).max(1.0);
    let lost = seen.cast_signed() - counted.packets.cast_signed();
    Ok(Sample {
        cpu_nanos,
        user_nanos: cpu_nanos * cpu.user_share(),
        system_nanos: cpu_nanos * (1.0 - cpu.user_share()),
        loss_percent: (n_seen - n_counted) * 100.0 / n_seen,
        lost,
        peak_mib: mib(peak),
        packets_a_datagram: counted.datagrams.map(|n| n_counted / as_figure(n.max(1))),
        path_nanos: sent.seconds * 1e9 / n_sent,
        tc_nanos,
    })
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn as_figure(number: u64) -> f64 {
    number as f64
}

pub(crate) fn mib(bytes: u64) -> f64 {
    as_figure(bytes) / f64::from(1 << 20)
}

fn start(place: &Place<'_>, receiver: &dyn Receiver) -> Result<Option<Process>> {
    let Some(mut command) = receiver.command(place)? else {
        return Ok(None);
    };
    command
        .stdout(File::create(place.stdout())?)
        .stderr(File::create(place.directory.join("stderr"))?);
    Process::spawn(&mut command).map(Some)
}

/// Waits until the kernel has handed over everything and the receiver rests.
pub(crate) fn settle(process: Option<&Process>, interrupt: &Interrupt) -> Result<()> {
    thread::sleep(FLUSHED);
    wait_for_rest(process, interrupt)
}

fn wait_for_rest(process: Option<&Process>, interrupt: &Interrupt) -> Result<()> {
    const LOOK: Duration = Duration::from_millis(200);
    let end = Instant::now() + CATCH_UP_LIMIT;
    while process.is_some() && Instant::now() < end {
        interrupt.check()?;
        let before = cpu_time(process)?;
        thread::sleep(LOOK);
        let busy = Duration::from_nanos(cpu_time(process)?.since(before).nanos);
        if busy < LOOK / 4 {
            break;
        }
    }
    interrupt.check()
}

fn cpu_time(process: Option<&Process>) -> Result<CpuTime> {
    process.map_or(Ok(CpuTime::default()), |process| {
        usage::cpu_time(process.pid())
    })
}

/// Ends a receiver and returns its peak memory.
pub(crate) fn stop(
    mut process: Process,
    receiver: &dyn Receiver,
    interrupt: &Interrupt,
) -> Result<u64> {
    let mut peak = usage::peak_memory(process.pid())?;
    process.signal(receiver.stop_signal())?;
    let limit = if receiver.may_hang() {
        HANG_LIMIT
    } else {
        STOP_LIMIT
    };
    let end = Instant::now() + limit;
    while process.try_wait()?.is_none() {
        interrupt.check()?;
        peak = peak.max(usage::peak_memory(process.pid())?);
        if Instant::now() > end {
            if receiver.may_hang() {
                // Dropping it ends it; its file is written.
                return Ok(peak);
            }
            bail!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(peak)
}
