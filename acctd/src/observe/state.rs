//! The state of a running acctd, for `/metrics`, `/status`, `/healthz` and SIGUSR1. The engine and the writer
//! record here what they do, and another thread reads it. No NFLOG reader takes the lock: each publishes its
//! counters as atomics.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use acctd_common::Counters;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::config::Config;
use crate::config::crosscheck::Watched;
use crate::model::closed_interval::ClosedInterval;
use crate::model::counts::{Counts, FileTotals, SharedCounts};
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::explanation::Explained;
use crate::model::group::GroupConfig;
use crate::model::interval::{Period, UnixNanos};
use crate::model::verdict::{Verdict, VerdictSummary};
use crate::model::zone::Zone;

/// Rates are averages over this time.
const RATE_TIME: Duration = Duration::from_secs(10);
/// The least time between two samples.
const SAMPLE_PAUSE: Duration = Duration::from_millis(500);
/// The engine ticks once a second. After so long without a tick, it hangs.
const ENGINE_HANGS: Duration = Duration::from_secs(30);
/// An error of the disk is a problem if it lasts for so long.
const DISK_FAILS: Duration = Duration::from_secs(30);

/// Shared by the threads that record and those that read.
#[derive(Debug)]
pub(crate) struct RuntimeState {
    /// When accounting began.
    pub(crate) started: UnixNanos,
    started_at: Instant,
    pub(crate) zone: Zone,
    pub(crate) interval: Duration,
    /// How often open intervals are saved.
    pub(crate) checkpoint: Option<Duration>,
    pub(crate) watched: Vec<Watched>,
    /// Each group with its counters since the start.
    pub(crate) groups: Vec<(GroupConfig, Arc<SharedCounts>)>,
    /// From the end of an interval until the writer has it.
    pub(crate) close_seconds: Histogram,
    /// The time to sort, write and sync a file.
    pub(crate) write_seconds: Histogram,
    /// The time to read the kernel's map of an interval.
    pub(crate) drain_seconds: Histogram,
    snapshot: Mutex<Snapshot>,
    /// Of the last files, the oldest first.
    written: Mutex<VecDeque<Written>>,
}

/// How many files [`RuntimeState::written`] has.
const N_WRITTEN: usize = 288;

/// What a file has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) period: Period,
    pub(crate) source: Counters,
    pub(crate) dest: Counters,
    pub(crate) lost: u64,
    /// The worst of the cross-check.
    pub(crate) verdict: Option<Verdict>,
}

/// What was recorded last.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// The time of the engine's last tick.
    ticked_at: Instant,
    /// The open interval, from the time at which its file will begin.
    pub(crate) open: Period,
    /// In the order of the groups.
    pub(crate) bound: Vec<bool>,
    /// Whether the rules that logged to each group are gone; empty if that is not known.
    pub(crate) rules_gone: Vec<bool>,
    samples: VecDeque<Sample>,
    /// What the writer has written, and what waits.
    pub(crate) files: Files,
    /// The time of the last checkpoint.
    pub(crate) saved: Option<UnixNanos>,
    /// Why the last checkpoint failed, if it did.
    pub(crate) save_error: Option<String>,
    /// Without `--crosscheck`, inactive and empty.
    pub(crate) crosscheck: CrossCheckState,
}

#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    /// Packets and bytes of each group.
    counts: Vec<(u64, u64)>,
}

/// The writer's files, since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) n_written: u64,
    /// Rows of these files.
    pub(crate) rows: u64,
    pub(crate) last: Option<LastFile>,
    /// Closed intervals without a file.
    pub(crate) waiting_intervals: usize,
    /// Rows of these intervals, before groups are merged.
    pub(crate) waiting_rows: usize,
    /// Lines not yet in `intervals.jsonl`.
    pub(crate) waiting_lines: usize,
    /// The error of the last write, and since when writes fail.
    pub(crate) error: Option<(String, Instant)>,
}

