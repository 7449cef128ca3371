//! What waits for the disk, in order, and what is done with it.

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
use crate::model::interval::UnixNanos;
use crate::observe::state::RuntimeState;
use crate::output::journal;
use crate::output::writer::attempt::{Attempt, DiskThread, Failure, Outcome};
use crate::output::writer::bounds::{
    LONGEST_PAUSE, Said, is_unjudged, judge_once, merge_all, n_rows,
};
use crate::output::writer::destination::{Destination, SaveJob};
use crate::output::writer::unwritten::{Line, Unwritten};
use crate::process::priority::yield_to_readers;

/// What is on its way to the disk.
pub(super) struct Backlog {
    pub(super) destination: Destination,
    pub(super) state: Arc<RuntimeState>,
    pub(super) jobs: mpsc::UnboundedReceiver<Job>,
    pub(super) impatience: watch::Receiver<bool>,
    /// Gives the cross-check's verdicts; `None` while a thread has it.
    pub(super) judge: Option<Judge>,
    /// Intervals without a file, oldest first. The one that an attempt is writing is not among them.
    pub(super) files: VecDeque<Unwritten>,
    /// Of open intervals, the newest of each.
    pub(super) checkpoints: VecDeque<SaveJob>,
    /// Lines that intervals.jsonl lacks, oldest first. It is not what people bill from, so it
    /// holds up no file.
    pub(super) lines: VecDeque<Line>,
    pub(super) disk: DiskThread,
    /// The attempt that the disk has not answered yet.
    pub(super) under_way: Option<UnderWay>,
    /// What the disk refuses, or that it does not answer, and since when.
    pub(super) trouble: Option<(String, Instant)>,
    /// The last checkpoint was saved.
    pub(super) last_save_succeeded: Arc<AtomicBool>,
    /// When the log last said that intervals are merged.
    pub(super) said: Said,
    /// Until the next try.
    pub(super) pause: Duration,
    /// No attempt until then.
    pub(super) resting_until: Option<Instant>,
    /// When the last interval had come.
    pub(super) stopped_at: Option<Instant>,
    pub(super) give_up_at: Option<Instant>,
}

/// An attempt, and what it has in hand.
pub(super) struct UnderWay {
    outcome: oneshot::Receiver<Outcome>,
    since: Instant,
    since_by_clock: UnixNanos,
    /// Of the interval, if there is one.
    stem: Option<String>,
    n_rows: usize,
    n_packets: u64,
    n_lines: usize,
    /// The log says that it has no answer.
    is_said: bool,
}

impl Backlog {
    pub(super) async fn write_all(mut self) -> anyhow::Result<()> {
        loop {
            self.take_in_all();
            self.keep_within_bounds().await?;
            if self.under_way.is_none() && self.resting_until.is_none() {
                if !self.has_work() {
                    match self.jobs.recv().await {
                        Some(job) => self.take_in(job),
                        None => return Ok(()),
                    }
                    continue;
                }
                self.begin().await?;
            }
            let sleep = sleep_until(self.wakes_at());
            tokio::select! {
                biased;
                outcome = outcome_of(&mut self.under_way) => {
                    let outcome = outcome.context("writing an interval has failed")?;
                    self.settle(outcome)?;
                }
                job = self.jobs.recv(), if self.stopped_at.is_none() => self.hear(job),
                _ = self.impatience.changed(), if self.stopped_at.is_some() => {
                    self.resting_until = None;
                }
                () = sleep => self.wake()?,
            }
        }
    }

