//! The epochs of the cross-check: which are in use, their maps, and when each ends.
//!
//! ```text
//!  slots   …  4        5        6        7        0  …
//!             closed   oldest   open     ahead    ahead, without an end
//!             (drained)├────────┼────────┼────────┼───────►
//! ```
//!
//! The programs begin at the oldest slot, and take the next one while a packet's time is not before the
//! slot's end (`acctd_common::contract`). So nothing must happen at the moment of a boundary: ends are set in
//! advance, and an epoch is drained after its grace period, when no packet can belong to it any more.
//!
//! Invariant: each packet that a program counts is in exactly one epoch's map, and each map is read exactly
//! once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use acctd_common::contract::{CLOCK_OFFSET, CLOCK_OLDEST, SLOTS};
use anyhow::{Context, Result};
use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use log::warn;

use super::bpf_syscall::{self, EpochMap};
use super::epoch_map::EpochDefinition;
use crate::config::crosscheck::{CrossCheckConfig, n_ahead};
use crate::fault_points::reached;
use crate::model::interval::{Interval, PeriodIndex, UnixNanos};
use crate::model::kernel_counts::EpochCounts;
use crate::model::prefix::Family;

/// At the end of the last period: how long a packet may take from its time stamp to the program and to NFLOG's
/// rule.
const IN_FLIGHT: Duration = Duration::from_millis(30);

/// The first period must end no sooner than this: the epochs must be ready and the groups be open before. (Of a short period, half.)
const TIME_TO_BEGIN: Duration = Duration::from_millis(300);

/// How often the start waits for the next period. Then it begins anyway, and what is not exact is said to be so.
const TIMES_TO_WAIT: u32 = 5;

/// The end of an epoch that has none yet.
const NO_END: u64 = u64::MAX;

/// The epochs in use.
#[derive(Debug)]
pub(crate) struct Epochs {
    outer: Map,
    clock: Map,
    definition: EpochDefinition,
    /// The limit of entries per epoch: prefixes and sides.
    capacity: u32,
    /// IPv6 prefixes have at most 64 bits.
    is_half: bool,
    interval: Interval,
    /// Oldest first, in neighbouring slots. Never empty.
    chain: VecDeque<Epoch>,
}

#[derive(Debug)]
struct Epoch {
    slot: u32,
    map: EpochMap,
    /// `None` before the first period and after the last.
    period: Option<PeriodIndex>,
    /// See [`ClosedEpoch::is_exact`].
    is_exact: bool,
}

/// An epoch that is over.
#[derive(Debug)]
pub(crate) struct ClosedEpoch {
    /// `None` before the first period and after the last.
    pub(crate) period: Option<PeriodIndex>,
    /// Whether it has the packets of exactly this period, and the programs saw all of them. False, for example,
    /// if acctd did not run for so long that one epoch counted several periods.
    pub(crate) is_exact: bool,
    /// For each side, whether packets were delayed between the program and the rules ([`super::delays`]).
    pub(crate) is_delayed: [bool; 2],
    /// The content of its map.
    pub(crate) counts: EpochCounts,
    /// The time it took to read the map.
    pub(crate) drained_in: Duration,
}

impl Epochs {
    /// Opens an epoch that belongs to no period, for packets before [`Self::begin`].
    pub(crate) fn open(
        outer: Map,
        clock: Map,
        definition: EpochDefinition,
        interval: Interval,
        config: &CrossCheckConfig,
    ) -> Result<Self> {
        let mut lengths = config.prefix_lengths.iter();
        let mut epochs = Self {
            outer,
            clock,
            definition,
            capacity: config.capacity(),
            is_half: lengths.all(|it| it.family() == Family::Ip4 || it.bits() <= 64),
            interval,
            chain: VecDeque::new(),
        };
        epochs.push(0, None)?;
        epochs.set_clock(CLOCK_OLDEST, 0)?;
        Ok(epochs)
    }

    /// Tells the programs what to add to their clock to get the wall clock.
    pub(crate) fn set_clock_offset(&mut self, offset: i64) -> Result<()> {
        self.set_clock(CLOCK_OFFSET, offset.cast_unsigned())
    }

    /// Creates the epochs of the first periods. This takes some tens of milliseconds, and on a busy machine far more:
    /// if the first period ends soon, or has ended meanwhile, the next one becomes the first.
    pub(crate) fn prepare(&mut self) -> Result<()> {
        let mut first = self.interval.index_of(UnixNanos::now());
        self.push(self.slot_after_last(), Some(first))?;
        for _ in 0..TIMES_TO_WAIT {
            self.prepare_ahead(first)?;
            let left = UnixNanos::now().until(self.interval.period(first).end);
            let is_exact = self.chain.get(1).is_some_and(|epoch| epoch.is_exact);
            if is_exact && left >= TIME_TO_BEGIN.min(self.interval.length() / 2) {
                return Ok(());
            }
            std::thread::sleep(left);
            self.skip_first()?;
            first = first.next();
        }
        self.prepare_ahead(first).map(drop)
    }