#[derive(Clone, Debug)]
pub(crate) struct LastFile {
    /// Without its directory.
    pub(crate) name: String,
    pub(crate) period: Period,
    /// Without the header.
    pub(crate) rows: u64,
    /// The sum over all groups.
    pub(crate) counts: Counts,
    /// The time at which it was complete.
    pub(crate) written: UnixNanos,
}

/// The cross-check, since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrossCheckState {
    /// False if it has failed.
    pub(crate) is_active: bool,
    /// Of all files.
    pub(crate) total: VerdictSummary,
    /// Of the last file.
    pub(crate) last: Option<VerdictSummary>,
    /// Packets that the programs counted for no prefix, by reason.
    pub(crate) uncounted: BTreeMap<&'static str, u64>,
    /// How often and for how long each program ran, if the kernel measures it.
    pub(crate) programs: Vec<ProgramRun>,
    /// In the order of the command line.
    pub(crate) interfaces: Vec<InterfaceState>,
    /// What `--explain` found out, until an interval takes it.
    explained: Vec<Explained>,
}

/// Packets and bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rate {
    pub(crate) packets: f64,
    pub(crate) bytes: f64,
}

impl RuntimeState {
    /// All groups are bound, and nothing is written yet.
    pub(crate) fn new(
        config: &Config,
        counts: impl IntoIterator<Item = Arc<SharedCounts>>,
        started: UnixNanos,
    ) -> Self {
        // 1 ms to 16 s.
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let watched = config.crosscheck.as_ref().map(|config| &config.watched);
        let watched = watched.cloned().unwrap_or_default();
        let end = config
            .interval
            .period(config.interval.index_of(started))
            .end;
        Self {
            started,
            started_at: Instant::now(),
            zone: config.zone,
            interval: config.interval.length(),
            checkpoint: config.checkpoint,
            groups: config.groups.iter().copied().zip(counts).collect(),
            close_seconds: seconds(),
            write_seconds: seconds(),
            drain_seconds: seconds(),
            snapshot: Mutex::new(Snapshot {
                ticked_at: Instant::now(),
                open: Period {
                    start: started,
                    end,
                },
                bound: vec![true; config.groups.len()],
                rules_gone: Vec::new(),
                samples: VecDeque::new(),
                files: Files::default(),
                saved: None,
                save_error: None,
                crosscheck: CrossCheckState {
                    is_active: config.crosscheck.is_some(),
                    interfaces: watched
                        .iter()
                        .map(|it| InterfaceState::unattached(&it.interface))
                        .collect(),
                    ..CrossCheckState::default()
                },
            }),
            watched,
            written: Mutex::default(),
        }
    }

    /// The last files, the oldest first.
    pub(crate) fn written(&self) -> Vec<Written> {
        let written = self.written.lock();
        let written = written.unwrap_or_else(PoisonError::into_inner);
        written.iter().copied().collect()
    }

    /// A copy, so that nobody holds the lock for long.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// The time since the start, by the monotonic clock.
    pub(crate) fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// Records the engine's tick: the open interval, and whether each group is bound.
    pub(crate) fn record_tick(&self, open: Period, bound: impl IntoIterator<Item = bool>) {
        let counts = self.groups.iter().map(|(_, counts)| {
            let counts = counts.load();
            (counts.packets, counts.bytes)
        });
        let sample = Sample {
            at: Instant::now(),
            counts: counts.collect(),
        };
        let mut snapshot = self.lock();
        snapshot.ticked_at = sample.at;
        snapshot.open = open;
        snapshot.bound.clear();
        snapshot.bound.extend(bound);
        snapshot.add(sample);
    }

    /// Records whether the rules that logged to each group are gone.
    pub(crate) fn record_rules(&self, gone: Vec<bool>) {
        self.lock().rules_gone = gone;
    }

    /// Records the cross-check's programs and interfaces; `None` if it has failed.
    pub(crate) fn record_crosscheck(&self, looked: Option<(Vec<ProgramRun>, Vec<InterfaceState>)>) {
        let mut snapshot = self.lock();
        let crosscheck = &mut snapshot.crosscheck;
        crosscheck.is_active = looked.is_some();
        (crosscheck.programs, crosscheck.interfaces) =
            looked.unwrap_or_else(|| (Vec::new(), self.unattached()));
    }