    /// A job, or the end of them.
    pub(super) fn hear(&mut self, job: Option<Job>) {
        let Some(job) = job else {
            self.stopped_at = Some(Instant::now());
            // A stop should not wait for half a minute.
            if self.pause > FIRST_PAUSE {
                self.resting_until = None;
            }
            return;
        };
        let only_lines_wait = self.files.is_empty();
        self.take_in(job);
        self.record_backlog();
        if only_lines_wait && !self.files.is_empty() {
            self.resting_until = None;
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !(self.files.is_empty() && self.lines.is_empty() && self.checkpoints.is_empty())
    }

    pub(super) fn take_in(&mut self, job: Job) {
        match job {
            Job::Write(closed) => {
                // What is saved of it now would be counted again at the next start.
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

    pub(super) fn take_in_all(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.take_in(job);
        }
    }

    /// Puts intervals together while too many rows wait.
    pub(super) async fn keep_within_bounds(&mut self) -> anyhow::Result<()> {
        let limit = self.destination.backlog;
        // One that has just been closed is no backlog.
        if n_rows(&self.files) <= limit || self.files.len() < 2 {
            return Ok(());
        }
        let zone = self.destination.zone;
        let mut said = self.said;
        self.said = self
            .judging(move |files, judge| {
                merge_all(files, limit, judge, zone, &mut said);
                said
            })
            .await?;
        Ok(())
    }

    /// Lets a thread work on the intervals that wait, and on nothing else: it is not the disk's.
    pub(super) async fn judging<F, T>(&mut self, work: F) -> anyhow::Result<T>
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

    /// Begins with the oldest interval, if there is one, and all lines; checkpoints if no other interval
    /// waits.
    pub(super) async fn begin(&mut self) -> anyhow::Result<()> {
        if self
            .files
            .front()
            .is_some_and(|file| is_unjudged(&file.closed))
        {
            self.judging(|files, judge| {
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
        self.under_way = Some(UnderWay {
            since: Instant::now(),
            since_by_clock: UnixNanos::now(),
            stem: closed.map(|closed| self.destination.zone.file_stem(closed.period)),
            n_rows: closed.map_or(0, ClosedInterval::n_entries),
            n_packets: closed.map_or(0, |closed| closed.counts().packets),
            n_lines: attempt.lines.len(),
            is_said: false,
            outcome: self.disk.begin(attempt),
        });
        Ok(())
    }

    /// What has been written is gone; what has not waits, and is tried again.
    pub(super) fn settle(&mut self, outcome: Outcome) -> anyhow::Result<()> {
        if let Some(under_way) = self.under_way.take()
            && under_way.is_said
        {
            let directory = self.destination.directory.display();
            let seconds = under_way.since.elapsed().as_secs();
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
            self.trouble = None;
            self.record_backlog();
            return Ok(());
        };
        self.take_in_all();
        if matches!(failure, Failure::Lines(_)) && !self.files.is_empty() {
            return Ok(());
        }
        let complaint = self.complaint(&failure);
        self.note_trouble(complaint.clone(), Instant::now());
        if self.is_time_to_give_up() {
            bail!("{complaint}; gave up");
        }
        warn!(
            "{complaint}; counting goes on, next try in {:?}",
            self.pause
        );
        self.resting_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    /// When the next thing is to be done though nothing has come.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let Some(under_way) = &self.under_way else {
            return self.resting_until;
        };
        let said_at = (!under_way.is_said).then(|| under_way.since + NO_ANSWER);
        said_at.or_else(|| self.gives_up_waiting_at(under_way))
    }

    /// When an attempt without an answer is given up: never while acctd runs.
    pub(super) fn gives_up_waiting_at(&self, under_way: &UnderWay) -> Option<Instant> {
        let stopped_at = self.stopped_at?;
        let is_impatient = *self.impatience.borrow();
        Some(if is_impatient {
            under_way.since + LAST_TRIES
        } else {
            under_way.since.max(stopped_at) + LAST_ANSWER
        })
    }

    pub(super) fn wake(&mut self) -> anyhow::Result<()> {
        self.resting_until = None;
        let Some(under_way) = &self.under_way else {
            return Ok(());
        };
        let is_first = !under_way.is_said;
        let since = under_way.since;
        let complaint = self.no_answer(under_way);
        let gives_up_at = self.gives_up_waiting_at(under_way);
        if gives_up_at.is_some_and(|at| Instant::now() >= at) {
            bail!("{complaint}; gave up");
        }
        if is_first && self.stopped_at.is_none() {
            warn!("{complaint}; counting goes on");
        } else if is_first {
            let seconds = LAST_ANSWER.as_secs();
            warn!("{complaint}; the stop gives it {seconds} s, and no more after a second signal");
        }
        if let Some(under_way) = &mut self.under_way {
            under_way.is_said = true;
        }
        self.note_trouble(complaint, since);
        Ok(())
    }

    /// The next one comes soon, so this one is not tried again.
    pub(super) fn record_checkpoint(&self, saved: &io::Result<UnixNanos>) {
        self.state.record_checkpoint(saved);
        let directory = self.destination.directory.display();
        let was_well = self
            .last_save_succeeded
            .swap(saved.is_ok(), Ordering::Relaxed);
        match saved {
            Ok(_) if was_well => {}
            Ok(_) => info!("Checkpoints are saved to {directory} again"),
            Err(error) if was_well => warn!(
                "cannot save a checkpoint to {directory}: {error}; should acctd be killed, more is lost than the time between two of them; trying again with the next"
            ),
            Err(_) => {}
        }
    }

    /// The trouble began then, unless there was some before.
    pub(super) fn note_trouble(&mut self, complaint: String, since: Instant) {
        let since = self.trouble.take().map_or(since, |(_, at)| at);
        self.trouble = Some((complaint, since));
        self.record_backlog();
    }

    pub(super) fn record_backlog(&self) {
        let in_hand = self.under_way.as_ref();
        let n_files = self.files.len() + usize::from(in_hand.is_some_and(|it| it.stem.is_some()));
        let n_rows = n_rows(&self.files) + in_hand.map_or(0, |it| it.n_rows);
        let n_lines = self.lines.len() + in_hand.map_or(0, |it| it.n_lines);
        self.state
            .record_backlog(n_files, n_rows, n_lines, self.trouble.clone());
    }

    /// What is wrong, and what waits for its end.
    pub(super) fn complaint(&self, failure: &Failure) -> String {
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

    /// The same of a disk that neither takes nor refuses.
    pub(super) fn no_answer(&self, under_way: &UnderWay) -> String {
        let since = self.destination.zone.rfc3339(under_way.since_by_clock);
        let error = format!("the disk has not answered since {since}");
        match &under_way.stem {
            Some(stem) => {
                let file = format!("{stem}.csv");
                self.without_file(&file, &error, 1, under_way.n_packets)
            }
            None if under_way.n_lines > 0 && self.files.is_empty() => {
                self.without_lines(&error, under_way.n_lines)
            }
            None => self.without_file("a checkpoint", &error, 0, 0),
        }
    }

    /// `n_files` and `n_packets` are in hand.
    pub(super) fn without_file(
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

    pub(super) fn without_lines(&self, error: &dyn Display, n_lines: usize) -> String {
        let directory = self.destination.directory.display();
        format!(
            "cannot write to {directory}/{}: {error}; it lacks the lines of {n_lines} intervals, whose files are complete",
            journal::FILE_NAME
        )
    }

    pub(super) fn is_time_to_give_up(&mut self) -> bool {
        if self.stopped_at.is_none() && !self.jobs.is_closed() {
            return false;
        }
        self.pause = FIRST_PAUSE;
        let now = Instant::now();
        *self.impatience.borrow() || now >= *self.give_up_at.get_or_insert(now + LAST_TRIES)
    }
}

async fn outcome_of(
    under_way: &mut Option<UnderWay>,
) -> Result<Outcome, oneshot::error::RecvError> {
    match under_way {
        Some(under_way) => (&mut under_way.outcome).await,
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

/// After a stop, how long to go on trying before what could not be written is given up.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// After a stop, how long an attempt without an answer is waited for: a slow disk that lives is not a dead one, and
/// the unit's `TimeoutStopSec` is 60 s.
const LAST_ANSWER: Duration = Duration::from_secs(45);

/// A disk that has not answered for so long is in trouble, though it has refused nothing: a dead one, or a
/// network file system without its server.
const NO_ANSWER: Duration = Duration::from_secs(10);

pub(super) enum Job {
    Write(Box<ClosedInterval>),
    Save(SaveJob),
}
