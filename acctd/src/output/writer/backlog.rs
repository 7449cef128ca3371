//! The intervals, checkpoints and lines that wait for the disk, and when they are tried.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{future, io};

use anyhow::{Context, bail};
use log::{info, warn};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::crosscheck::verdicts::Judge;
use crate::model::closed_interval::ClosedInterval;
use crate::model::columns::JOURNAL;
use crate::model::interval::UnixNanos;
use crate::observe::state::RuntimeState;
use crate::output::writer::attempt::{Attempt, DiskThread, Failure, Outcome};
use crate::output::writer::bounds::{
    LONGEST_PAUSE, LastWarned, is_unjudged, judge_once, merge_all, n_rows,
};
use crate::output::writer::destination::{Destination, SaveJob};
use crate::output::writer::unwritten::{Line, Unwritten};
use crate::process::priority::yield_to_readers;

pub(super) struct Backlog {
    pub(super) destination: Destination,
    pub(super) state: Arc<RuntimeState>,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) is_hurried: watch::Receiver<bool>,
    /// Gives the cross-check's verdicts; `None` while another thread has it.
    pub(super) judge: Option<Judge>,
    /// Intervals without a file, oldest first, except the one in the running attempt.
    pub(super) files: VecDeque<Unwritten>,
    /// The newest one of each open interval.
    pub(super) checkpoints: VecDeque<SaveJob>,
    /// Lines that are missing in intervals.jsonl, oldest first. Nobody bills from them, so they delay no file.
    pub(super) lines: VecDeque<Line>,
    pub(super) disk: DiskThread,
    /// The attempt that the disk has not answered.
    pub(super) running: Option<RunningAttempt>,
    /// The present error of the disk, or that it does not answer, and since when.
    pub(super) failure: Option<(String, Instant)>,
    pub(super) last_save_succeeded: Arc<AtomicBool>,
    pub(super) last_warned: LastWarned,
    /// How long to wait after the next failure.
    pub(super) pause: Duration,
    /// No attempt until then.
    pub(super) paused_until: Option<Instant>,
    /// When the last interval arrived.
    pub(super) stopped_at: Option<Instant>,
    pub(super) give_up_at: Option<Instant>,
}

/// An attempt that runs, and what it contains.
pub(super) struct RunningAttempt {
    outcome: oneshot::Receiver<Outcome>,
    since: Instant,
    since_by_clock: UnixNanos,
    /// The stem of the interval's file, if there is an interval.
    stem: Option<String>,
    n_rows: usize,
    n_packets: u64,
    n_lines: usize,
    /// A warning says that the disk does not answer.
    is_reported: bool,
}

impl Backlog {
    pub(super) async fn write_all(mut self) -> anyhow::Result<()> {
        loop {
            self.enqueue_all();
            self.keep_within_bounds().await?;
            if self.running.is_none() && self.paused_until.is_none() {
                if !self.has_work() {
                    match self.jobs.recv().await {
                        Some(job) => self.enqueue(job),
                        None => return Ok(()),
                    }
                    continue;
                }
                self.begin().await?;
            }
            let sleep = sleep_until(self.next_wake());
            tokio::select! {
                biased;
                outcome = outcome_of(&mut self.running) => {
                    let outcome = outcome.context("writing an interval has failed")?;
                    self.end_attempt(outcome)?;
                }
                job = self.jobs.recv(), if self.stopped_at.is_none() => self.receive(job),
                _ = self.is_hurried.changed(), if self.stopped_at.is_some() => {
                    self.paused_until = None;
                }
                () = sleep => self.wake()?,
            }
        }
    }

    /// `None`: there are no more jobs, because acctd stops.
    fn receive(&mut self, job: Option<Job>) {
        let Some(job) = job else {
            self.stopped_at = Some(Instant::now());
            // A stop must not wait for half a minute.
            if self.pause > FIRST_PAUSE {
                self.paused_until = None;
            }
            return;
        };
        let only_lines_wait = self.files.is_empty();
        self.enqueue(job);
        self.record_backlog();
        if only_lines_wait && !self.files.is_empty() {
            self.paused_until = None;
        }
    }

    fn has_work(&self) -> bool {
        !(self.files.is_empty() && self.lines.is_empty() && self.checkpoints.is_empty())
    }

    fn enqueue(&mut self, job: Job) {
        match job {
            Job::Write(closed) => {
                // If they were saved now, the next start would count them again.
                self.checkpoints
                    .retain(|job| !closed.checkpoints.contains(&job.file));
                self.files.push_back(Unwritten {
                    closed: *closed,
                    prepared: None,
                });
            }
            Job::Save(job) => {
                self.checkpoints.retain(|other| other.file != job.file);
                self.checkpoints.push_back(job);
            }
        }
    }