    fn unattached(&self) -> Vec<InterfaceState> {
        let watched = self.watched.iter();
        watched
            .map(|it| InterfaceState::unattached(&it.interface))
            .collect()
    }

    /// Records the file of a closed interval, which took `took` to write.
    pub(crate) fn record_file(
        &self,
        closed: &ClosedInterval,
        name: &str,
        totals: &FileTotals,
        took: Duration,
    ) {
        self.write_seconds.observe(took.as_secs_f64());
        let judgement = closed.kernel.as_ref().and_then(|it| it.judgement.as_ref());
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() == N_WRITTEN {
            written.pop_front();
        }
        written.push_back(Written {
            period: closed.period,
            source: totals.source,
            dest: totals.dest,
            lost: closed.counts().lost,
            verdict: judgement.and_then(|it| it.summary.worst_verdict()),
        });
        drop(written);
        let mut snapshot = self.lock();
        snapshot.files.n_written += 1;
        snapshot.files.rows += totals.rows;
        snapshot.files.last = Some(LastFile {
            name: name.to_owned(),
            period: closed.period,
            rows: totals.rows,
            counts: closed.counts(),
            written: UnixNanos::now(),
        });
        let Some(kernel) = &closed.kernel else {
            return;
        };
        self.drain_seconds.observe(kernel.drained_in.as_secs_f64());
        let crosscheck = &mut snapshot.crosscheck;
        for (reason, counters) in kernel.uncounted() {
            *crosscheck.uncounted.entry(reason).or_default() += counters.packets;
        }
        if let Some(judgement) = &kernel.judgement {
            crosscheck.total.append(judgement.summary.clone());
            crosscheck.last = Some(judgement.summary.clone());
        }
    }

    /// Records what `--explain` found out.
    pub(crate) fn record_explained(&self, explained: Explained) {
        self.lock().crosscheck.explained.push(explained);
    }

    pub(crate) fn take_explained(&self) -> Vec<Explained> {
        std::mem::take(&mut self.lock().crosscheck.explained)
    }

    /// Records what waits for the disk, and since when the disk fails or does not answer.
    pub(crate) fn record_backlog(
        &self,
        intervals: usize,
        rows: usize,
        lines: usize,
        error: Option<(String, Instant)>,
    ) {
        let files = &mut self.lock().files;
        files.waiting_intervals = intervals;
        files.waiting_rows = rows;
        files.waiting_lines = lines;
        files.error = error;
    }

    /// Records a checkpoint of the open intervals as of this time, or its error.
    pub(crate) fn record_checkpoint(&self, saved: &io::Result<UnixNanos>) {
        let mut snapshot = self.lock();
        match saved {
            Ok(at) => {
                snapshot.saved = Some(*at);
                snapshot.save_error = None;
            }
            Err(error) => snapshot.save_error = Some(error.to_string()),
        }
    }

    /// A poisoned lock is used as well: no panic leaves the snapshot inconsistent.
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    fn add(&mut self, sample: Sample) {
        if let Some(last) = self.samples.back()
            && sample.at.duration_since(last.at) < SAMPLE_PAUSE
        {
            return;
        }
        // The oldest sample kept is the youngest that is old enough.
        let is_old_enough =
            |second: Option<&Sample>| second.is_some_and(|it| it.at + RATE_TIME <= sample.at);
        while is_old_enough(self.samples.get(1)) {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// A group's rate over the last ten seconds.
    pub(crate) fn rate(&self, group: usize) -> Rate {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Rate::default();
        };
        let seconds = last.at.duration_since(first.at).as_secs_f64();
        let (Some(before), Some(now)) = (first.counts.get(group), last.counts.get(group)) else {
            return Rate::default();
        };
        if seconds == 0.0 {
            return Rate::default();
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate is not exact, and fewer than 2^53 packets arrive in ten seconds"
        )]
        let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        Rate {
            packets: per_second(before.0, now.0),
            bytes: per_second(before.1, now.1),
        }
    }

