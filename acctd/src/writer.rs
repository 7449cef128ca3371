//! The task that writes closed intervals, one after the other, off the readers' threads. What
//! cannot be written waits here, in order, and is tried again while counting goes on.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use log::{info, warn};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::csv_writer::{self, FileTotals};
use crate::naming::Zone;
use crate::rows::ClosedInterval;
use crate::summary;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
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
}

/// Takes closed intervals and writes them in that order.
#[derive(Debug)]
pub struct Writer {
    queue: mpsc::UnboundedSender<ClosedInterval>,
    task: JoinHandle<Result<()>>,
}

impl Writer {
    /// Starts the task, on the runtime that this is called in.
    #[must_use]
    pub fn start(destination: Destination) -> Self {
        let (queue, closed) = mpsc::unbounded_channel();
        let task = tokio::spawn(run(destination, closed));
        Self { queue, task }
    }

    /// Queues an interval.
    pub fn write(&self, closed: ClosedInterval) -> Result<()> {
        self.queue.send(closed).ok().context("the writer has ended")
    }

    /// Waits until all is written. Fails where the disk has not taken it within ten seconds.
    pub async fn finish(self) -> Result<()> {
        drop(self.queue);
        self.task.await.context("the writer has failed")?
    }
}

async fn run(
    destination: Destination,
    mut closed: mpsc::UnboundedReceiver<ClosedInterval>,
) -> Result<()> {
    let mut waiting = VecDeque::new();
    let mut pause = FIRST_PAUSE;
    let mut give_up_at = None;
    loop {
        let Some(job) = waiting.pop_front() else {
            match closed.recv().await {
                Some(interval) => waiting.push_back(Job::new(interval)),
                None => return Ok(()),
            }
            continue;
        };
        let (job, error) = match job.advance(&destination).await? {
            Progress::Done => {
                pause = FIRST_PAUSE;
                continue;
            }
            Progress::Failed(job, error) => (job, error),
        };
        let stem = destination.zone.file_stem(job.closed.period);
        waiting.push_front(job);
        while let Ok(interval) = closed.try_recv() {
            waiting.push_back(Job::new(interval));
        }
        if closed.is_closed() {
            let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + LAST_TRIES);
            if Instant::now() >= give_up_at {
                let packets: u64 = waiting.iter().map(|job| job.closed.counts().packets).sum();
                bail!(
                    "cannot write {stem}.csv to {}: {error}; gave up with {} intervals ({packets} packets) unwritten",
                    destination.directory.display(),
                    waiting.len(),
                );
            }
            pause = FIRST_PAUSE;
        }
        warn!(
            "cannot write {stem}.csv to {}: {error}; {} intervals wait in memory, counting goes on, next try in {pause:?}",
            destination.directory.display(),
            waiting.len(),
        );
        pause_or_stop(pause, &mut closed, &mut waiting).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sleeps, but wakes when the last interval has come: a stop should not wait for half a minute.
async fn pause_or_stop(
    pause: Duration,
    closed: &mut mpsc::UnboundedReceiver<ClosedInterval>,
    waiting: &mut VecDeque<Job>,
) {
    let sleep = tokio::time::sleep(pause);
    tokio::pin!(sleep);
    let mut stopping = closed.is_closed();
    loop {
        tokio::select! {
            () = &mut sleep => return,
            interval = closed.recv(), if !stopping => match interval {
                Some(interval) => waiting.push_back(Job::new(interval)),
                None if sleep.deadline().duration_since(tokio::time::Instant::now()) > FIRST_PAUSE => return,
                None => stopping = true,
            },
        }
    }
}

/// An interval on its way to the disk. Each step is done once: a try after a failure goes on
/// where the last one stopped, so nothing is written twice.
#[derive(Debug)]
struct Job {
    closed: ClosedInterval,
    step: Step,
}

#[derive(Debug)]
enum Step {
    WriteFile,
    SyncDirectory(Written),
    AppendSummary(Written),
}

#[derive(Clone, Debug)]
struct Written {
    file: String,
    totals: FileTotals,
    took: Duration,
}

enum Progress {
    Done,
    Failed(Job, io::Error),
}

impl Job {
    fn new(closed: ClosedInterval) -> Self {
        Self {
            closed,
            step: Step::WriteFile,
        }
    }

    async fn advance(mut self, destination: &Destination) -> Result<Progress> {
        let destination = destination.clone();
        spawn_blocking(move || {
            yield_to_readers();
            match self.finish(&destination) {
                Ok(()) => Progress::Done,
                Err(error) => Progress::Failed(self, error),
            }
        })
        .await
        .context("writing an interval has failed")
    }

    fn finish(&mut self, destination: &Destination) -> io::Result<()> {
        loop {
            match &self.step {
                Step::WriteFile => {
                    let written = write_file(&mut self.closed, destination)?;
                    self.step = Step::SyncDirectory(written);
                }
                Step::SyncDirectory(written) => {
                    csv_writer::sync_directory(&destination.directory)?;
                    self.step = Step::AppendSummary(written.clone());
                }
                Step::AppendSummary(written) => {
                    let line = summary::line(
                        &self.closed,
                        destination.zone,
                        &written.file,
                        &written.totals,
                        written.took.as_secs_f64(),
                    )?;
                    summary::append(&destination.directory, &line)?;
                    log_interval(&self.closed, written, destination);
                    return Ok(());
                }
            }
        }
    }
}

/// Nice values are a thread's own on Linux, and lowering one's priority is always allowed.
fn yield_to_readers() {
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
    let (file, totals) = csv_writer::create_whole(&destination.directory, &stem, |target| {
        csv_writer::write_rows(target, &time, closed.rows())
    })?;
    if file != format!("{stem}.csv") {
        warn!("{stem}.csv was there already and is left as it is; this interval is in {file}");
    }
    Ok(Written {
        file,
        totals,
        took: begun.elapsed(),
    })
}

fn log_interval(closed: &ClosedInterval, written: &Written, destination: &Destination) {
    let counts = closed.counts();
    let path = destination.directory.join(&written.file);
    info!(
        "Stats file \"{}\" written: {} rows, {} packets, {} bytes, {} lost, {} late, {} undecodable, in {:.3} s",
        path.display(),
        written.totals.rows,
        counts.packets,
        counts.bytes,
        counts.lost,
        counts.late,
        counts.undecodable(),
        written.took.as_secs_f64(),
    );
}
