//! What a running acctd shows of itself: to `/metrics` and `/status`, to SIGUSR1. The engine and the
//! writer note here what they do, and whoever asks reads it, on a thread of its own. No reader ever takes
//! the lock: its counters are its own atomics.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::config::Config;
use crate::config::crosscheck::Watched;
use crate::model::closed_interval::ClosedInterval;
use crate::model::counts::{Counts, FileTotals, SharedCounts};
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::group::GroupConfig;
use crate::model::interval::{Period, UnixNanos};
use crate::model::verdict::VerdictSummary;
use crate::model::zone::Zone;

/// Rates are of this time.
const RATE_OVER: Duration = Duration::from_secs(10);
/// Between two samples, at the least.
const SAMPLE_PAUSE: Duration = Duration::from_millis(500);
/// An engine that has not looked at the clock for so long hangs: it does so once a second.
const ENGINE_HANGS: Duration = Duration::from_secs(30);
/// A disk that has refused for so long is no passing trouble.
const DISK_FAILS: Duration = Duration::from_secs(30);

/// Shared by those who note and those who ask.
#[derive(Debug)]
pub struct RuntimeState {
    /// When accounting began.
    pub started: UnixNanos,
    started_at: Instant,
    /// The zone of times in it.
    pub zone: Zone,
    /// The length of a period.
    pub interval: Duration,
    /// How often what is open is saved.
    pub checkpoint: Option<Duration>,
    /// The interfaces that are cross-checked.
    pub watched: Vec<Watched>,
    /// Each group, with its reader's counters since the start.
    pub groups: Vec<(GroupConfig, Arc<SharedCounts>)>,
    /// From when a period is found to be over until it is with the writer.
    pub close_seconds: Histogram,
    /// To sort, write and sync a file.
    pub write_seconds: Histogram,
    /// To read the kernel's map of an interval.
    pub drain_seconds: Histogram,
    snapshot: Mutex<Snapshot>,
}

/// What was noted last.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When the engine last looked around.
    seen_at: Instant,
    /// The period that is open by the clock, from where its file will begin.
    pub open: Period,
    /// Whether each group is bound, in their order.
    pub bound: Vec<bool>,
    /// Whether the rules that logged to each group are gone, in their order; empty where nobody knows.
    pub rules_gone: Vec<bool>,
    samples: VecDeque<Sample>,
    /// What the writer has done and has still to do.
    pub files: Files,
    /// When what is open was last saved.
    pub saved: Option<UnixNanos>,
    /// Why it was not, the last time.
    pub save_error: Option<String>,
    /// The cross-check's part.
    pub crosscheck: CrossCheckState,
}

#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    /// Of each group.
    counts: Vec<(u64, u64)>,
}

/// The files of intervals.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// How many were written.
    pub n_written: u64,
    /// Their rows.
    pub rows: u64,
    /// The last one.
    pub last: Option<LastFile>,
    /// Intervals that have no file yet.
    pub waiting_intervals: usize,
    /// Their rows, before groups are put together.
    pub waiting_rows: usize,
    /// Lines that `intervals.jsonl` lacks.
    pub waiting_lines: usize,
    /// What the disk refuses, and since when.
    pub error: Option<(String, Instant)>,
}

/// A file that was written.
#[derive(Clone, Debug)]
pub struct LastFile {
    /// Its name.
    pub name: String,
    /// What it covers.
    pub period: Period,
    /// Its rows.
    pub rows: u64,
    /// The counters of its groups together.
    pub counts: Counts,
    /// When it got its name.
    pub written: UnixNanos,
}

/// The cross-check, since the start.
#[derive(Clone, Debug, Default)]
pub struct CrossCheckState {
    /// It has not failed.
    pub is_active: bool,
    /// All files together: verdicts, and what the kernel counted for each side.
    pub total: VerdictSummary,
    /// Those of the last file.
    pub last: Option<VerdictSummary>,
    /// Packets that the kernel counted for no prefix, by the reason.
    pub uncounted: BTreeMap<&'static str, u64>,
    /// How often and for how long each program ran, where the kernel measures it.
    pub programs: Vec<ProgramRun>,
    /// Each interface, in the order of the command line.
    pub interfaces: Vec<InterfaceState>,
}

/// Packets and bytes a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Packets a second.
    pub packets: f64,
    /// Bytes a second.
    pub bytes: f64,
}