    /// What keeps interfaces from being cross-checked, a line each. These do not make acctd unhealthy: accounting
    /// continues, and a restart would not help.
    pub(crate) fn crosscheck_problems(&self) -> Vec<String> {
        let interfaces = self.crosscheck.interfaces.iter();
        interfaces.filter_map(|one| one.problem.clone()).collect()
    }

    /// What keeps acctd from counting or writing, a line each.
    pub(crate) fn problems(&self, groups: &[(GroupConfig, Arc<SharedCounts>)]) -> Vec<String> {
        let mut problems = Vec::new();
        for ((config, _), _) in groups
            .iter()
            .zip(&self.bound)
            .filter(|(_, is_bound)| !**is_bound)
        {
            problems.push(format!(
                "group {} is not bound: what it logs is not counted",
                config.group
            ));
        }
        for ((config, _), _) in groups
            .iter()
            .zip(&self.rules_gone)
            .filter(|(_, is_gone)| **is_gone)
        {
            problems.push(format!(
                "no rule logs to group {} any more: what passes is not counted",
                config.group
            ));
        }
        if let Some((error, since)) = &self.files.error
            && since.elapsed() >= DISK_FAILS
        {
            problems.push(error.clone());
        }
        let since_tick = self.ticked_at.elapsed();
        if since_tick >= ENGINE_HANGS {
            problems.push(format!(
                "no interval was checked for {} s: acctd hangs, or gets no CPU time",
                since_tick.as_secs()
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let args = ["acctd", "-ip4-src-group=5"].map(Into::into);
        let flags = crate::cli::commands::Cli::parse_args(args).unwrap().flags;
        let config = Config::resolve(flags).unwrap();
        RuntimeState::new(&config, [Arc::default()], UnixNanos(0)).snapshot()
    }

    #[test]
    fn a_rate_is_an_average_over_ten_seconds() {
        let mut snapshot = snapshot();
        assert_eq!(snapshot.rate(0), Rate::default());
        let start = Instant::now();
        for second in 0..60 {
            // Ten per second, a hundred from the fiftieth second on.
            let packets = 10 * second + 90 * u64::saturating_sub(second, 50);
            snapshot.add(Sample {
                at: start + Duration::from_secs(second),
                counts: vec![(packets, 100 * packets)],
            });
        }
        assert_eq!(snapshot.samples.len(), 11);
        let expected = (10.0 * 10.0 + 9.0 * 90.0) / 10.0;
        let rate = snapshot.rate(0);
        assert_eq!((rate.packets, rate.bytes), (expected, 100.0 * expected));
        assert_eq!(snapshot.rate(1), Rate::default());
    }

    #[test]
    fn a_group_that_is_not_bound_and_an_engine_that_hangs_are_problems() {
        let groups = |snapshot: &Snapshot| {
            let args = ["acctd", "-ip4-src-group=5"].map(Into::into);
            let flags = crate::cli::commands::Cli::parse_args(args).unwrap().flags;
            let config = Config::resolve(flags).unwrap();
            snapshot.problems(&[(config.groups[0], Arc::default())])
        };
        let mut snapshot = snapshot();
        assert_eq!(groups(&snapshot), [""; 0]);
        snapshot.bound = vec![false];
        assert_eq!(
            groups(&snapshot),
            ["group 5 is not bound: what it logs is not counted"]
        );
        snapshot.bound = vec![true];
        snapshot.rules_gone = vec![true];
        assert_eq!(
            groups(&snapshot),
            ["no rule logs to group 5 any more: what passes is not counted"]
        );
        snapshot.rules_gone = vec![false];
        let long_ago = Instant::now().checked_sub(ENGINE_HANGS).unwrap();
        snapshot.ticked_at = long_ago;
        snapshot.files.error = Some(("cannot write".into(), Instant::now()));
        assert_eq!(groups(&snapshot).len(), 1);
        snapshot.files.error = Some(("cannot write".into(), long_ago));
        assert_eq!(groups(&snapshot)[0], "cannot write");
    }
}
