//! The cross-check as the engine knows it, so that the tests can step its clock too.

use anyhow::Result;

use crate::crosscheck::epochs::ClosedEpoch;
use crate::crosscheck::interfaces::InterfaceState;
use crate::crosscheck::session::{CrossCheck, ProgramRun};
use crate::model::interval::{PeriodIndex, UnixNanos};

/// What counts the same packets in the kernel, into an epoch for each period. An error ends it.
pub trait KernelCount: Send {
    /// What is to be done every second.
    fn look_around(&mut self) -> Result<()>;

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
    fn look_around(&mut self) -> Result<()> {
        Self::look_around(self)
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
