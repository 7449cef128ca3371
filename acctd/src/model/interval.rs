//! Divides the wall clock into periods, as go-nflog-acctd does: multiples of the interval in Unix time, so a
//! day ends at 00:00 UTC. Pure arithmetic: except for [`UnixNanos::now`], nothing here reads a clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How long the kernel may hold packets back before it sends its batch: the flush timeout of a group.
pub const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Added to the flush timeout, because the kernel's timer and acctd's may both be late.
const GRACE: Duration = Duration::from_millis(250);

/// How long a period stays open after its end.
pub const SETTLE_TIME: Duration = FLUSH_TIMEOUT.saturating_add(GRACE);

/// A point of the wall clock: nanoseconds since 1970-01-01 00:00 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixNanos(pub i64);

const NANOS_PER_SECOND: i64 = 1_000_000_000;

impl UnixNanos {
    /// The wall clock. If it is outside the years 1678 to 2262, the nearer end of this range.
    #[must_use]
    pub fn now() -> Self {
        let (magnitude, before_epoch) = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => (since, false),
            Err(until) => (until.duration(), true),
        };
        let nanos = i64::try_from(magnitude.as_nanos()).unwrap_or(i64::MAX);
        Self(if before_epoch { -nanos } else { nanos })
    }

    /// From the two fields of `struct nfulnl_msg_packet_timestamp`; `None` if they are more than 2^63
    /// nanoseconds.
    #[must_use]
    pub fn from_stamp(seconds: u64, micros: u64) -> Option<Self> {
        let seconds = i64::try_from(seconds).ok()?;
        let micros = i64::try_from(micros).ok()?;
        let nanos = seconds
            .checked_mul(NANOS_PER_SECOND)?
            .checked_add(micros.checked_mul(1_000)?)?;
        Some(Self(nanos))
    }

    /// Whole seconds, rounded down, and the remaining nanoseconds.
    #[must_use]
    pub fn seconds_and_nanos(self) -> (i64, u32) {
        let nanos = self.0.rem_euclid(NANOS_PER_SECOND);
        // rem_euclid by 10^9 is below 10^9, which a u32 holds.
        (
            self.0.div_euclid(NANOS_PER_SECOND),
            u32::try_from(nanos).unwrap_or(0),
        )
    }

    /// `duration` later, at most the end of the range.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }

    /// `duration` earlier, at least the start of the range.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }

    /// The time from `self` to `later`; zero if `later` is earlier.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_nanos(u64::try_from(later.0.saturating_sub(self.0)).unwrap_or(0))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// Why a duration cannot be an accounting interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IntervalError {
    /// File names have whole seconds, so shorter intervals would have the same name.
    #[error("is below 1 second: use 1s or more")]
    TooShort,
    /// No period would start at midnight UTC.
    #[error("does not divide a day exactly: use for example 1s, 10s, 1m, 5m, 15m, 1h, 6h or 24h")]
    NotADivisorOfADay,
    /// Longer than a day, and periods would not start at midnight UTC.
    #[error("is more than a day but not whole days: use for example 24h, 48h or 7d")]
    NotWholeDays,
    /// 63 bits of nanoseconds limit the arithmetic.
    #[error("is more than 100 years")]
    TooLong,
}

/// The length of a period: at least a second, and a divisor of a day or whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    nanos: i64,
}

impl Interval {
    /// Checks the rules that go-nflog-acctd has for `-interval`.
    pub fn new(length: Duration) -> Result<Self, IntervalError> {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        if length < Duration::from_secs(1) {
            return Err(IntervalError::TooShort);
        }
        if length > 36_525 * DAY {
            return Err(IntervalError::TooLong);
        }
        if length < DAY && !DAY.as_nanos().is_multiple_of(length.as_nanos()) {
            return Err(IntervalError::NotADivisorOfADay);
        }
        if length >= DAY && !length.as_nanos().is_multiple_of(DAY.as_nanos()) {
            return Err(IntervalError::NotWholeDays);
        }
        Ok(Self {
            nanos: nanos(length),
        })
    }

    /// The length of a whole period.
    #[must_use]
    pub fn length(self) -> Duration {
        Duration::from_nanos(self.nanos.unsigned_abs())
    }

    /// The number of the period that contains `time`.
    #[must_use]
    pub fn index_of(self, time: UnixNanos) -> PeriodIndex {
        PeriodIndex(time.0.div_euclid(self.nanos))
    }

    /// The period with this number.
    #[must_use]
    pub fn period(self, index: PeriodIndex) -> Period {
        let start = index.0.saturating_mul(self.nanos);
        Period {
            start: UnixNanos(start),
            end: UnixNanos(start.saturating_add(self.nanos)),
        }
    }
}

/// The number of a period since 1970: `floor(time / interval)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeriodIndex(pub i64);

impl PeriodIndex {
    /// The number of the next period.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A time of the wall clock, from `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Included.
    pub start: UnixNanos,
    /// Not included.
    pub end: UnixNanos,
}

impl Period {
    /// Whether `time` is in the period.
    #[must_use]
    pub fn contains(self, time: UnixNanos) -> bool {
        self.start <= time && time < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(seconds: u64) -> Interval {
        Interval::new(Duration::from_secs(seconds)).unwrap()
    }

    #[test]
    fn an_interval_divides_a_day_or_is_whole_days() {
        for good in [1, 2, 300, 3_600, 86_400, 2 * 86_400, 7 * 86_400] {
            assert!(Interval::new(Duration::from_secs(good)).is_ok(), "{good}");
        }
        assert!(Interval::new(Duration::from_millis(1_500)).is_ok());
        let error = |length| Interval::new(length).unwrap_err();
        assert_eq!(error(Duration::ZERO), IntervalError::TooShort);
        assert_eq!(error(Duration::from_millis(999)), IntervalError::TooShort);
        assert_eq!(
            error(Duration::from_secs(7)),
            IntervalError::NotADivisorOfADay
        );
        assert_eq!(
            error(Duration::from_secs(86_401)),
            IntervalError::NotWholeDays
        );
        assert_eq!(
            error(Duration::from_secs(36_526 * 86_400)),
            IntervalError::TooLong
        );
    }

    #[test]
    fn periods_are_multiples_of_the_interval_without_gaps() {
        let five_minutes = interval(300);
        let index = five_minutes.index_of(UnixNanos(1_360_594_799_999_999_999));
        let period = five_minutes.period(index);
        assert_eq!(period.end, UnixNanos(1_360_594_800_000_000_000));
        assert_eq!(five_minutes.period(index.next()).start, period.end);
        // A day ends at 00:00 UTC, also before 1970.
        let day = interval(86_400);
        assert_eq!(day.index_of(UnixNanos(-1)), PeriodIndex(-1));
        assert!(day.period(PeriodIndex(-1)).contains(UnixNanos(-1)));
        assert!(!day.period(PeriodIndex(-1)).contains(UnixNanos(0)));
    }

    #[test]
    fn a_time_stamp_out_of_range_is_none() {
        assert_eq!(UnixNanos::from_stamp(3, 5), Some(UnixNanos(3_000_005_000)));
        assert_eq!(UnixNanos::from_stamp(u64::MAX, 0), None);
        assert_eq!(UnixNanos::from_stamp(1 << 62, 0), None);
        assert_eq!(UnixNanos::from_stamp(0, u64::MAX), None);
    }
}
