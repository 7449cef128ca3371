//! When a period is over. Pure: the engine passes the time in, so the tests can step the clock back, forward and over
//! a change to summer time.
//!
//! Invariant: the periods follow each other without gap or overlap. Only if the clock is set back, they start again at
//! the new time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::interval::{Interval, Period, PeriodIndex, SETTLE_TIME, UnixNanos};

/// After a jump of the clock each skipped period gets an empty file, as with go-nflog-acctd, but no more than this
/// number: a router without a clock battery starts in 1970.
const MAX_SKIPPED_FILES: i64 = 300;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// All periods before this one are over.
    Close(PeriodIndex),
    /// The clock was set back: the open period ends at the latest time seen, and a new first period begins now.
    Restart,
}

/// Which periods are open, by the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    interval: Interval,
    /// The oldest period that is not closed.
    open: PeriodIndex,
    /// The start of that period: later than its nominal start if acctd started within it, earlier if it includes
    /// skipped periods.
    open_start: UnixNanos,
    /// The latest time seen; never before `open_start`.
    last_seen: UnixNanos,
}

impl Timeline {
    /// Begins with a partial period from `now` to the next boundary.
    #[must_use]
    pub fn start(interval: Interval, now: UnixNanos) -> Self {
        Self {
            interval,
            open: interval.index_of(now),
            open_start: now,
            last_seen: now,
        }
    }

    /// What is due at `now`.
    pub fn poll(&mut self, now: UnixNanos) -> Option<Due> {
        if now < self.last_seen.minus(SETTLE_TIME) {
            return Some(Due::Restart);
        }
        self.last_seen = self.last_seen.max(now);
        let first_open = self.interval.index_of(now.minus(SETTLE_TIME));
        (first_open > self.open).then_some(Due::Close(first_open))
    }

    /// The oldest period that is not closed.
    #[must_use]
    pub fn first_open(&self) -> PeriodIndex {
        self.open
    }

    /// The start of an open period.
    #[must_use]
    pub fn start_of(&self, index: PeriodIndex) -> UnixNanos {
        self.interval.period(index).start.max(self.open_start)
    }

    /// How long from `now` until the open period closes.
    #[must_use]
    pub fn until_due(&self, now: UnixNanos) -> Duration {
        now.until(self.open_end().plus(SETTLE_TIME))
    }

    /// The nominal end of the oldest open period.
    fn open_end(&self) -> UnixNanos {
        self.interval.period(self.open).end
    }

    /// The end of the period that holds `now`. During the settle time the oldest open period is an earlier one.
    #[must_use]
    pub fn end_of_period(&self, now: UnixNanos) -> UnixNanos {
        self.interval.period(self.interval.index_of(now)).end
    }

    /// Closes the periods before `first_open` and returns them, oldest first. `with_data` are those that have
    /// packets. If there are more than `MAX_SKIPPED_FILES` periods, neighbours without packets are joined.
    pub fn close_before(
        &mut self,
        first_open: PeriodIndex,
        with_data: &BTreeSet<PeriodIndex>,
    ) -> Vec<(PeriodIndex, Period)> {
        let mut closed = Vec::new();
        let join = first_open.0.saturating_sub(self.open.0) > MAX_SKIPPED_FILES;
        while self.open < first_open {
            let last = if join && !with_data.contains(&self.open) {
                let next_with_data = with_data.range(self.open..).next();
                let next = next_with_data.map_or(first_open, |next| *next.min(&first_open));
                PeriodIndex(next.0 - 1)
            } else {
                self.open
            };
            closed.push(self.close_through(last, self.interval.period(last).end));
        }
        closed
    }

    /// The last period that has begun by the latest time seen, `now` included.
    #[must_use]
    pub fn last_period(&self, now: UnixNanos) -> PeriodIndex {
        self.interval.index_of(self.latest(now)).max(self.open)
    }

    /// The latest time seen, `now` included. If the clock was set back, the open period ends there.
    #[must_use]
    pub fn latest(&self, now: UnixNanos) -> UnixNanos {
        self.last_seen.max(now)
    }

    /// Closes all periods: whole ones, and a partial one that ends at the latest time seen. The last one is the
    /// period of that time, or a later one that has packets.
    pub fn finish(
        &mut self,
        now: UnixNanos,
        with_data: &BTreeSet<PeriodIndex>,
    ) -> Vec<(PeriodIndex, Period)> {
        self.last_seen = self.last_seen.max(now);
        let last = self.last_period(now);
        let last = with_data.last().map_or(last, |data| last.max(*data));
        let mut closed = self.close_before(last, with_data);
        closed.push(self.close_through(last, self.last_seen.max(self.open_start)));
        closed
    }

    /// Joins the periods from the oldest open one to `last`, closes them at `end`, and opens the next one there.
    fn close_through(&mut self, last: PeriodIndex, end: UnixNanos) -> (PeriodIndex, Period) {
        let closed = Period {
            start: self.open_start,
            end,
        };
        let index = self.open;
        self.open = last.next();
        self.open_start = end;
        (index, closed)
    }

