//! The task that writes closed intervals, one after the other, off the readers' threads. What
//! cannot be written waits here, in order, and is tried again while counting goes on.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use log::{info, warn};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::crosscheck::verdicts::Judge;
use crate::crosscheck::{Watched, report};
use crate::csv_writer::{self, FileTotals};
use crate::naming::Zone;
use crate::rows::ClosedInterval;
use crate::summary;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Lines for intervals.jsonl that wait at the most, some kilobytes each; older ones are dropped.
const MOST_LINES: usize = 10_000;
/// After a stop, how long to go on trying before what could not be written is given up.
const LAST_TRIES: Duration = Duration::from_secs(10);

/// The nice value of the thread that sorts and writes, unless acctd's own is higher: on a busy
/// core the readers, at -19, come first. A file may be late, a packet cannot wait.
const PRIORITY: i32 = 0;

/// Where and how files are written.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The log directory.
    pub directory: PathBuf,
    /// The zone of names and rows.
    pub zone: Zone,
    /// The interfaces that are cross-checked; empty without a cross-check.
    pub watched: Vec<Watched>,
}

/// Takes closed intervals and writes them in that order.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::UnboundedSender<ClosedInterval>,
    impatient: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Writer {
    /// Starts the task, on the runtime that this is called in.
    #[must_use]
    pub fn start(destination: Destination) -> Self {
        let (queue, closed) = mpsc::unbounded_channel();
        let (impatient, impatience) = watch::channel(false);
        let backlog = Backlog {
            destination,
            closed,
            impatience,
            judge: Some(Judge::default()),
            files: VecDeque::new(),
            lines: VecDeque::new(),
            pause: FIRST_PAUSE,
            give_up_at: None,
        };
        Self {
            queue,
            impatient,
            task: tokio::spawn(backlog.write_all()),
        }
    }

    /// Queues an interval.
    pub fn write(&self, closed: ClosedInterval) -> anyhow::Result<()> {
        self.queue.send(closed).ok().context("the writer has ended")
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
    closed: mpsc::UnboundedReceiver<ClosedInterval>,
    impatience: watch::Receiver<bool>,
    /// Gives the cross-check's verdicts; `None` while a try has it.
    judge: Option<Judge>,
    /// Intervals without a file, oldest first.
    files: VecDeque<ClosedInterval>,
    /// Lines that intervals.jsonl lacks, oldest first. It is not what people bill from, so it
    /// holds up no file.
    lines: VecDeque<Vec<u8>>,
    /// Until the next try.
    pause: Duration,
    give_up_at: Option<Instant>,
}

impl Backlog {
    async fn write_all(mut self) -> anyhow::Result<()> {
        loop {
            if self.files.is_empty() && self.lines.is_empty() {
                match self.closed.recv().await {
                    Some(interval) => self.files.push_back(interval),
                    None => return Ok(()),
                }
            }
            let Err(failure) = self.try_to_write().await? else {
                self.pause = FIRST_PAUSE;
                continue;
            };
            while let Ok(interval) = self.closed.try_recv() {
                self.files.push_back(interval);
            }
            if matches!(failure, Failure::Lines(_)) && !self.files.is_empty() {
                continue;
            }
            let complaint = self.complaint(&failure);
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

    /// The oldest interval, if there is one, and all lines. What has been written is taken off.
    async fn try_to_write(&mut self) -> anyhow::Result<Result<(), Failure>> {
        let oldest = self.files.pop_front();
        let lines = std::mem::take(&mut self.lines);
        let destination = self.destination.clone();
        let mut judge = self.judge.take().unwrap_or_default();
        let attempt = spawn_blocking(move || {
            yield_to_readers();
            let attempt = write(oldest, lines, &mut judge, &destination);
            (attempt, judge)
        });
        let (attempt, judge) = attempt.await.context("writing an interval has failed")?;
        self.judge = Some(judge);
        self.lines = attempt.lines;
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

    /// What is wrong, and what waits for its end.
    fn complaint(&self, failure: &Failure) -> String {
        let directory = self.destination.directory.display();
        match failure {
            Failure::File(error) => {
                let stems = self
                    .files
                    .iter()
                    .map(|file| self.destination.zone.file_stem(file.period));
                let packets: u64 = self.files.iter().map(|file| file.counts().packets).sum();
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
        if !self.closed.is_closed() {
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
        let mut is_stopping = self.closed.is_closed();
        loop {
            tokio::select! {
                () = &mut sleep => return,
                _ = self.impatience.changed(), if is_stopping => return,
                interval = self.closed.recv(), if !is_stopping => match interval {
                    Some(interval) => {
                        self.files.push_back(interval);
                        if self.files.len() == 1 {
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
    lines: VecDeque<Vec<u8>>,
    result: Result<(), (Option<ClosedInterval>, Failure)>,
}

fn write(
    oldest: Option<ClosedInterval>,
    mut lines: VecDeque<Vec<u8>>,
    judge: &mut Judge,
    destination: &Destination,
) -> Attempt {
    if let Some(mut interval) = oldest {
        // Once, however often it is tried: the next one's verdicts build on it.
        if interval
            .kernel
            .as_ref()
            .is_some_and(|kernel| kernel.judgement.is_none())
        {
            judge.judge(&mut interval);
        }
        match write_file(&mut interval, destination) {
            Ok(written) => lines.push_back(summary_line(&interval, &written, destination)),
            Err(error) => {
                let result = Err((Some(interval), Failure::File(error)));
                return Attempt { lines, result };
            }
        }
    }
    while let Some(line) = lines.front() {
        if let Err(error) = summary::append(&destination.directory, line) {
            if lines.len() > MOST_LINES {
                lines.pop_front();
                warn!("{} will lack a line: too many wait", summary::FILE_NAME);
            }
            let result = Err((None, Failure::Lines(error)));
            return Attempt { lines, result };
        }
        lines.pop_front();
    }
    let result = Ok(());
    Attempt { lines, result }
}

struct Written {
    file: String,
    totals: FileTotals,
    took: Duration,
}

/// The interval's line, in the log and for intervals.jsonl.
fn summary_line(closed: &ClosedInterval, written: &Written, destination: &Destination) -> Vec<u8> {
    let counts = closed.counts();
    info!(
        "Stats file \"{}\" written: {} rows, {} packets, {} bytes, {} lost, {} late, {} undecodable, in {:.3} s",
        destination.directory.join(&written.file).display(),
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
    summary::line(
        closed,
        &destination.watched,
        destination.zone,
        &written.file,
        &written.totals,
        written.took.as_secs_f64(),
    )
}

/// Nice values are a thread's own on Linux, and lowering one's priority is always allowed.
pub(crate) fn yield_to_readers() {
    let this_thread = Some(rustix::thread::gettid());
    if rustix::process::getpriority_process(this_thread).is_ok_and(|nice| nice < PRIORITY) {
        // Should it fail, the file is written at the readers' priority.
        let _no_matter = rustix::process::setpriority_process(this_thread, PRIORITY);
    }
}

fn write_file(closed: &mut ClosedInterval, destination: &Destination) -> io::Result<Written> {
    let begun = Instant::now();
    let stem = destination.zone.file_stem(closed.period);
    let time = destination.zone.row_time(closed.period.start);
    let mut create = || {
        csv_writer::create_whole(&destination.directory, &stem, |target| {
            let with_crosscheck = closed.kernel.is_some();
            csv_writer::write_rows(target, &time, closed.rows(), with_crosscheck)
        })
    };
    let created = match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            csv_writer::make_directory(&destination.directory)?;
            warn!(
                "log directory {} was gone and is made again",
                destination.directory.display()
            );
            create()
        }
        created => created,
    };
    let (file, totals) = created?;
    if file != format!("{stem}.csv") {
        warn!("{stem}.csv was there already and is left as it is; this interval is in {file}");
    }
    Ok(Written {
        file,
        totals,
        took: begun.elapsed(),
    })
}
