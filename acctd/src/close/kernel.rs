//! The cross-check as the engine knows it, so that the tests can step its clock too.

use anyhow::Result;
use tokio::task::spawn_blocking;

use crate::crosscheck::epochs::ClosedEpoch;
use crate::crosscheck::session::CrossCheck;
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::interval::{PeriodIndex, UnixNanos};
use crate::process::priority::yield_to_readers;

/// What counts the same packets in the kernel, into an epoch for each period. An error ends it.
pub(crate) trait KernelCount: Send {
    /// What is to be done every second.
    fn tick(&mut self) -> Result<()>;

    /// Closes the periods before `first_open`, which has begun at `now`.
    fn close_before(&mut self, first_open: PeriodIndex, now: UnixNanos)
    -> Result<Vec<ClosedEpoch>>;

    /// The clock was set back to `now`: closes all, and begins anew. Epochs of periods that lie ahead
    /// may be among them.
    fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>>;

    /// The last period ends at `now`; what comes later is counted apart.
    fn stop_at(&mut self, now: UnixNanos) -> Result<()>;

    /// Ends it and hands over what is left.
    fn finish(self: Box<Self>) -> Result<Vec<ClosedEpoch>>;

    /// What its programs have done until the last look.
    fn runs(&self) -> &[ProgramRun];

    /// Which interfaces it counts on, as of the last look.
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

/// The cross-check, as the engine knows it.
pub(super) enum KernelWatch {
    /// Not asked for.
    Off,
    /// At work; `None` while a thread of its own has it.
    Active(Option<Box<dyn KernelCount>>),
    /// It has failed: the files keep its columns, and nothing in them is checked.
    Failed,
}

impl KernelWatch {
    /// Lets the cross-check do something on a thread where it may wait. If it fails, NFLOG's own
    /// accounting goes on.
    pub(super) async fn ask<F>(&mut self, work: F) -> Vec<ClosedEpoch>
    where
        F: FnOnce(&mut dyn KernelCount) -> Result<Vec<ClosedEpoch>> + Send + 'static,
    {
        let Self::Active(kernel) = self else {
            return Vec::new();
        };
        let Some(mut crosscheck) = kernel.take() else {
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

    /// Takes the cross-check off the interfaces.
    pub(super) async fn finish(&mut self) -> Vec<ClosedEpoch> {
        let Self::Active(kernel) = self else {
            return Vec::new();
        };
        let Some(crosscheck) = kernel.take() else {
            return Vec::new();
        };
        match spawn_blocking(move || crosscheck.finish()).await {
            Ok(Ok(closed)) => closed,
            Ok(Err(error)) => self.give_up(&error),
            Err(panicked) => self.give_up(&panicked.into()),
        }
    }

    pub(super) fn give_up(&mut self, error: &anyhow::Error) -> Vec<ClosedEpoch> {
        log::error!(
            "the cross-check has failed: {error:#}; accounting goes on without it, start acctd again to have it back"
        );
        *self = Self::Failed;
        Vec::new()
    }
}
