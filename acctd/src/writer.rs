//! The task that writes closed intervals and checkpoints, one after the other, off the readers'
//! threads. What cannot be written waits here, in order, and is tried again while counting goes on.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use log::{info, warn};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::checkpoint::Checkpoint;
use crate::coarsen;
use crate::commit::{self, Place, Prepared};
use crate::crosscheck::verdicts::Judge;
use crate::crosscheck::{Watched, report};
use crate::csv_writer::{self, FileTotals};
use crate::fault_points::reached;
use crate::interval::UnixNanos;
use crate::naming::Zone;
use crate::nflog_socket::NflogGroup;
use crate::rows::ClosedInterval;
use crate::vitals::Vitals;
use crate::{sealed, summary, whole_file};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Lines for intervals.jsonl that wait at the most, some kilobytes each; older ones are dropped.
const MOST_LINES: usize = 10_000;
/// After a stop, how long to go on trying before what could not be written is given up.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// By how much the nice value of the thread that sorts and writes is above the readers', up to 0: on a
/// busy core they come first, with three quarters of it where both want all. A file may be late, a packet
/// cannot wait. No more than that, or the writer gets too little where there is too little for all,
/// and falls further behind with each interval.
const BEHIND_READERS: i32 = 5;

/// Where and how files are written.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The log directory.
    pub directory: PathBuf,
    /// The zone of names and rows.
    pub zone: Zone,
    /// The interfaces that are cross-checked; empty without a cross-check.
    pub watched: Vec<Watched>,
    /// Whose files these are, where several processes share the directory.
    pub tag: NflogGroup,
    /// The most rows that may wait.
    pub backlog: usize,
}

impl Destination {
    fn place(&self) -> Place<'_> {
        Place {
            directory: &self.directory,
            tag: self.tag,
        }
    }
}

/// Takes closed intervals and checkpoints, and writes them in that order.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::UnboundedSender<Job>,
    /// Checkpoints on their way.
    n_saving: Arc<AtomicUsize>,
    impatient: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

#[derive(Debug)]
enum Job {
    Write(Box<ClosedInterval>),
    Save(SaveJob),
}

#[derive(Debug)]
struct SaveJob {
    file: String,
    checkpoint: Checkpoint,
    /// Counts it for as long as it is there.
    _counted: CountedIn,
}

#[derive(Debug)]
struct CountedIn(Arc<AtomicUsize>);

impl Drop for CountedIn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Starts the task, on the runtime that this is called in. It notes in `vitals` what it does.
    #[must_use]
    pub fn start(destination: Destination, vitals: Arc<Vitals>) -> Self {
        let (queue, jobs) = mpsc::unbounded_channel();
        let (impatient, impatience) = watch::channel(false);
        let backlog = Backlog {
            destination,
            vitals,
            jobs,
            impatience,
            judge: Some(Judge::default()),
            files: VecDeque::new(),
            checkpoints: VecDeque::new(),
            lines: VecDeque::new(),
            is_saving_well: true,
            pause: FIRST_PAUSE,
            give_up_at: None,
        };
        Self {
            queue,
            n_saving: Arc::default(),
            impatient,
            task: tokio::spawn(backlog.write_all()),
        }
    }

    /// Queues an interval.
    pub fn write(&self, closed: ClosedInterval) -> anyhow::Result<()> {
        let job = Job::Write(Box::new(closed));
        self.queue.send(job).ok().context("the writer has ended")
    }

    /// Queues a checkpoint, to be saved in `file` unless its interval is closed before.
    pub fn save(&self, file: String, checkpoint: Checkpoint) {
        self.n_saving.fetch_add(1, Ordering::Relaxed);
        let job = Job::Save(SaveJob {
            file,
            checkpoint,
            _counted: CountedIn(Arc::clone(&self.n_saving)),
        });
        // If the writer has ended, the next interval says so.
        let _ended = self.queue.send(job);
    }

    /// Whether a checkpoint is on its way.
    #[must_use]
    pub fn is_saving(&self) -> bool {
        self.n_saving.load(Ordering::Relaxed) > 0
    }

    /// Waits until all is written. Fails where the disk has not taken it within ten seconds, or at
    /// its next refusal once `hurry` has come true.
    pub async fn finish(self, hurry: impl Future<Output = ()>) -> anyhow::Result<()> {
        drop(self.queue);
        let mut task = self.task;
        let finished = tokio::select! {
            biased;
            finished = &mut task => finished,
            () = hurry => {
                self.impatient.send_replace(true);
                task.await
            }
        };
        finished.context("the writer has failed")?
    }
}

