//! `bench headroom`: the smallest share of a core with which a receiver loses nothing.
//!
//! A receiver in a cgroup with a CPU quota is what it is on a router that has other things to do.
//! The socket's buffer hides how short of time it is: 16 to 32 MiB hold 100,000 packets and more, a
//! second's worth, and some ask for hundreds of MiB. So a share is enough if nothing is lost *and* the
//! backlog is gone soon after the last packet; a run so long that each buffer overflows would tell
//! little more. Whether it is gone the quota itself tells: who has work left is throttled, who has
//! none is not.
//!
//! For the same reason the quota's period is short, 10 ms, and below 10 % of a core as long as makes
//! the quota 1 ms, the least that the kernel takes. Meanwhile the receiver cannot read, and what comes
//! in the longest period, 33,000 packets, is less than the buffer holds. The kernel notices at its
//! tick that a quota is used up, and takes the excess off the next periods: with little, somewhat more
//! than the quota may be used.
//!
//! The prefixes are known before the quota holds, and it is lifted before the receiver writes its
//! file: it is the steady state that is measured.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use serde::Serialize;
use testkit::{
    cgroup::{CpuGroup, Tenths},
    interrupt::Interrupt,
    print, usage,
};

use crate::{
    measure::{begin, in_a_place, settle, stop},
    output::{Output, Table},
    receiver::{Place, Receiver},
    receivers::{Choice, Name},
    setup::{Family, Prefixes, Setup, Thresholds},
    stage::Stage,
};

/// The shares that are tried, in tenths of a percent of a core.
const LADDER: [Tenths; 17] = [
    3, 5, 7, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200, 300, 500, 750, 1_000,
];

/// The backlog is gone soon if nothing is left of it after so long, for longer than any period.
const SOON: Duration = Duration::from_millis(300);
const FOR: Duration = Duration::from_millis(400);

const EXPLANATION: &str = "\
The smallest share of a core, of those tried, with which nothing was lost and the backlog was gone soon \
after the last packet. In brackets: what of it was used.";

/// Measure the smallest CPU share at which each receiver loses nothing
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    choice: Choice,

    /// IP version
    #[arg(long, value_name = "4|6", default_value = "4")]
    family: Family,

    /// Number of prefixes
    #[arg(long, value_name = "N", default_value = "65536")]
    prefixes: Prefixes,

    #[command(flatten)]
    thresholds: Thresholds,

    /// Packets a second
    #[arg(long, value_name = "PPS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,

    /// Seconds of a turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    #[command(flatten)]
    output: Output,
}

/// What a receiver can do with.
#[derive(Debug, Serialize)]
struct Headroom {
    receiver: String,
    setup: Setup,
    /// Percent of a core; nothing if all of one is not enough.
    enough_percent: Option<f64>,
    turns: Vec<Turn>,
}

#[derive(Debug, Serialize)]
struct Turn {
    percent: f64,
    used_percent: f64,
    lost: i64,
    drained: bool,
}

impl Turn {
    fn holds(&self) -> bool {
        self.lost == 0 && self.drained
    }
}

impl Args {
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<()> {
        let mut receivers = self.choice.make(Name::value_variants(), interrupt)?;
        receivers.retain(|receiver| !receiver.groups().is_empty());
        let cgroup = CpuGroup::make()?;
        let stage = Stage::set()?;
        let mut results = Vec::new();
        for receiver in &receivers {
            for &threshold in &self.thresholds.threshold {
                let setup = Setup {
                    packets: u64::from(self.rate) * u64::from(self.seconds),
                    ..Setup::new(self.family, self.prefixes, threshold, self.rate)
                };
                let receiver = receiver.as_ref();
                results.push(headroom(&stage, &setup, receiver, &cgroup, interrupt)?);
            }
        }

        let mut columns = vec!["receiver".to_owned()];
        columns.extend(
            self.thresholds
                .threshold
                .iter()
                .map(|t| format!("threshold {t}")),
        );
        let row = |results: &[Headroom]| {
            let names = results.iter().map(|result| result.receiver.clone()).take(1);
            names.chain(results.iter().map(cell)).collect()
        };
        let table = Table {
            title: format!(
                "{}, {} prefixes, {} packets/s for {} s",
                self.family, self.prefixes, self.rate, self.seconds
            ),
            columns,
            rows: results
                .chunks(self.thresholds.threshold.len())
                .map(row)
                .collect(),
        };
        self.output.publish(&results, &[table], EXPLANATION)
    }
}