    /// The first period becomes a part of the epoch before it, which has no period and ends with [`Self::begin`].
    fn skip_first(&mut self) -> Result<()> {
        let Some(before) = self.chain.pop_front() else {
            return Ok(());
        };
        if let Some(first) = self.chain.front_mut() {
            first.period = None;
            first.is_exact = false;
        }
        let slot = self.chain.front().map_or(0, |epoch| epoch.slot);
        self.set_clock(slot, NO_END)?;
        self.set_clock(CLOCK_OLDEST, slot.into())?;
        bpf_syscall::delete_element(&self.outer, before.slot)
            .context("cannot remove an epoch's map")
    }

    /// Ends the epoch without a period and begins the first period.
    pub(crate) fn begin(&mut self) -> Result<()> {
        let outside = self.chain.front().map_or(0, |epoch| epoch.slot);
        let first = self.chain.get(1).map_or(0, |epoch| epoch.slot);
        let start = UnixNanos::now();
        for epoch in self.chain.iter_mut().skip(2) {
            // If this period has begun already, its first packets are in the epoch without a period.
            epoch.is_exact &= epoch
                .period
                .is_some_and(|period| start < self.interval.period(period).start);
        }
        self.set_clock(outside, end_nanos(start))?;
        // Now, for programs that count in the oldest slot without comparing times. Packets on their way are in
        // NFLOG's first period as well.
        self.set_clock(CLOCK_OLDEST, first.into())
    }

    /// The programs do not see all packets: the periods that are open at `now` are not exact.
    pub(crate) fn mark_inexact(&mut self, now: UnixNanos) {
        let open = self.interval.index_of(now);
        for epoch in &mut self.chain {
            epoch.is_exact &= epoch.period.is_some_and(|period| period > open);
        }
    }

    /// Closes the periods before `first_open`, which has begun at `now`.
    pub(crate) fn close_before(
        &mut self,
        first_open: PeriodIndex,
        now: UnixNanos,
    ) -> Result<Vec<ClosedEpoch>> {
        if let Some(last) = self.last_period()
            && last < first_open
        {
            // The last epoch had no end and counted all packets since. It ends now, and a new one counts the
            // rest of the open period.
            warn_of_late(self.interval.period(last).end.until(now));
            self.mark_last_inexact();
            self.push_period(first_open, now)?;
            self.mark_last_inexact();
        }
        let n_closed = self
            .chain
            .iter()
            .take_while(|epoch| epoch.period.is_none_or(|period| period < first_open))
            .count();
        self.close_oldest(n_closed, first_open)
    }

    /// The clock was set back to `now`: closes all epochs, none of which is exact, and begins again.
    pub(crate) fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>> {
        let n_closed = self.chain.len();
        let first = self.interval.index_of(now);
        // Time is before every end now, so the programs count in the oldest slot.
        self.push_period(first, now)?;
        self.mark_last_inexact();
        for epoch in self.chain.iter_mut().take(n_closed) {
            epoch.is_exact = false;
        }
        self.close_oldest(n_closed, first)
    }

    /// Ends the open period at `now`. Later packets are in an epoch without a period.
    pub(crate) fn stop_at(&mut self, now: UnixNanos) -> Result<()> {
        let open = self.interval.index_of(now);
        let is_ahead = |epoch: &Epoch| epoch.period.is_some_and(|period| period > open);
        let n_kept = self.chain.iter().take_while(|one| !is_ahead(one)).count();
        if n_kept == 0 || n_kept == self.chain.len() {
            // No epoch is ahead: the last one counted all packets since its period ended.
            if self.last_period().is_some_and(|last| last < open) {
                self.mark_last_inexact();
            }
            let slot = self.slot_after_last();
            self.push_at(slot, None, now)?;
        } else {
            // The next epoch exists. If its period has begun meanwhile, it has packets already, so it must not
            // be replaced.
            self.chain[n_kept].period = None;
            self.set_clock(self.chain[n_kept].slot, NO_END)?;
            self.set_clock(self.chain[n_kept - 1].slot, end_nanos(now))?;
            // Those after it have not begun.
            self.chain.truncate(n_kept + 1);
        }
        std::thread::sleep(IN_FLIGHT);
        // From now on for packets of any time: the groups are unbound next, so NFLOG may miss them.
        let outside = self.slot_of_last();
        self.set_clock(CLOCK_OLDEST, outside.into())
    }

    /// Closes all epochs. No program may be attached any more.
    pub(crate) fn close_all(mut self) -> Result<Vec<ClosedEpoch>> {
        let chain = std::mem::take(&mut self.chain);
        chain.into_iter().map(|epoch| self.drain(&epoch)).collect()
    }

