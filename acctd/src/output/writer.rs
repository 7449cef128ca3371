//! The task that has closed intervals and checkpoints written, one after the other, off the readers'
//! threads. What cannot be written waits here, in order and within its bounds, and is tried again while
//! counting goes on. The task itself never waits for the disk: each attempt is on a thread of its own.

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
use crate::output::writer::bounds::Said;
use crate::output::writer::destination::{CountedIn, Destination, SaveJob};

/// Takes closed intervals and checkpoints, and writes them in that order.
pub(crate) struct Writer {
    queue: mpsc::UnboundedSender<Job>,
    /// Checkpoints on their way.
    n_saving: Arc<AtomicUsize>,
    /// The last one was saved.
    last_save_succeeded: Arc<AtomicBool>,
    impatient: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Writer {
    /// Starts the task, on the runtime that this is called in, and its thread. It notes in `state` what it
    /// does.
    pub(crate) fn start(
        destination: Destination,
        state: Arc<RuntimeState>,
    ) -> anyhow::Result<Self> {
        let (queue, jobs) = mpsc::unbounded_channel();
        let (impatient, impatience) = watch::channel(false);
        let last_save_succeeded = Arc::new(AtomicBool::new(true));
        let disk = DiskThread::start(destination.clone(), Arc::clone(&state))
            .context("cannot start the thread that writes files")?;
        let backlog = Backlog {
            destination,
            state,
            jobs,
            impatience,
            judge: Some(Judge::default()),
            files: VecDeque::new(),
            checkpoints: VecDeque::new(),
            lines: VecDeque::new(),
            disk,
            under_way: None,
            trouble: None,
            last_save_succeeded: Arc::clone(&last_save_succeeded),
            said: Said::default(),
            pause: FIRST_PAUSE,
            resting_until: None,
            stopped_at: None,
            give_up_at: None,
        };
        Ok(Self {
            queue,
            n_saving: Arc::default(),
            last_save_succeeded,
            impatient,
            task: tokio::spawn(backlog.write_all()),
        })
    }

    /// Queues an interval.
    pub(crate) fn write(&self, closed: ClosedInterval) -> anyhow::Result<()> {
        let job = Job::Write(Box::new(closed));
        self.queue.send(job).ok().context("the writer has ended")
    }

    /// Queues a checkpoint, to be saved in `file` unless its interval is closed before.
    pub(crate) fn save(&self, file: String, checkpoint: Checkpoint) {
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
    pub(crate) fn is_saving(&self) -> bool {
        self.n_saving.load(Ordering::Relaxed) > 0
    }

    /// Whether the last checkpoint was saved, or none has failed yet.
    pub(crate) fn last_save_succeeded(&self) -> bool {
        self.last_save_succeeded.load(Ordering::Relaxed)
    }

    /// Waits until all is written. Fails where the disk refuses it for ten seconds or does not answer for 45; once
    /// `hurry` has come true, at its next refusal or if it has not answered for ten.
    pub(crate) async fn finish(self, hurry: impl Future<Output = ()>) -> anyhow::Result<()> {
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