    /// Starts again at `now`, like [`Timeline::start`].
    pub fn restart(&mut self, now: UnixNanos) {
        *self = Self::start(self.interval, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const NONE: BTreeSet<PeriodIndex> = BTreeSet::new();

    fn at(seconds: i64) -> UnixNanos {
        UnixNanos(seconds * SECOND)
    }

    fn ten_seconds_from(start: i64) -> Timeline {
        Timeline::start(Interval::new(Duration::from_secs(10)).unwrap(), at(start))
    }

    fn spans(closed: &[(PeriodIndex, Period)]) -> Vec<(i64, i64)> {
        closed
            .iter()
            .map(|(_, period)| (period.start.0 / SECOND, period.end.0 / SECOND))
            .collect()
    }

    #[test]
    fn a_period_closes_when_the_kernel_has_surely_flushed() {
        let mut timeline = ten_seconds_from(1_003);
        assert_eq!(timeline.poll(at(1_010)), None);
        assert_eq!(timeline.poll(at(1_011)), None);
        assert_eq!(timeline.until_due(at(1_011)), Duration::from_millis(250));
        let due = timeline.poll(at(1_011).plus(Duration::from_millis(250)));
        assert_eq!(due, Some(Due::Close(PeriodIndex(101))));
        // The first one begins when acctd did.
        assert_eq!(
            spans(&timeline.close_before(PeriodIndex(101), &NONE)),
            [(1_003, 1_010)]
        );
        assert_eq!(timeline.poll(at(1_012)), None);
    }

    #[test]
    fn a_clock_set_forward_leaves_a_file_for_each_skipped_period() {
        let mut timeline = ten_seconds_from(1_003);
        let due = timeline.poll(at(1_045));
        assert_eq!(due, Some(Due::Close(PeriodIndex(104))));
        assert_eq!(
            spans(&timeline.close_before(PeriodIndex(104), &NONE)),
            [
                (1_003, 1_010),
                (1_010, 1_020),
                (1_020, 1_030),
                (1_030, 1_040)
            ]
        );
    }

    #[test]
    fn a_clock_set_forward_by_years_leaves_few_files_and_all_data() {
        let mut timeline = ten_seconds_from(3);
        let first_open = PeriodIndex(170_000_000);
        assert_eq!(
            timeline.poll(at(1_700_000_002)),
            Some(Due::Close(first_open))
        );
        let with_data = BTreeSet::from([PeriodIndex(0), PeriodIndex(7), PeriodIndex(169_999_999)]);
        let closed = timeline.close_before(first_open, &with_data);
        assert_eq!(
            spans(&closed),
            [
                (3, 10),
                (10, 70),
                (70, 80),
                (80, 1_699_999_990),
                (1_699_999_990, 1_700_000_000)
            ]
        );
        assert!(
            with_data
                .iter()
                .all(|data| closed.iter().any(|c| c.0 == *data))
        );
    }

    #[test]
    fn a_clock_set_back_a_little_changes_nothing() {
        let mut timeline = ten_seconds_from(1_003);
        timeline.poll(at(1_012));
        timeline.close_before(PeriodIndex(101), &NONE);
        let back = at(1_012).minus(SETTLE_TIME);
        assert_eq!(timeline.poll(back), None);
        assert_eq!(timeline.until_due(back), Duration::from_millis(10_500));
        // What is seen is the latest time, so small steps add up to one that counts.
        assert_eq!(timeline.poll(UnixNanos(back.0 - 1)), Some(Due::Restart));
    }

    #[test]
    fn a_clock_set_back_within_the_open_period_ends_it_where_it_was() {
        let mut timeline = ten_seconds_from(1_003);
        timeline.poll(at(1_012));
        timeline.close_before(PeriodIndex(101), &NONE);
        timeline.poll(at(1_018));
        assert_eq!(timeline.poll(at(1_014)), Some(Due::Restart));
        let in_it = BTreeSet::from([PeriodIndex(101)]);
        assert_eq!(spans(&timeline.finish(at(1_014), &in_it)), [(1_010, 1_018)]);
        timeline.restart(at(1_014));
        assert_eq!(timeline.poll(at(1_021)), None);
        assert_eq!(timeline.poll(at(1_022)), Some(Due::Close(PeriodIndex(102))));
        assert_eq!(
            spans(&timeline.close_before(PeriodIndex(102), &in_it)),
            [(1_014, 1_020)]
        );
    }

    #[test]
    fn a_clock_set_back_while_two_periods_are_open_ends_both() {
        let mut timeline = ten_seconds_from(1_003);
        assert_eq!(timeline.poll(at(1_011)), None);
        assert_eq!(timeline.poll(at(1_009)), Some(Due::Restart));
        assert_eq!(
            spans(&timeline.finish(at(1_009), &NONE)),
            [(1_003, 1_010), (1_010, 1_011)]
        );
    }

    #[test]
    fn a_clock_set_back_before_the_open_period_ends_it_where_it_was() {
        let mut timeline = ten_seconds_from(1_003);
        timeline.poll(at(1_012));
        timeline.close_before(PeriodIndex(101), &NONE);
        timeline.poll(at(1_017));
        assert_eq!(timeline.poll(at(500)), Some(Due::Restart));
        assert_eq!(spans(&timeline.finish(at(500), &NONE)), [(1_010, 1_017)]);
        timeline.restart(at(500));
        assert_eq!(timeline.poll(at(511)), None);
        assert_eq!(timeline.poll(at(512)), Some(Due::Close(PeriodIndex(51))));
    }

    #[test]
    fn the_end_is_now_and_whole_periods_before_it_are_whole() {
        let mut timeline = ten_seconds_from(1_003);
        assert_eq!(
            spans(&timeline.finish(at(1_011), &NONE)),
            [(1_003, 1_010), (1_010, 1_011)]
        );
        let mut timeline = ten_seconds_from(1_003);
        assert_eq!(spans(&timeline.finish(at(1_003), &NONE)), [(1_003, 1_003)]);
    }

    #[test]
    fn packets_that_a_reader_stamped_ahead_of_the_engine_are_not_forgotten() {
        let mut timeline = ten_seconds_from(1_003);
        timeline.poll(at(1_009));
        let with_data = BTreeSet::from([PeriodIndex(101)]);
        let closed = timeline.finish(at(500), &with_data);
        assert_eq!(spans(&closed), [(1_003, 1_010), (1_010, 1_010)]);
    }
}