    fn enqueue_all(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.enqueue(job);
        }
    }

    /// If too many rows wait, merges intervals.
    async fn keep_within_bounds(&mut self) -> anyhow::Result<()> {
        let limit = self.destination.backlog;
        // A single interval that has just been closed is not a backlog.
        if n_rows(&self.files) <= limit || self.files.len() < 2 {
            return Ok(());
        }
        let zone = self.destination.zone;
        let mut last_warned = self.last_warned;
        self.last_warned = self
            .with_judge(move |files, judge| {
                merge_all(files, limit, judge, zone, &mut last_warned);
                last_warned
            })
            .await?;
        Ok(())
    }

    /// Runs `work` on the waiting intervals, on a thread other than the disk's.
    async fn with_judge<F, T>(&mut self, work: F) -> anyhow::Result<T>
    where
        F: FnOnce(&mut VecDeque<Unwritten>, &mut Judge) -> T + Send + 'static,
        T: Send + 'static,
    {
        let mut files = std::mem::take(&mut self.files);
        let mut judge = self.judge.take().unwrap_or_default();
        let worked = spawn_blocking(move || {
            yield_to_readers();
            let answer = work(&mut files, &mut judge);
            (files, judge, answer)
        });
        let (files, judge, answer) = worked.await.context("judging intervals has failed")?;
        self.files = files;
        self.judge = Some(judge);
        Ok(answer)
    }

    /// Begins an attempt: the oldest interval, all lines, and, if no other interval waits, the checkpoints.
    async fn begin(&mut self) -> anyhow::Result<()> {
        if self
            .files
            .front()
            .is_some_and(|file| is_unjudged(&file.closed))
        {
            self.with_judge(|files, judge| {
                if let Some(oldest) = files.front_mut() {
                    judge_once(&mut oldest.closed, judge);
                }
            })
            .await?;
        }
        let attempt = Attempt {
            oldest: self.files.pop_front(),
            lines: std::mem::take(&mut self.lines),
            checkpoints: if self.files.is_empty() {
                std::mem::take(&mut self.checkpoints)
            } else {
                VecDeque::new()
            },
        };
        let closed = attempt.oldest.as_ref().map(|oldest| &oldest.closed);
        self.running = Some(RunningAttempt {
            since: Instant::now(),
            since_by_clock: UnixNanos::now(),
            stem: closed.map(|closed| self.destination.zone.file_stem(closed.period)),
            n_rows: closed.map_or(0, ClosedInterval::n_entries),
            n_packets: closed.map_or(0, |closed| closed.counts().packets),
            n_lines: attempt.lines.len(),
            is_reported: false,
            outcome: self.disk.begin(attempt),
        });
        Ok(())
    }

    /// Keeps what the attempt has not written for the next try.
    fn end_attempt(&mut self, outcome: Outcome) -> anyhow::Result<()> {
        if let Some(running) = self.running.take()
            && running.is_reported
        {
            let directory = self.destination.directory.display();
            let seconds = running.since.elapsed().as_secs();
            info!("The disk of {directory} has answered after {seconds} s");
        }
        self.lines = outcome.lines;
        if let Some(oldest) = outcome.oldest {
            self.files.push_front(oldest);
        }
        if let Some(saved) = &outcome.saved {
            self.record_checkpoint(saved);
        }
        let Err(failure) = outcome.result else {
            self.pause = FIRST_PAUSE;
            self.failure = None;
            self.record_backlog();
            return Ok(());
        };
        self.enqueue_all();
        if matches!(failure, Failure::Lines(_)) && !self.files.is_empty() {
            return Ok(());
        }
        let message = self.failure_message(&failure);
        self.record_failure(message.clone(), Instant::now());
        if self.is_time_to_give_up() {
            bail!("{message}; gave up");
        }
        warn!(
            "{message}; counting continues, next try in {:?}",
            self.pause
        );
        self.paused_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// When [`Backlog::wake`] must run, if nothing arrives before.
    fn next_wake(&self) -> Option<Instant> {
        let Some(running) = &self.running else {
            return self.paused_until;
        };
        let report_at = (!running.is_reported).then(|| running.since + ANSWER_TIMEOUT);
        report_at.or_else(|| self.deadline(running))
    }

    /// When to give up an attempt that has no answer: never while acctd runs.
    fn deadline(&self, running: &RunningAttempt) -> Option<Instant> {
        let stopped_at = self.stopped_at?;
        let is_hurried = *self.is_hurried.borrow();
        Some(if is_hurried {
            running.since + RETRIES_AFTER_STOP
        } else {
            running.since.max(stopped_at) + ANSWER_AFTER_STOP
        })
    }

    fn wake(&mut self) -> anyhow::Result<()> {
        self.paused_until = None;
        let Some(running) = &self.running else {
            return Ok(());
        };
        let is_first = !running.is_reported;
        let since = running.since;
        let message = self.no_answer_message(running);
        let deadline = self.deadline(running);
        if deadline.is_some_and(|at| Instant::now() >= at) {
            bail!("{message}; gave up");
        }
        if is_first && self.stopped_at.is_none() {
            warn!("{message}; counting continues");
        } else if is_first {
            let seconds = ANSWER_AFTER_STOP.as_secs();
            warn!(
                "{message}; acctd waits {seconds} s for it before it stops, and less after a second signal"
            );
        }
        if let Some(running) = &mut self.running {
            running.is_reported = true;
        }
        self.record_failure(message, since);
        Ok(())
    }

    /// A checkpoint that failed is not tried again: the next one follows soon.
    fn record_checkpoint(&self, saved: &io::Result<UnixNanos>) {
        self.state.record_checkpoint(saved);
        let directory = self.destination.directory.display();
        let was_well = self
            .last_save_succeeded
            .swap(saved.is_ok(), Ordering::Relaxed);
        match saved {
            Ok(_) if was_well => {}
            Ok(_) => info!("Checkpoints are saved to {directory} again"),
            Err(error) if was_well => warn!(
                "cannot save a checkpoint to {directory}: {error}; if acctd is killed, it loses more than the time between two checkpoints; trying again with the next one"
            ),
            Err(_) => {}
        }
    }

    /// If the last attempt failed too, the failure has lasted since that one.
    fn record_failure(&mut self, message: String, since: Instant) {
        let since = self.failure.take().map_or(since, |(_, at)| at);
        self.failure = Some((message, since));
        self.record_backlog();
    }

    fn record_backlog(&self) {
        let running = self.running.as_ref();
        let n_files = self.files.len() + usize::from(running.is_some_and(|it| it.stem.is_some()));
        let n_rows = n_rows(&self.files) + running.map_or(0, |it| it.n_rows);
        let n_lines = self.lines.len() + running.map_or(0, |it| it.n_lines);
        self.state
            .record_backlog(n_files, n_rows, n_lines, self.failure.clone());
    }

    /// What failed, and what waits because of it.
    fn failure_message(&self, failure: &Failure) -> String {
        match failure {
            Failure::File(error) => {
                let stem = self.files.front().map(|oldest| oldest.closed.period);
                let stem = stem.map(|period| self.destination.zone.file_stem(period));
                let file = format!("{}.csv", stem.unwrap_or_default());
                self.without_file(&file, error, 0, 0)
            }
            Failure::Lines(error) => self.without_lines(error, self.lines.len()),
        }
    }

    /// The same if the disk does not answer.
    fn no_answer_message(&self, running: &RunningAttempt) -> String {
        let since = self.destination.zone.rfc3339(running.since_by_clock);
        let error = format!("the disk has not answered since {since}");
        match &running.stem {
            Some(stem) => {
                let file = format!("{stem}.csv");
                self.without_file(&file, &error, 1, running.n_packets)
            }
            None if running.n_lines > 0 && self.files.is_empty() => {
                self.without_lines(&error, running.n_lines)
            }
            None => self.without_file("a checkpoint", &error, 0, 0),
        }
    }

    /// `n_files` and `n_packets` are in the running attempt.
    fn without_file(
        &self,
        what: &str,
        error: &dyn Display,
        n_files: usize,
        n_packets: u64,
    ) -> String {
        let directory = self.destination.directory.display();
        let n_files = n_files + self.files.len();
        let counts = self.files.iter().map(|file| file.closed.counts());
        let packets = n_packets + counts.map(|counts| counts.packets).sum::<u64>();
        format!(
            "cannot write {what} to {directory}: {error}; {n_files} intervals ({packets} packets) are not written"
        )
    }

    fn without_lines(&self, error: &dyn Display, n_lines: usize) -> String {
        let directory = self.destination.directory.display();
        format!(
            "cannot write to {directory}/{JOURNAL}: {error}; the lines of {n_lines} intervals are missing, whose files are complete"
        )
    }

    fn is_time_to_give_up(&mut self) -> bool {
        if self.stopped_at.is_none() && !self.jobs.is_closed() {
            return false;
        }
        self.pause = FIRST_PAUSE;
        let now = Instant::now();
        *self.is_hurried.borrow() || now >= *self.give_up_at.get_or_insert(now + RETRIES_AFTER_STOP)
    }
}

async fn outcome_of(
    running: &mut Option<RunningAttempt>,
) -> Result<Outcome, oneshot::error::RecvError> {
    match running {
        Some(running) => (&mut running.outcome).await,
        None => future::pending().await,
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => future::pending().await,
    }
}

pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// After a stop, how long to retry before giving up.
const RETRIES_AFTER_STOP: Duration = Duration::from_secs(10);

/// After a stop, how long to wait for an attempt without an answer. The disk may only be slow; the unit's
/// `TimeoutStopSec` is 60 s.
const ANSWER_AFTER_STOP: Duration = Duration::from_secs(45);

/// If the disk has not answered for so long, acctd warns: it may have failed, or be a network file system without its
/// server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) enum Job {
    Write(Box<ClosedInterval>),
    Save(SaveJob),
}