impl RuntimeState {
    /// Begins with all groups bound and nothing written.
    #[must_use]
    pub fn new(
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
                seen_at: Instant::now(),
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
        }
    }

    /// A copy of what was noted.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// How long acctd has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started_at.elapsed()
    }

    /// The engine has looked around.
    pub fn record_tick(&self, open: Period, bound: impl IntoIterator<Item = bool>) {
        let counts = self.groups.iter().map(|(_, counts)| {
            let counts = counts.load();
            (counts.packets, counts.bytes)
        });
        let sample = Sample {
            at: Instant::now(),
            counts: counts.collect(),
        };
        let mut snapshot = self.lock();
        snapshot.seen_at = sample.at;
        snapshot.open = open;
        snapshot.bound.clear();
        snapshot.bound.extend(bound);
        snapshot.add(sample);
    }

    /// Whether the rules that logged to each group are gone.
    pub fn record_rules(&self, gone: Vec<bool>) {
        self.lock().rules_gone = gone;
    }

    /// How often and for how long the cross-check's programs ran, and on which interfaces they are; `None` if
    /// it has failed.
    pub fn record_crosscheck(&self, looked: Option<(Vec<ProgramRun>, Vec<InterfaceState>)>) {
        let mut snapshot = self.lock();
        let crosscheck = &mut snapshot.crosscheck;
        crosscheck.is_active = looked.is_some();
        (crosscheck.programs, crosscheck.interfaces) =
            looked.unwrap_or_else(|| (Vec::new(), self.unattached()));
    }

    /// No interface has a program.
    fn unattached(&self) -> Vec<InterfaceState> {
        let watched = self.watched.iter();
        watched
            .map(|it| InterfaceState::unattached(&it.interface))
            .collect()
    }

    /// An interval has its file.
    pub fn record_file(
        &self,
        closed: &ClosedInterval,
        name: &str,
        totals: &FileTotals,
        took: Duration,
    ) {
        self.write_seconds.observe(took.as_secs_f64());
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

    /// What waits for the disk, and what it refuses, or that it does not answer, and since when.
    pub fn record_backlog(
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

    /// What is open was saved, as it was at this time, or was not.
    pub fn record_checkpoint(&self, saved: &io::Result<UnixNanos>) {
        let mut snapshot = self.lock();
        match saved {
            Ok(at) => {
                snapshot.saved = Some(*at);
                snapshot.save_error = None;
            }
            Err(error) => snapshot.save_error = Some(error.to_string()),
        }
    }

    /// A panic of who holds it leaves no half of anything.
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
        // The oldest that is kept is the first that is old enough.
        let is_spare =
            |second: Option<&Sample>| second.is_some_and(|it| it.at + RATE_OVER <= sample.at);
        while is_spare(self.samples.get(1)) {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// What a group has counted a second, over the last ten.
    #[must_use]
    pub fn rate(&self, group: usize) -> Rate {
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
            reason = "a rate is no exact number, and 2^53 packets do not come in ten seconds"
        )]
        let a_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        Rate {
            packets: a_second(before.0, now.0),
            bytes: a_second(before.1, now.1),
        }
    }

    /// What keeps interfaces from being cross-checked, each in a line. Accounting goes on, and to start acctd
    /// again would cure nothing: that is not what makes acctd unhealthy.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let interfaces = self.crosscheck.interfaces.iter();
        interfaces.filter_map(|one| one.problem.clone()).collect()
    }

    /// What keeps acctd from its work, each in a line; none if all is well.
    #[must_use]
    pub fn problems(&self, groups: &[(GroupConfig, Arc<SharedCounts>)]) -> Vec<String> {
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
        let unseen = self.seen_at.elapsed();
        if unseen >= ENGINE_HANGS {
            problems.push(format!(
                "no interval was looked at for {} s: acctd hangs, or gets no CPU time",
                unseen.as_secs()
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
    fn a_rate_is_of_the_last_ten_seconds() {
        let mut snapshot = snapshot();
        assert_eq!(snapshot.rate(0), Rate::default());
        let start = Instant::now();
        for second in 0..60 {
            // Ten a second, and from the fiftieth second on a hundred.
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
        snapshot.seen_at = long_ago;
        snapshot.files.error = Some(("cannot write".into(), Instant::now()));
        assert_eq!(groups(&snapshot).len(), 1);
        snapshot.files.error = Some(("cannot write".into(), long_ago));
        assert_eq!(groups(&snapshot)[0], "cannot write");
    }
}