/// What is on its way to the disk.
struct Backlog {
    destination: Destination,
    vitals: Arc<Vitals>,
    jobs: mpsc::UnboundedReceiver<Job>,
    impatience: watch::Receiver<bool>,
    /// Gives the cross-check's verdicts; `None` while a try has it.
    judge: Option<Judge>,
    /// Intervals without a file, oldest first.
    files: VecDeque<Unwritten>,
    /// Of open intervals, the newest of each.
    checkpoints: VecDeque<SaveJob>,
    /// Lines that intervals.jsonl lacks, oldest first. It is not what people bill from, so it
    /// holds up no file.
    lines: VecDeque<Line>,
    /// The last checkpoint was saved.
    is_saving_well: bool,
    /// Until the next try.
    pause: Duration,
    give_up_at: Option<Instant>,
}

/// An interval without a file.
struct Unwritten {
    closed: ClosedInterval,
    /// Its file under a temporary name, of which there is a record: no other may be made.
    prepared: Option<(Prepared, Written)>,
}

/// A line for intervals.jsonl, and the record that goes when it is there.
struct Line {
    text: Vec<u8>,
    record: Option<String>,
}

impl Backlog {
    async fn write_all(mut self) -> anyhow::Result<()> {
        loop {
            if self.files.is_empty() && self.lines.is_empty() && self.checkpoints.is_empty() {
                match self.jobs.recv().await {
                    Some(job) => self.take_in(job),
                    None => return Ok(()),
                }
            }
            self.take_in_all();
            self.keep_within_bounds().await?;
            let Err(failure) = self.try_to_write().await? else {
                self.pause = FIRST_PAUSE;
                self.note_waiting(None);
                continue;
            };
            self.take_in_all();
            if matches!(failure, Failure::Lines(_)) && !self.files.is_empty() {
                continue;
            }
            let complaint = self.complaint(&failure);
            self.note_waiting(Some(&complaint));
            if self.is_time_to_give_up() {
                bail!("{complaint}; gave up");
            }
            warn!(
                "{complaint}; counting goes on, next try in {:?}",
                self.pause
            );
            self.pause_or_stop().await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn take_in(&mut self, job: Job) {
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

    fn take_in_all(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            self.take_in(job);
        }
    }

    /// Puts intervals together while too many rows wait.
    async fn keep_within_bounds(&mut self) -> anyhow::Result<()> {
        let limit = self.destination.backlog;
        // One that has just been closed is no backlog.
        if self.n_rows() <= limit || self.files.len() < 2 {
            return Ok(());
        }
        let mut files = std::mem::take(&mut self.files);
        let mut judge = self.judge.take().unwrap_or_default();
        let zone = self.destination.zone;
        let coarsened = spawn_blocking(move || {
            yield_to_readers();
            coarsen_all(&mut files, limit, &mut judge, zone);
            (files, judge)
        });
        let (files, judge) = coarsened
            .await
            .context("putting intervals together has failed")?;
        self.files = files;
        self.judge = Some(judge);
        Ok(())
    }

    /// The oldest interval, if there is one, and all lines; checkpoints if no other interval waits.
    /// What has been written is taken off.
    async fn try_to_write(&mut self) -> anyhow::Result<Result<(), Failure>> {
        let oldest = self.files.pop_front();
        let lines = std::mem::take(&mut self.lines);
        let checkpoints = if self.files.is_empty() {
            std::mem::take(&mut self.checkpoints)
        } else {
            VecDeque::new()
        };
        let destination = self.destination.clone();
        let vitals = Arc::clone(&self.vitals);
        let mut judge = self.judge.take().unwrap_or_default();
        let attempt = spawn_blocking(move || {
            yield_to_readers();
            let attempt = write(oldest, lines, &mut judge, &destination, &vitals);
            let saved = checkpoints.into_iter().map(|job| save(job, &destination));
            let saved = saved.reduce(Result::and);
            (attempt, saved, judge)
        });
        let (attempt, saved, judge) = attempt.await.context("writing an interval has failed")?;
        self.judge = Some(judge);
        self.lines = attempt.lines;
        if let Some(saved) = saved {
            self.note_saved(&saved);
        }
        Ok(match attempt.result {
            Ok(()) => Ok(()),
            Err((interval, failure)) => {
                if let Some(interval) = interval {
                    self.files.push_front(interval);
                }
                Err(failure)
            }
        })
    }

    /// The next one comes soon, so this one is not tried again.
    fn note_saved(&mut self, saved: &io::Result<UnixNanos>) {
        self.vitals.note_saved(saved);
        let directory = self.destination.directory.display();
        match saved {
            Ok(_) if self.is_saving_well => {}
            Ok(_) => info!("Checkpoints are saved to {directory} again"),
            Err(error) if self.is_saving_well => warn!(
                "cannot save a checkpoint to {directory}: {error}; should acctd be killed, more is lost than the time between two of them; trying again with the next"
            ),
            Err(_) => {}
        }
        self.is_saving_well = saved.is_ok();
    }

    fn note_waiting(&self, error: Option<&str>) {
        let n_files = self.files.len();
        self.vitals
            .note_waiting(n_files, self.n_rows(), self.lines.len(), error);
    }

    fn n_rows(&self) -> usize {
        self.files.iter().map(|file| file.closed.n_entries()).sum()
    }

    /// What is wrong, and what waits for its end.
    fn complaint(&self, failure: &Failure) -> String {
        let directory = self.destination.directory.display();
        match failure {
            Failure::File(error) => {
                let stems = self
                    .files
                    .iter()
                    .map(|file| self.destination.zone.file_stem(file.closed.period));
                let counts = self.files.iter().map(|file| file.closed.counts());
                let packets: u64 = counts.map(|counts| counts.packets).sum();
                format!(
                    "cannot write {}.csv to {directory}: {error}; {} intervals ({packets} packets) are not written",
                    stems.take(1).collect::<String>(),
                    self.files.len()
                )
            }
            Failure::Lines(error) => format!(
                "cannot write to {directory}/{}: {error}; it lacks the lines of {} intervals, whose files are complete",
                summary::FILE_NAME,
                self.lines.len()
            ),
        }
    }

    fn is_time_to_give_up(&mut self) -> bool {
        if !self.jobs.is_closed() {
            return false;
        }
        self.pause = FIRST_PAUSE;
        let now = Instant::now();
        *self.impatience.borrow() || now >= *self.give_up_at.get_or_insert(now + LAST_TRIES)
    }

    /// Sleeps, but wakes when somebody loses patience, when the last interval has come (a stop
    /// should not wait for half a minute), and, where only lines wait, for the next interval.
    async fn pause_or_stop(&mut self) {
        let sleep = tokio::time::sleep(self.pause);
        tokio::pin!(sleep);
        let mut is_stopping = self.jobs.is_closed();
        loop {
            tokio::select! {
                () = &mut sleep => return,
                _ = self.impatience.changed(), if is_stopping => return,
                job = self.jobs.recv(), if !is_stopping => match job {
                    Some(job) => {
                        let n_files = self.files.len();
                        self.take_in(job);
                        if n_files == 0 && self.files.len() == 1 {
                            return;
                        }
                    }
                    None if self.pause > FIRST_PAUSE => return,
                    None => is_stopping = true,
                },
            }
        }
    }
}

/// What could not be written.
enum Failure {
    File(io::Error),
    Lines(io::Error),
}

/// How far a try came: the lines that are left, and the interval if it has no file.
struct Attempt {
    lines: VecDeque<Line>,
    result: Result<(), (Option<Unwritten>, Failure)>,
}

fn write(
    oldest: Option<Unwritten>,
    mut lines: VecDeque<Line>,
    judge: &mut Judge,
    destination: &Destination,
    vitals: &Vitals,
) -> Attempt {
    if let Some(mut interval) = oldest {
        judge_once(&mut interval.closed, judge);
        match write_file(&mut interval, destination, vitals) {
            Ok(line) => lines.push_back(line),
            Err(error) => {
                let result = Err((Some(interval), Failure::File(error)));
                return Attempt { lines, result };
            }
        }
    }
    while let Some(line) = lines.front() {
        if let Err(error) = summary::append(&destination.directory, &line.text) {
            if lines.len() > MOST_LINES {
                lines.pop_front();
                warn!("{} will lack a line: too many wait", summary::FILE_NAME);
            }
            let result = Err((None, Failure::Lines(error)));
            return Attempt { lines, result };
        }
        reached("line");
        if let Some(record) = &line.record {
            commit::forget(&destination.directory, record);
        }
        lines.pop_front();
    }
    let result = Ok(());
    Attempt { lines, result }
}

/// However often it is tried: the next one's verdicts build on it.
fn judge_once(closed: &mut ClosedInterval, judge: &mut Judge) {
    let is_to_be_judged = closed
        .kernel
        .as_ref()
        .is_some_and(|kernel| kernel.judgement.is_none());
    if is_to_be_judged {
        judge.judge(closed);
    }
}

/// Puts neighbours together until no more than `limit` rows wait, the newest interval's besides.
fn coarsen_all(files: &mut VecDeque<Unwritten>, limit: usize, judge: &mut Judge, zone: Zone) {
    for file in files.iter_mut() {
        judge_once(&mut file.closed, judge);
    }
    // Of one with a record, a complete file is on the disk.
    let fixed = usize::from(files.front().is_some_and(|file| file.prepared.is_some()));
    let n_before = files.len();
    let mut n_rows: usize = files.iter().map(|file| file.closed.n_entries()).sum();
    while n_rows > limit {
        let sizes = files.iter().skip(fixed);
        let sizes = sizes.map(|file| file.closed.n_entries()).collect();
        let Some(at) = coarsen::smallest_neighbours(&sizes) else {
            break;
        };
        let at = at + fixed;
        let Some(next) = files.remove(at + 1) else {
            break;
        };
        n_rows -= files[at].closed.n_entries() + next.closed.n_entries();
        files[at].closed.append(next.closed);
        n_rows += files[at].closed.n_entries();
    }
    let Some(last) = files.back_mut() else { return };
    if n_rows > limit && last.closed.n_merged > 1 {
        let n_ledgers = last.closed.groups.len().max(1);
        last.closed.fold((limit / n_ledgers).max(1));
        warn!(
            "{} has more rows than --backlog lets wait: the smallest of its prefixes are in the row of the zero address; totals are exact",
            zone.file_stem(last.closed.period)
        );
    }
    if files.len() < n_before {
        warn!(
            "{n_before} intervals wait for the disk, with more rows than --backlog allows: neighbours are put together, {} files are to be written",
            files.len()
        );
    }
}

/// Returns the time as of which it is saved.
fn save(job: SaveJob, destination: &Destination) -> io::Result<UnixNanos> {
    let SaveJob {
        file, checkpoint, ..
    } = job;
    let saved_at = checkpoint.saved_at;
    let saved = checkpoint.into_saved();
    let place = destination.place();
    let replace = || {
        whole_file::replace(place.directory, place.tag, &file, |target| {
            sealed::write(&saved, target)?;
            reached("saving");
            Ok(())
        })
    };
    in_directory(destination, replace)?;
    reached("saved");
    Ok(saved_at)
}

struct Written {
    totals: FileTotals,
    took: Duration,
}

/// Gives the interval its file, by the steps of [`commit`]. On an error it may be tried again.
fn write_file(
    interval: &mut Unwritten,
    destination: &Destination,
    vitals: &Vitals,
) -> io::Result<Line> {
    let directory = &destination.directory;
    let there = interval.prepared.take();
    let there = there.filter(|(prepared, _)| prepared.is_there(directory));
    let (mut prepared, written) = match there {
        Some(there) => there,
        None => in_directory(destination, || prepare(&mut interval.closed, destination))?,
    };
    let closed = &interval.closed;
    if !closed.checkpoints.is_empty() && !prepared.is_recorded() {
        let start = closed.period.start;
        let line = |file: &str| summary_line(closed, file, &written, destination);
        if let Err(error) = prepared.record(destination.place(), start, &closed.checkpoints, line) {
            prepared.abandon(directory);
            return Err(error);
        }
    }
    let file = match prepared.publish(directory) {
        Ok(file) => file,
        Err(error) => {
            if prepared.is_recorded() {
                interval.prepared = Some((prepared, written));
            } else {
                prepared.abandon(directory);
            }
            return Err(error);
        }
    };
    log_written(closed, &file, &written, destination);
    vitals.note_file(closed, &file, &written.totals, written.took);
    Ok(Line {
        text: summary_line(closed, &file, &written, destination),
        record: prepared.retire(directory, &closed.checkpoints),
    })
}

fn prepare(
    closed: &mut ClosedInterval,
    destination: &Destination,
) -> io::Result<(Prepared, Written)> {
    let begun = Instant::now();
    let stem = destination.zone.file_stem(closed.period);
    let time = destination.zone.row_time(closed.period.start);
    let (prepared, totals) = Prepared::prepare(destination.place(), &stem, |target| {
        let with_crosscheck = closed.kernel.is_some();
        csv_writer::write_rows(target, &time, closed.rows(), with_crosscheck)
    })?;
    let took = begun.elapsed();
    Ok((prepared, Written { totals, took }))
}

/// Makes the log directory again where it is gone.
fn in_directory<T>(
    destination: &Destination,
    mut create: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            csv_writer::make_directory(&destination.directory)?;
            warn!(
                "log directory {} was gone and is made again",
                destination.directory.display()
            );
            create()
        }
        created => created,
    }
}