    fn last_period(&self) -> Option<PeriodIndex> {
        self.chain.back().and_then(|epoch| epoch.period)
    }

    fn mark_last_inexact(&mut self) {
        if let Some(last) = self.chain.back_mut() {
            last.is_exact = false;
        }
    }

    /// Closes the `n_closed` oldest epochs: lets the programs begin after them, and drains them.
    fn close_oldest(
        &mut self,
        n_closed: usize,
        first_open: PeriodIndex,
    ) -> Result<Vec<ClosedEpoch>> {
        let oldest = self.chain.get(n_closed).map_or(0, |epoch| epoch.slot);
        self.set_clock(CLOCK_OLDEST, oldest.into())?;
        let closed: Vec<Epoch> = self.chain.drain(..n_closed).collect();
        for epoch in &closed {
            // This waits until no program uses the map any more.
            bpf_syscall::delete_element(&self.outer, epoch.slot)
                .context("cannot remove an epoch's map")?;
        }
        if let Some(time) = self.prepare_ahead(first_open)? {
            warn_of_late(time);
        }
        closed.iter().map(|epoch| self.drain(epoch)).collect()
    }

    /// Makes sure that there are epochs for the next seconds. Returns the time by which the last of them came too late.
    fn prepare_ahead(&mut self, open: PeriodIndex) -> Result<Option<Duration>> {
        let mut too_late = None;
        let until = open.0.saturating_add(n_ahead(self.interval).into());
        while let Some(last) = self.last_period()
            && last.0 < until
        {
            let end = self.interval.period(last).end;
            self.push_period(last.next(), end)?;
            let now = UnixNanos::now();
            if now >= end {
                // The one before had no end until now, and counted packets of this one.
                for epoch in self.chain.iter_mut().rev().take(2) {
                    epoch.is_exact = false;
                }
                too_late = Some(end.until(now));
            }
        }
        Ok(too_late)
    }

    /// Adds an epoch for `period` after the last one, which ends at `start`.
    fn push_period(&mut self, period: PeriodIndex, start: UnixNanos) -> Result<()> {
        let slot = self.slot_after_last();
        self.push_at(slot, Some(period), start)
    }

    fn push_at(&mut self, slot: u32, period: Option<PeriodIndex>, start: UnixNanos) -> Result<()> {
        let last = self.chain.back().map(|epoch| epoch.slot);
        self.push(slot, period)?;
        // Last, so that a program that reaches the new slot finds it complete.
        match last {
            Some(last) => self.set_clock(last, end_nanos(start)),
            None => Ok(()),
        }
    }

    fn slot_of_last(&self) -> u32 {
        self.chain.back().map_or(0, |last| last.slot)
    }

    fn slot_after_last(&self) -> u32 {
        self.chain.back().map_or(0, |last| (last.slot + 1) % SLOTS)
    }

    fn push(&mut self, slot: u32, period: Option<PeriodIndex>) -> Result<()> {
        let map = self.definition.new_map(self.capacity)?;
        reached("map_made");
        self.set_clock(slot, NO_END)?;
        let mut outer: ArrayOfMaps<&mut MapData, MapData> = (&mut self.outer).try_into()?;
        outer
            .set(slot, map.data()?, 0)
            .context("cannot add an epoch's map")?;
        self.chain.push_back(Epoch {
            slot,
            map,
            period,
            is_exact: period.is_some(),
        });
        Ok(())
    }

    fn set_clock(&mut self, index: u32, value: u64) -> Result<()> {
        let mut clock: Array<&mut MapData, u64> = (&mut self.clock).try_into()?;
        clock
            .set(index, value, 0)
            .context("cannot set the cross-check's clock")
    }

    fn drain(&self, epoch: &Epoch) -> Result<ClosedEpoch> {
        let started = Instant::now();
        let mut counts = EpochCounts::default();
        let add = |key: &_, value: &_| counts.add(key, value, self.is_half);
        epoch
            .map
            .for_each(add)
            .context("cannot read an epoch's map")?;
        Ok(ClosedEpoch {
            period: epoch.period,
            is_exact: epoch.is_exact,
            is_delayed: [false; 2],
            counts,
            drained_in: started.elapsed(),
        })
    }
}

fn warn_of_late(time: Duration) {
    warn!(
        "acctd was held up: the cross-check's map for an interval came {} ms after the interval's start, so this one and the one before are not comparable",
        time.as_millis()
    );
}

/// NFLOG's time stamps are rounded down to microseconds. A packet is before `end` for NFLOG if and only if it
/// is before this time for a program.
fn end_nanos(end: UnixNanos) -> u64 {
    let nanos = u64::try_from(end.0).unwrap_or(0);
    nanos.div_ceil(1_000).saturating_mul(1_000)
}
