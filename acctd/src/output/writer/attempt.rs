//! One attempt to write what waits, on a separate thread: if the disk does not answer, only this thread waits. Counting
//! and the limits of the backlog do not depend on it.

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::time::Instant;
use std::{io, thread};

use log::{info, warn};
use tokio::sync::oneshot;

use super::unwritten::Written;
use crate::crosscheck::report;
use crate::fault_points::reached;
use crate::model::closed_interval::ClosedInterval;
use crate::model::columns::Columns;
use crate::model::columns::JOURNAL;
use crate::model::interval::UnixNanos;
use crate::observe::state::RuntimeState;
use crate::output::commit::{self, Place, Prepared};
use crate::output::csv;
use crate::output::log_directory::LogDirectory;
use crate::output::writer::destination::{Destination, SaveJob};
use crate::output::writer::unwritten::{Line, Unwritten};
use crate::output::{atomic_file, journal, journal_line};
use crate::process::priority::yield_to_readers;
use crate::restart::checksummed;

/// The most lines for intervals.jsonl that wait, some kilobytes each. Older ones are dropped.
const MAX_LINES: usize = 10_000;

/// What one attempt writes, in this order.
pub(super) struct Attempt {
    /// The oldest interval without a file.
    pub(super) oldest: Option<Unwritten>,
    /// All lines that are missing in intervals.jsonl.
    pub(super) lines: VecDeque<Line>,
    pub(super) checkpoints: VecDeque<SaveJob>,
}

/// The result of an attempt.
pub(super) struct Outcome {
    /// The interval, if it still has no file.
    pub(super) oldest: Option<Unwritten>,
    /// The lines that are still missing.
    pub(super) lines: VecDeque<Line>,
    pub(super) result: Result<(), Failure>,
    /// If there were checkpoints: the time of their counts.
    pub(super) saved: Option<io::Result<UnixNanos>>,
}

/// What could not be written.
pub(super) enum Failure {
    File(io::Error),
    Lines(io::Error),
}

/// The thread ends when this is dropped. If the disk never answers, it ends with the process.
pub(super) struct DiskThread {
    attempts: mpsc::Sender<(Attempt, oneshot::Sender<Outcome>)>,
}

impl DiskThread {
    pub(super) fn start(destination: Destination, state: Arc<RuntimeState>) -> io::Result<Self> {
        let (attempts, queue) = mpsc::channel::<(Attempt, oneshot::Sender<Outcome>)>();
        let work = move || {
            for (attempt, answer) in queue {
                yield_to_readers();
                // If the attempt was given up, nobody waits for the outcome.
                let _given_up = answer.send(attempt.carry_out(&destination, &state));
            }
        };
        thread::Builder::new().name("disk".into()).spawn(work)?;
        Ok(Self { attempts })
    }

    /// The outcome arrives when the disk has answered. If the thread has panicked, the channel closes.
    pub(super) fn begin(&self, attempt: Attempt) -> oneshot::Receiver<Outcome> {
        let (answer, outcome) = oneshot::channel();
        // If the thread has ended, the receiver sees a closed channel.
        let _ended = self.attempts.send((attempt, answer));
        outcome
    }
}

impl Attempt {
    fn carry_out(self, destination: &Destination, state: &RuntimeState) -> Outcome {
        let mut lines = self.lines;
        let (oldest, result) = match self.oldest {
            None => (None, Ok(())),
            Some(mut interval) => match write_file(&mut interval, destination, state) {
                Ok(line) => {
                    lines.push_back(line);
                    (None, Ok(()))
                }
                Err(error) => (Some(interval), Err(Failure::File(error))),
            },
        };
        let result = result.and_then(|()| append(&mut lines, destination).map_err(Failure::Lines));
        let saved = self.checkpoints.into_iter();
        let saved = saved.map(|job| save(job, destination));
        Outcome {
            oldest,
            lines,
            result,
            saved: saved.reduce(Result::and),
        }
    }
}

/// Appends lines to intervals.jsonl, and removes them from `lines`.
fn append(lines: &mut VecDeque<Line>, destination: &Destination) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let directory = destination.open()?;
    while let Some(line) = lines.front() {
        if let Err(error) = journal::append(&directory, &line.text) {
            if lines.len() > MAX_LINES {
                lines.pop_front();
                warn!("{JOURNAL} will lack a line: too many wait");
            }
            return Err(error);
        }
        reached("line");
        if let Some(record) = &line.record {
            commit::remove_record(&directory, record);
        }
        lines.pop_front();
    }
    Ok(())
}

/// Returns the time of the checkpoint's counts.
fn save(job: SaveJob, destination: &Destination) -> io::Result<UnixNanos> {
    let SaveJob {
        file, checkpoint, ..
    } = job;
    let saved_at = checkpoint.saved_at;
    let saved = checkpoint.into_saved();
    atomic_file::replace(&destination.open()?, destination.tag, &file, |target| {
        checksummed::write(&saved, target)?;
        reached("saving");
        Ok(())
    })?;
    reached("saved");
    Ok(saved_at)
}

/// Writes the interval's file, by the steps of [`commit`]. After an error it can be called again.
fn write_file(
    interval: &mut Unwritten,
    destination: &Destination,
    state: &RuntimeState,
) -> io::Result<Line> {
    let directory = &destination.open()?;
    let exists = match &interval.prepared {
        Some((prepared, _)) => prepared.exists(directory)?,
        None => false,
    };
    let prepared = match interval.prepared.take().filter(|_| exists) {
        Some(prepared) => prepared,
        None => prepare(&mut interval.closed, directory, destination)?,
    };
    let (prepared, written) = interval.prepared.insert(prepared);
    let closed = &interval.closed;
    if !closed.checkpoints.is_empty() && !prepared.is_recorded() {
        let place = place(destination, directory);
        let line = |file: &str| summary_line(closed, file, written, destination);
        prepared.record(place, closed.period.start, &closed.checkpoints, line)?;
    }
    let file = prepared.publish(directory)?;
    log_written(closed, &file, written, destination);
    state.record_file(closed, &file, &written.totals, written.took);
    Ok(Line {
        text: summary_line(closed, &file, written, destination),
        record: prepared.retire(directory, &closed.checkpoints),
    })
}

fn prepare(
    closed: &mut ClosedInterval,
    directory: &LogDirectory,
    destination: &Destination,
) -> io::Result<(Prepared, Written)> {
    let begun = Instant::now();
    let stem = destination.zone.file_stem(closed.period);
    let time = destination.zone.row_time(closed.period.start);
    let (prepared, totals) = Prepared::prepare(place(destination, directory), &stem, |target| {
        let columns = match &closed.kernel {
            None => Columns::Nflog,
            Some(_) if destination.wire => Columns::Wire,
            Some(_) => Columns::CrossCheck,
        };
        csv::write_rows(target, &time, closed.rows(), columns)
    })?;
    let took = begun.elapsed();
    Ok((prepared, Written { totals, took }))
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

/// The line for intervals.jsonl.
fn summary_line(
    closed: &ClosedInterval,
    file: &str,
    written: &Written,
    destination: &Destination,
) -> Vec<u8> {
    journal_line::line(
        closed,
        &destination.watched,
        destination.zone,
        file,
        &written.totals,
        written.took.as_secs_f64(),
    )
}

fn place<'a>(destination: &Destination, directory: &'a LogDirectory) -> Place<'a> {
    Place {
        directory,
        tag: destination.tag,
    }
}