fn cell(result: &Headroom) -> String {
    let Some(enough) = result.enough_percent else {
        return "more than 100 %".to_owned();
    };
    let turns = result.turns.iter().rev();
    let used = turns
        .filter(|turn| turn.holds())
        .find(|turn| turn.percent <= enough);
    format!(
        "{enough} % ({:.1} %)",
        used.map_or(0.0, |turn| turn.used_percent)
    )
}

/// Finds the smallest share. Of up to three turns with each, two decide, so that what else the
/// machine does once does not.
fn headroom(
    stage: &Stage,
    setup: &Setup,
    receiver: &dyn Receiver,
    cgroup: &CpuGroup,
    interrupt: &Interrupt,
) -> Result<Headroom> {
    let mut turns = Vec::new();
    let enough = smallest(&LADDER, |share| {
        let mut votes = [0, 0];
        while votes.iter().all(|&n| n < 2) {
            let turn = in_a_place(stage, setup, receiver, |place| {
                turn(place, receiver, cgroup, share, interrupt)
            })?;
            print::line(format!(
                "bench: {setup}: {}: {} % of a core: {:.1} % used, {} lost{}",
                receiver.name(),
                turn.percent,
                turn.used_percent,
                turn.lost,
                if turn.drained {
                    ""
                } else {
                    ", and a backlog at the end"
                }
            ))?;
            let [holds, fails] = &mut votes;
            *(if turn.holds() { holds } else { fails }) += 1;
            turns.push(turn);
        }
        Ok(votes == [2, 0] || votes == [2, 1])
    })?;
    Ok(Headroom {
        receiver: receiver.name().to_owned(),
        setup: *setup,
        enough_percent: enough.map(percent),
        turns,
    })
}

/// One turn with this share of a core.
fn turn(
    place: &Place<'_>,
    receiver: &dyn Receiver,
    cgroup: &CpuGroup,
    share: Tenths,
    interrupt: &Interrupt,
) -> Result<Turn> {
    let process = begin(place, receiver, interrupt)?.context("it has no process")?;
    let pid = process.pid();
    cgroup.allow(share)?;
    cgroup.take_in(pid)?;
    let cpu_before = usage::cpu_time(pid)?;
    let sent = place
        .stage
        .send(&place.setup.traffic(&place.stage.link)?, interrupt)?;
    let cpu = usage::cpu_time(pid)?.since(cpu_before);
    thread::sleep(SOON);
    let throttled = cgroup.throttled()?;
    thread::sleep(FOR);
    let drained = cgroup.throttled()? == throttled;
    cgroup.lift()?;
    settle(Some(&process), interrupt)?;
    stop(process, receiver, interrupt)?;
    let counted = receiver.counted(place)?.packets;
    Ok(Turn {
        percent: percent(share),
        used_percent: Duration::from_nanos(cpu.nanos).as_secs_f64() * 100.0 / sent.seconds,
        lost: place.stage.seen()?.cast_signed() - counted.cast_signed(),
        drained,
    })
}

fn percent(share: Tenths) -> f64 {
    f64::from(share) / 10.0
}

/// The smallest of a rising ladder that holds, if those above it do too; found by halving.
fn smallest<T: Copy>(ladder: &[T], mut holds: impl FnMut(T) -> Result<bool>) -> Result<Option<T>> {
    let (mut low, mut high) = (0, ladder.len());
    while low < high {
        let middle = low.midpoint(high);
        let &step = ladder.get(middle).context("the ladder has no such step")?;
        if holds(step)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(ladder.get(low).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_finds_each_step_in_few_tries() {
        for (i, &enough) in LADDER.iter().enumerate() {
            let mut tries = 0;
            let found = smallest(&LADDER, |share| {
                tries += 1;
                Ok(share >= enough)
            });
            assert_eq!(found.unwrap(), Some(enough), "{i}");
            assert!(tries <= 5, "{i}: {tries}");
        }
        assert_eq!(smallest(&LADDER, |_| Ok(false)).unwrap(), None);
    }

    #[test]
    fn who_loses_or_lags_does_not_hold() {
        let turn = |lost, drained| Turn {
            percent: 1.0,
            used_percent: 1.0,
            lost,
            drained,
        };
        assert!(turn(0, true).holds());
        assert!(!turn(1, true).holds() && !turn(0, false).holds());
    }
}
