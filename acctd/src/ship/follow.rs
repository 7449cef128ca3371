//! Sends all that there is, once or as long as the process runs.

use std::hash::{BuildHasher as _, RandomState};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use log::{info, warn};

use super::reconcile::reconcile;
use super::sink::Sink;
use super::watch::Watch;
use crate::cli::ship::ShipArgs;

/// How often the directory is looked at, beside each time that it changes.
const SCAN_INTERVAL: Duration = Duration::from_secs(10);
/// After a failure. Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Between two comparisons of all files because days cannot be added up.
const SOONEST_AGAIN: Duration = Duration::from_hours(1);
/// New files of all hosts are spread over this part of their interval, 10 s of 5 minutes.
const SPREAD: u32 = 30;
const LONGEST_SPREAD: Duration = Duration::from_secs(30);

/// Sends what there is.
pub(super) fn once(sink: &mut impl Sink) -> Result<ExitCode> {
    while sink.round()? > 0 {}
    if sink.roll_up().is_err() {
        // Rows may be missing that were sent once.
        reconcile(sink)?;
        while sink.round()? > 0 {}
        sink.roll_up()?;
    }
    let state = sink.state();
    info!("{state}");
    Ok(if state.waiting.get() + state.refused.get() > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Until the process is stopped, which it may be at any time.
pub(super) fn follow(sink: &mut impl Sink, args: &ShipArgs) -> ! {
    let mut watch = Watch::new(&args.directory);
    let mut pause = Pause::default();
    let mut reconciled: Option<Instant> = None;
    loop {
        match step(sink, &mut reconciled, args.reconcile) {
            Ok(true) => {}
            Ok(false) => {
                if watch.wait(SCAN_INTERVAL) {
                    let spread = (sink.interval() / SPREAD).min(LONGEST_SPREAD);
                    // Intervals of all hosts end at the same time.
                    thread::sleep(spread.mul_f64(random()));
                }
            }
            Err(error) => {
                let text = format!("{error:#}");
                if pause.is_first(&text) {
                    warn!("{text}; trying again; nothing is lost");
                }
                sink.state().failures.inc();
                sink.state().set_error(Some(text));
                // Another server may answer then, and another state of it.
                sink.disconnect();
                thread::sleep(pause.next());
                continue;
            }
        }
        if pause.is_over() {
            info!("Sending again");
        }
        sink.state().set_error(None);
    }
}

/// Returns whether there may be more to do now. `reconciled` is when the last time was, and `every` how often it is to be;
/// zero is never.
fn step(sink: &mut impl Sink, reconciled: &mut Option<Instant>, every: Duration) -> Result<bool> {
    if sink.round()? > 0 {
        return Ok(true);
    }
    // Before days are added up, which fails as long as rows are missing that were sent once.
    if !every.is_zero() && reconciled.is_none_or(|last| last.elapsed() >= every) {
        reconcile(sink)?;
        *reconciled = Some(Instant::now());
        return Ok(true);
    }
    if let Err(error) = sink.roll_up() {
        // Rows may be missing. But if it is something else, all files are not to be read at each attempt.
        *reconciled = reconciled.filter(|last| last.elapsed() < SOONEST_AGAIN);
        return Err(error);
    }
    Ok(false)
}

/// How long to wait after failures.
#[derive(Debug, Default)]
struct Pause {
    n_failures: u32,
    last: String,
}

impl Pause {
    fn is_first(&mut self, text: &str) -> bool {
        let is_first = self.last != text;
        text.clone_into(&mut self.last);
        is_first
    }

    /// Between half and all of it, so that hosts do not come back together.
    fn next(&mut self) -> Duration {
        let whole = FIRST_PAUSE
            .saturating_mul(1 << self.n_failures.min(6))
            .min(LONGEST_PAUSE);
        self.n_failures += 1;
        whole.mul_f64(0.5 + random() / 2.0)
    }

    fn is_over(&mut self) -> bool {
        let was_failing = self.n_failures > 0;
        *self = Self::default();
        was_failing
    }
}

/// From 0 to 1.
#[expect(clippy::cast_precision_loss, reason = "it need not be precise")]
fn random() -> f64 {
    let random = RandomState::new().hash_one(());
    random as f64 / u64::MAX as f64
}
