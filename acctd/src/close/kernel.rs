//! The cross-check behind a trait, so that the tests can step its clock too.

use anyhow::Result;
use tokio::task::spawn_blocking;

use crate::crosscheck::epochs::ClosedEpoch;
use crate::crosscheck::session::CrossCheck;
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::interval::{PeriodIndex, UnixNanos};
use crate::process::priority::yield_to_readers;

/// Counts the same packets in the kernel, in one epoch per period. After an error it is not used any more.
pub(crate) trait KernelCount: Send {
    /// Runs once per second.
    fn tick(&mut self) -> Result<()>;

    /// Closes the periods before `first_open`; `now` is in `first_open` or later.
    fn close_before(&mut self, first_open: PeriodIndex, now: UnixNanos)
    -> Result<Vec<ClosedEpoch>>;

    /// The clock was set back to `now`: closes all epochs, and starts again. Epochs of future periods may be among
    /// them.
    fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>>;

    /// The last period ends at `now`. Later packets are counted separately.
    fn stop_at(&mut self, now: UnixNanos) -> Result<()>;

    /// Closes the remaining epochs.
    fn finish(self: Box<Self>) -> Result<Vec<ClosedEpoch>>;

    /// The run times of the programs, as of the last tick.
    fn runs(&self) -> &[ProgramRun];

    /// The interfaces with programs, as of the last tick.
    fn interfaces(&self) -> Vec<InterfaceState>;
}

impl KernelCount for CrossCheck {
    fn tick(&mut self) -> Result<()> {
        Self::tick(self)
    }

    fn close_before(
        &mut self,
        first_open: PeriodIndex,
        now: UnixNanos,
    ) -> Result<Vec<ClosedEpoch>> {
        Self::close_before(self, first_open, now)
    }

    fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>> {
        Self::restart(self, now)
    }

    fn stop_at(&mut self, now: UnixNanos) -> Result<()> {
        Self::stop_at(self, now)
    }

    fn finish(self: Box<Self>) -> Result<Vec<ClosedEpoch>> {
        Self::finish(*self)
    }

    fn runs(&self) -> &[ProgramRun] {
        Self::runs(self)
    }

    fn interfaces(&self) -> Vec<InterfaceState> {
        Self::interfaces(self)
    }
}

/// The state of the cross-check.
pub(super) enum KernelWatch {
    /// Not configured.
    Off,
    /// `None` while another thread has it.
    Active(Option<Box<dyn KernelCount>>),
    /// The files keep its columns, and no row is checked.
    Failed,
}

impl KernelWatch {
    /// Runs `work` with the cross-check on a thread that may block. If it fails, accounting continues without the
    /// cross-check.
    pub(super) async fn run<F>(&mut self, work: F) -> Vec<ClosedEpoch>
    where
        F: FnOnce(&mut dyn KernelCount) -> Result<Vec<ClosedEpoch>> + Send + 'static,
    {
        let Some(mut crosscheck) = self.take() else {
            return Vec::new();
        };
        let done = spawn_blocking(move || {
            yield_to_readers();
            let result = work(crosscheck.as_mut());
            (crosscheck, result)
        });
        let result = match done.await {
            Ok((crosscheck, Ok(closed))) => {
                *self = Self::Active(Some(crosscheck));
                return closed;
            }
            Ok((_crosscheck, Err(error))) => error,
            Err(panicked) => panicked.into(),
        };
        self.give_up(&result)
    }

    /// Ends the cross-check. Returns the remaining epochs.
    pub(super) async fn finish(&mut self) -> Vec<ClosedEpoch> {
        let Some(crosscheck) = self.take() else {
            return Vec::new();
        };
        match spawn_blocking(move || crosscheck.finish()).await {
            Ok(Ok(closed)) => closed,
            Ok(Err(error)) => self.give_up(&error),
            Err(panicked) => self.give_up(&panicked.into()),
        }
    }

    fn take(&mut self) -> Option<Box<dyn KernelCount>> {
        match self {
            Self::Active(crosscheck) => crosscheck.take(),
            Self::Off | Self::Failed => None,
        }
    }

    pub(super) fn give_up(&mut self, error: &anyhow::Error) -> Vec<ClosedEpoch> {
        log::error!(
            "the cross-check has failed: {error:#}; accounting continues without it; start acctd again to get it back"
        );
        *self = Self::Failed;
        Vec::new()
    }
}
