//! When packets may go: the rate, and the silence around full seconds.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How far a packet must be from a full second in clock mode. The
/// receiver's stamp of a packet is later than the sender's look at the clock
/// by far less than that, unless the machine stalls.
const SILENCE: Duration = Duration::from_millis(30);

/// Spaces packets evenly at a rate. A sender that wakes up late catches up.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u32,
    start: Instant,
}

impl Pace {
    /// `rate` in packets per second; 0 knows no limit.
    pub(super) fn new(rate: u32) -> Self {
        Self {
            rate,
            start: Instant::now(),
        }
    }

    /// Waits until the packet after `n_sent` is due, and says how many are,
    /// up to `limit`.
    pub(super) fn wait(&self, n_sent: u64, limit: u64) -> u64 {
        if self.rate == 0 {
            return limit;
        }
        let due_at = self.start + self.time_of(n_sent);
        if let Some(early) = due_at.checked_duration_since(Instant::now()) {
            thread::sleep(early);
        }
        let n_due = self.due_after(self.start.elapsed());
        n_due.saturating_sub(n_sent).clamp(1, limit)
    }

    /// Leaves out a time in which nothing was to be sent, so that no burst
    /// makes up for it.
    pub(super) fn skip(&mut self, time: Duration) {
        self.start += time;
    }

    /// When the packet with this number, from 0, is due.
    fn time_of(&self, number: u64) -> Duration {
        let rate = u64::from(self.rate);
        let nanos = (number % rate) * 1_000_000_000 / rate;
        Duration::from_secs(number / rate) + Duration::from_nanos(nanos)
    }

    /// How many packets are due after this time.
    fn due_after(&self, elapsed: Duration) -> u64 {
        let rate = u64::from(self.rate);
        let within = u64::from(elapsed.subsec_nanos()) * rate / 1_000_000_000;
        elapsed.as_secs() * rate + within + 1
    }
}

/// The time since 1970 by the wall clock, which packets are stamped by.
pub(super) fn unix_time() -> Duration {
    // A clock before 1970 is no case to plan for.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Waits out the time around a full second, and says how long that took.
pub(super) fn avoid_full_second() -> Duration {
    let silence = silence_left(unix_time());
    if silence.is_zero() {
        return silence;
    }
    let start = Instant::now();
    thread::sleep(silence);
    start.elapsed()
}

fn silence_left(now: Duration) -> Duration {
    let since = Duration::from_nanos(now.subsec_nanos().into());
    let until_next = Duration::from_secs(1).saturating_sub(since);
    if until_next <= SILENCE {
        until_next + SILENCE
    } else {
        SILENCE.saturating_sub(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_spaced_evenly() {
        let pace = Pace::new(4);
        let times: Vec<_> = (0..6).map(|n| pace.time_of(n).as_millis()).collect();
        assert_eq!(times, [0, 250, 500, 750, 1000, 1250]);
    }

    #[test]
    fn a_packet_is_due_at_its_time_and_not_before() {
        for rate in [1, 3, 7, 1000, 300_000, u32::MAX] {
            let pace = Pace::new(rate);
            for number in [0, 1, 2, 12_345, 1_000_000_007] {
                let nanosecond = Duration::from_nanos(1);
                let time = pace.time_of(number);
                assert!(
                    pace.due_after(time + nanosecond) > number,
                    "{rate} {number}"
                );
                if let Some(before) = time.checked_sub(nanosecond) {
                    assert!(pace.due_after(before) <= number.max(1), "{rate} {number}");
                }
            }
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let pace = Pace::new(2000);
        let mut n_sent = 0;
        while n_sent < 200 {
            n_sent += pace.wait(n_sent, 64);
        }
        let took = pace.start.elapsed();
        assert!(took >= Duration::from_millis(95), "{took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn silence_is_around_full_seconds() {
        let left = |millis| silence_left(Duration::from_millis(millis)).as_millis();
        assert_eq!(left(5_000), 30);
        assert_eq!(left(5_029), 1);
        assert_eq!(left(5_030), 0);
        assert_eq!(left(5_969), 0);
        assert_eq!(left(5_970), 60);
        assert_eq!(left(5_999), 31);
    }
}
