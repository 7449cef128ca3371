//! Times as text: in rows, file names, `intervals.jsonl` and the log. The first two as in go-nflog-acctd.

use chrono::{DateTime, Local, TimeZone, Utc};

use crate::model::interval::{Period, UnixNanos};

/// The zone in which times are written. Intervals do not depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The machine's zone, as in go-nflog-acctd.
    Local,
    /// UTC. In local time, names repeat when summer time ends; in UTC they do not.
    Utc,
    /// For tests that do not depend on the machine's zone.
    #[cfg(test)]
    Named(chrono_tz::Tz),
}

impl Zone {
    /// The `Time` column: `YYYY-MM-DD HH:MM:SS`.
    #[must_use]
    pub fn row_time(self, time: UnixNanos) -> String {
        self.format(time, "%Y-%m-%d %H:%M:%S")
    }

    /// A file's name without its extension: `START_END`, both `YYYY-MM-DD-HHMMSS`.
    #[must_use]
    pub fn file_stem(self, period: Period) -> String {
        let layout = "%Y-%m-%d-%H%M%S";
        format!(
            "{}_{}",
            self.format(period.start, layout),
            self.format(period.end, layout)
        )
    }

    /// RFC 3339 with the offset and microseconds.
    #[must_use]
    pub fn rfc3339(self, time: UnixNanos) -> String {
        self.format(time, "%Y-%m-%dT%H:%M:%S%.6f%:z")
    }

    /// The time of a line on stderr, as in Go's log package: `YYYY/MM/DD HH:MM:SS`.
    #[must_use]
    pub fn log_time(self, time: UnixNanos) -> String {
        self.format(time, "%Y/%m/%d %H:%M:%S")
    }

    /// The time of a line to syslog (RFC 3164): `Mmm dd HH:MM:SS`.
    #[must_use]
    pub fn syslog_time(self, time: UnixNanos) -> String {
        self.format(time, "%b %e %H:%M:%S")
    }

    fn format(self, time: UnixNanos, layout: &str) -> String {
        match self {
            Self::Local => format(&Local, time, layout),
            Self::Utc => format(&Utc, time, layout),
            #[cfg(test)]
            Self::Named(zone) => format(&zone, time, layout),
        }
    }
}

fn format<Z: TimeZone>(zone: &Z, time: UnixNanos, layout: &str) -> String
where
    Z::Offset: std::fmt::Display,
{
    // Never the default: chrono's range is 262,000 years, that of UnixNanos 584.
    let (seconds, nanos) = time.seconds_and_nanos();
    let time: DateTime<Utc> = DateTime::from_timestamp(seconds, nanos).unwrap_or_default();
    time.with_timezone(zone).format(layout).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn times_are_written_as_by_go_nflog_acctd() {
        // The sample row and file name of go-nflog-acctd's manual.
        let period = Period {
            start: UnixNanos(1_360_594_800 * SECOND + 7),
            end: UnixNanos(1_360_598_400 * SECOND),
        };
        assert_eq!(Zone::Utc.row_time(period.start), "2013-02-11 15:00:00");
        assert_eq!(
            Zone::Utc.file_stem(period),
            "2013-02-11-150000_2013-02-11-160000"
        );
        assert_eq!(
            Zone::Utc.rfc3339(period.start),
            "2013-02-11T15:00:00.000000+00:00"
        );
        assert_eq!(Zone::Utc.log_time(period.start), "2013/02/11 15:00:00");
    }

    #[test]
    fn local_names_repeat_when_summer_time_ends() {
        let berlin = Zone::Named(chrono_tz::Europe::Berlin);
        let hour = |n: i64| Period {
            start: UnixNanos((1_792_889_000 / 3_600 + n) * 3_600 * SECOND),
            end: UnixNanos((1_792_889_000 / 3_600 + n + 1) * 3_600 * SECOND),
        };
        // 2026-10-25: 02:00 to 03:00 comes twice.
        let names: Vec<String> = (0..4).map(|n| berlin.file_stem(hour(n))).collect();
        assert_eq!(names[0], "2026-10-25-020000_2026-10-25-020000");
        assert_eq!(names[1], "2026-10-25-020000_2026-10-25-030000");
    }
}
