//! The task that writes closed intervals and checkpoints, one after the other, away from the readers' threads. If the
//! disk refuses them, they wait here, in order and within `--backlog`, and are tried again while counting continues.
//! The task itself never waits for the disk: attempts run on a separate thread.

mod attempt;
mod backlog;
mod bounds;
pub(crate) mod destination;
mod unwritten;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use attempt::DiskThread;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::crosscheck::verdicts::Judge;
use crate::model::closed_interval::ClosedInterval;
use crate::observe::state::RuntimeState;
use crate::output::checkpoint::Checkpoint;
use crate::output::writer::backlog::{Backlog, FIRST_PAUSE, Job};
use crate::output::writer::bounds::LastWarned;
use crate::output::writer::destination::{Destination, InFlight, SaveJob};

/// Takes closed intervals and checkpoints, and writes them in that order.
pub(crate) struct Writer {
    queue: mpsc::UnboundedSender<Job>,
    /// How many checkpoints are queued or being written.
    n_saving: Arc<AtomicUsize>,
    last_save_succeeded: Arc<AtomicBool>,
    hurry: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Writer {
    /// Starts the task, on the current runtime, and its thread. They report to `state`.
    pub(crate) fn start(
        destination: Destination,
        state: Arc<RuntimeState>,
    ) -> anyhow::Result<Self> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let (hurry, is_hurried) = watch::channel(false);
        let last_save_succeeded = Arc::new(AtomicBool::new(true));
        let disk = DiskThread::start(destination.clone(), Arc::clone(&state))
            .context("cannot start the thread that writes files")?;
        let backlog = Backlog {
            destination,
            state,
            jobs,
            is_hurried,
            judge: Some(Judge::default()),
            files: VecDeque::new(),
            checkpoints: VecDeque::new(),
            lines: VecDeque::new(),
            disk,
            running: None,
            failure: None,
            last_save_succeeded: Arc::clone(&last_save_succeeded),
            last_warned: LastWarned::default(),
            pause: FIRST_PAUSE,
            paused_until: None,
            stopped_at: None,
            give_up_at: None,
        };
        Ok(Self {
            queue,
            n_saving: Arc::default(),
            last_save_succeeded,
            hurry,
            task: tokio::spawn(backlog.write_all()),
        })
    }

    /// Queues an interval.
    pub(crate) fn write(&self, closed: ClosedInterval) -> anyhow::Result<()> {
        let job = Job::Write(Box::new(closed));
        self.queue.send(job).ok().context("the writer has ended")
    }

    /// Queues a checkpoint. If its interval is closed before, it is dropped.
    pub(crate) fn save(&self, file: String, checkpoint: Checkpoint) {
        self.n_saving.fetch_add(1, Ordering::Relaxed);
        let job = Job::Save(SaveJob {
            file,
            checkpoint,
            _in_flight: InFlight(Arc::clone(&self.n_saving)),
        });
        // If the writer has ended, the next `write` fails.
        let _ended = self.queue.send(job);
    }

    /// Whether a checkpoint is queued or being written.
    pub(crate) fn is_saving(&self) -> bool {
        self.n_saving.load(Ordering::Relaxed) > 0
    }

    /// True if no checkpoint has been written yet.
    pub(crate) fn last_save_succeeded(&self) -> bool {
        self.last_save_succeeded.load(Ordering::Relaxed)
    }

    /// Waits until everything is written. Fails if the disk returns errors for 10 seconds, or does not answer for 45.
    /// Once `hurry` has completed, it fails at the next error, or after 10 seconds without an answer.
    pub(crate) async fn finish(self, hurry: impl Future<Output = ()>) -> anyhow::Result<()> {
        drop(self.queue);
        let mut task = self.task;
        let finished = tokio::select! {
            biased;
            finished = &mut task => finished,
            () = hurry => {
                self.hurry.send_replace(true);
                task.await
            }
        };
        finished.context("the writer has failed")?
    }
}