fn log_written(closed: &ClosedInterval, file: &str, written: &Written, destination: &Destination) {
    let stem = destination.zone.file_stem(closed.period);
    if file != format!("{stem}.csv") {
        warn!("{stem}.csv was there already and is left as it is; this interval is in {file}");
    }
    let counts = closed.counts();
    info!(
        "Stats file \"{}\" written: {} rows, {} packets, {} bytes, {} lost, {} late, {} undecodable, in {:.3} s",
        destination.directory.join(file).display(),
        written.totals.rows,
        counts.packets,
        counts.bytes,
        counts.lost,
        counts.late,
        counts.undecodable(),
        written.took.as_secs_f64(),
    );
    let judgement = closed
        .kernel
        .as_ref()
        .and_then(|kernel| kernel.judgement.as_ref());
    if let Some(judgement) = judgement {
        for line in report::lines(&judgement.summary, &destination.watched) {
            warn!("{line}");
        }
    }
}

/// The interval's line for intervals.jsonl.
fn summary_line(
    closed: &ClosedInterval,
    file: &str,
    written: &Written,
    destination: &Destination,
) -> Vec<u8> {
    summary::line(
        closed,
        &destination.watched,
        destination.zone,
        file,
        &written.totals,
        written.took.as_secs_f64(),
    )
}

/// Nice values are a thread's own on Linux, and lowering one's priority is always allowed. The readers'
/// is that of the process's first thread, which has started them.
pub(crate) fn yield_to_readers() {
    set_behind_readers(|behind| behind.min(0));
}

/// The same, and not in front of other programs either: for work that whoever can connect may ask for without end.
pub(crate) fn yield_to_readers_and_others() {
    set_behind_readers(|behind| behind.max(0));
}

fn set_behind_readers(within: impl Fn(i32) -> i32) {
    let this_thread = Some(rustix::thread::gettid());
    let first_thread = Some(rustix::process::getpid());
    let nice_value = rustix::process::getpriority_process;
    let (Ok(own), Ok(readers)) = (nice_value(this_thread), nice_value(first_thread)) else {
        return;
    };
    let wanted = within(readers + BEHIND_READERS);
    if own < wanted {
        // Should it fail, the work is done at the readers' priority.
        let _no_matter = rustix::process::setpriority_process(this_thread, wanted);
    }
}
