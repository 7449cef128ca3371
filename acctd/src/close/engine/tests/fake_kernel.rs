//! A cross-check that the tests fill by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use acctd_common::Counters;
use acctd_common::contract::{EpochKey, EpochValue};
use anyhow::Result;

use crate::close::kernel::KernelCount;
use crate::crosscheck::epochs::ClosedEpoch;
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::interval::{Interval, PeriodIndex, UnixNanos};
use crate::model::kernel_counts::EpochCounts;

/// The epochs of a cross-check, like those of `crosscheck::epochs`: each has the last bytes of the packets' addresses.
pub(super) struct FakeKernel {
    interval: Interval,
    chain: Vec<(PeriodIndex, Vec<u8>)>,
    outside: Vec<u8>,
    pub(super) n_outside: u64,
}

impl FakeKernel {
    pub(super) fn begin(interval: Interval, now: UnixNanos) -> Arc<Mutex<Self>> {
        let mut kernel = Self {
            interval,
            chain: Vec::new(),
            outside: Vec::new(),
            n_outside: 0,
        };
        kernel.look_ahead(interval.index_of(now));
        Arc::new(Mutex::new(kernel))
    }

    /// Three more than the open one.
    fn look_ahead(&mut self, open: PeriodIndex) {
        let from = self.chain.last().map_or(open.0, |(last, _)| last.0 + 1);
        let ahead = (from..=open.0 + 3).map(|index| (PeriodIndex(index), Vec::new()));
        self.chain.extend(ahead);
    }

    pub(super) fn count(&mut self, host: u8, stamp: UnixNanos) {
        let is_before_end = |index: PeriodIndex| stamp < self.interval.period(index).end;
        let found = self
            .chain
            .iter()
            .position(|(index, _)| is_before_end(*index));
        let at = found.unwrap_or(self.chain.len() - 1);
        self.chain[at].1.push(host);
    }

    fn hand_over(&mut self, n_closed: usize, is_exact: bool) -> Vec<ClosedEpoch> {
        let closed = self.chain.drain(..n_closed);
        closed
            .map(|(period, hosts)| closed_epoch(Some(period), is_exact, &hosts))
            .collect()
    }
}

fn closed_epoch(period: Option<PeriodIndex>, is_exact: bool, hosts: &[u8]) -> ClosedEpoch {
    let mut counts = EpochCounts::default();
    for side in [0, 1] {
        for &host in hosts {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&[10, 0, 0, host]);
            let key = EpochKey {
                version: 4,
                side,
                address,
                ..EpochKey::default()
            };
            let value = EpochValue {
                total: Counters {
                    packets: 1,
                    bytes: 100,
                },
                ..EpochValue::default()
            };
            counts.add(&key, &value, true);
        }
    }
    ClosedEpoch {
        period,
        is_exact,
        counts,
        drained_in: Duration::ZERO,
        is_delayed: [false; 2],
    }
}

impl KernelCount for Arc<Mutex<FakeKernel>> {
    fn tick(&mut self) -> Result<()> {
        Ok(())
    }

    fn close_before(&mut self, first_open: PeriodIndex, _: UnixNanos) -> Result<Vec<ClosedEpoch>> {
        let mut kernel = self.lock().unwrap();
        kernel.look_ahead(first_open);
        let n_closed = kernel
            .chain
            .partition_point(|(index, _)| *index < first_open);
        Ok(kernel.hand_over(n_closed, true))
    }

    fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>> {
        let mut kernel = self.lock().unwrap();
        let n_closed = kernel.chain.len();
        let closed = kernel.hand_over(n_closed, false);
        let open = kernel.interval.index_of(now);
        kernel.look_ahead(open);
        Ok(closed)
    }

    fn stop_at(&mut self, now: UnixNanos) -> Result<()> {
        let mut kernel = self.lock().unwrap();
        let open = kernel.interval.index_of(now);
        let n_kept = kernel.chain.partition_point(|(index, _)| *index <= open);
        let ahead = kernel.chain.split_off(n_kept);
        kernel.outside = ahead.into_iter().flat_map(|(_, hosts)| hosts).collect();
        kernel.n_outside = u64::try_from(kernel.outside.len())?;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<ClosedEpoch>> {
        let mut kernel = self.lock().unwrap();
        let n_closed = kernel.chain.len();
        let mut closed = kernel.hand_over(n_closed, true);
        closed.push(closed_epoch(None, false, &kernel.outside));
        Ok(closed)
    }

    fn runs(&self) -> &[ProgramRun] {
        &[]
    }

    fn interfaces(&self) -> Vec<InterfaceState> {
        Vec::new()
    }
}
