//! Calendar days and months in a time zone, and the parts that a report divides them into. Pure, apart from the zone's
//! file.

use anyhow::{Context as _, Result, anyhow, bail};
use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveDateTime, NaiveTime};
use tz::TimeZone;

use crate::cli::report::{Month, Part, When};
use crate::model::interval::{Period, UnixNanos};

const NANOS: i64 = 1_000_000_000;

/// A day of UTC: 2026-11-29.
pub(crate) fn utc_day(at: UnixNanos) -> String {
    let date = DateTime::from_timestamp(at.seconds_and_nanos().0, 0).unwrap_or_default();
    date.format("%Y-%m-%d").to_string()
}

/// A zone whose days and months are meant.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    name: String,
    zone: TimeZone,
}

impl Calendar {
    /// By the name of a zone, as in /usr/share/zoneinfo; `None` is the machine's (`TZ` or /etc/localtime).
    pub(crate) fn of(zone: Option<&str>) -> Result<Self> {
        let text = match zone {
            Some(name) => name.to_owned(),
            None => std::env::var("TZ").unwrap_or_else(|_unset| "localtime".to_owned()),
        };
        let zone = match text.as_str() {
            // As the C library takes it.
            "" => Ok(TimeZone::utc()),
            text => TimeZone::from_posix_tz(text),
        };
        // A machine without a zone has UTC.
        match zone {
            Err(_) if text == "localtime" => Ok(Self { name: "UTC".into(), zone: TimeZone::utc() }),
            zone => zone.map(|zone| Self { name: text.clone(), zone }).map_err(|error| {
                anyhow!("{text:?} is not a time zone: {error}; see /usr/share/zoneinfo (package tzdata)")
            }),
        }
    }

    /// The moment at which a clock there shows this: the first of two, and the next if it is skipped.
    fn moment(&self, at: NaiveDateTime) -> Result<UnixNanos> {
        self.nth_moment(at, 0)
    }

    /// The same, but if `n` is above 0 and the clock shows it twice, the second.
    pub(crate) fn nth_moment(&self, at: NaiveDateTime, n: u32) -> Result<UnixNanos> {
        // No zone is further from UTC than a day.
        let wanted = at.and_utc().timestamp();
        let offset = |unix| {
            self.zone
                .find_local_time_type(unix)
                .map(|it| i64::from(it.ut_offset()))
        };
        let before = offset(wanted - 86_400)?;
        let after = offset(wanted + 86_400)?;
        let mut found = [wanted - before, wanted - after];
        found.sort_unstable();
        let mut shown = Vec::new();
        for unix in found {
            if unix + offset(unix)? == wanted {
                shown.push(unix);
            }
        }
        let wanted_one = if n == 0 { shown.first() } else { shown.last() };
        if let Some(unix) = wanted_one {
            return Ok(UnixNanos(unix * NANOS));
        }
        // Skipped: the clock goes from before to after it at a transition between both.
        let (mut low, mut high) = (found[0] - 1, found[1] + 1);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if middle + offset(middle)? < wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        Ok(UnixNanos(high * NANOS))
    }

    /// What a clock there shows.
    pub(crate) fn shown(&self, at: UnixNanos) -> Result<NaiveDateTime> {
        let (unix, _) = at.seconds_and_nanos();
        let offset = i64::from(self.zone.find_local_time_type(unix)?.ut_offset());
        let shown =
            DateTime::from_timestamp(unix + offset, 0).context("a time that no calendar has")?;
        Ok(shown.naive_utc())
    }

    pub(crate) fn month(&self, month: Month) -> Result<Period> {
        let next = month
            .0
            .checked_add_months(Months::new(1))
            .context("the month has no end")?;
        Ok(Period {
            start: self.midnight(month.0)?,
            end: self.midnight(next)?,
        })
    }

    /// The month before the one of `now`.
    pub(crate) fn last_month(&self, now: UnixNanos) -> Result<Month> {
        let this = self.shown(now)?.date().with_day(1).context("a first day")?;
        let last = this
            .checked_sub_months(Months::new(1))
            .context("no month is earlier")?;
        Ok(Month(last))
    }

    /// Between both, of which each may be left out.
    pub(crate) fn between(
        &self,
        from: Option<When>,
        to: Option<When>,
        covered: Period,
    ) -> Result<Period> {
        let start = from.map_or(Ok(covered.start), |from| self.moment(from.0))?;
        let end = to.map_or(Ok(covered.end), |to| self.moment(to.0))?;
        if let (Some(from), Some(to)) = (from, to)
            && start >= end
        {
            bail!("--to ({to}) must be later than --from ({from}); a day begins at its midnight");
        }
        Ok(Period { start, end })
    }

    /// As `--zone` has it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// `2026-11-01 00:00:00`.
    pub(crate) fn text(&self, at: UnixNanos) -> Result<String> {
        Ok(self.shown(at)?.format("%Y-%m-%d %H:%M:%S").to_string())
    }

    fn midnight(&self, day: NaiveDate) -> Result<UnixNanos> {
        self.moment(day.and_time(NaiveTime::MIN))
    }

    /// The parts that cover `whole`, each with its name. The first and the last may be cut off by it.
    pub(crate) fn parts(
        &self,
        whole: Period,
        part: Part,
        sample: i64,
    ) -> Result<Vec<(String, Period)>> {
        let mut parts = Vec::new();
        let mut start = whole.start;
        while start < whole.end {
            let (name, end) = self.part_at(start, part, sample)?;
            let end = end.min(whole.end);
            parts.push((name, Period { start, end }));
            start = end;
        }
        Ok(parts)
    }

    /// The name and the end of the part with this moment.
    fn part_at(&self, at: UnixNanos, part: Part, sample: i64) -> Result<(String, UnixNanos)> {
        let shown = self.shown(at)?;
        let day = shown.date();
        let after = |days| {
            day.checked_add_days(Days::new(days))
                .context("no day is later")
        };
        Ok(match part {
            Part::Month => {
                let first = day.with_day(1).context("a first day")?;
                (
                    format!("{}", first.format("%Y-%m")),
                    self.month(Month(first))?.end,
                )
            }
            Part::Week => {
                let monday = u64::from(day.weekday().num_days_from_monday());
                (
                    format!("{}", day.format("%G-W%V")),
                    self.midnight(after(7 - monday)?)?,
                )
            }
            Part::Day => (day.to_string(), self.midnight(after(1)?)?),
            // An hour of the zone's; where the clock changes by less, parts are shorter.
            Part::Hour => {
                let (unix, _) = at.seconds_and_nanos();
                let into = i64::from(self.zone.find_local_time_type(unix)?.ut_offset()) + unix;
                let end = unix + 3_600 - into.rem_euclid(3_600);
                (
                    format!("{}", shown.format("%Y-%m-%d %H:00")),
                    UnixNanos(end * NANOS),
                )
            }
            Part::Interval => {
                let end = (at.0.div_euclid(sample) + 1) * sample;
                (
                    format!("{}", shown.format("%Y-%m-%d %H:%M:%S")),
                    UnixNanos(end),
                )
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600 * NANOS;

    fn berlin() -> Calendar {
        Calendar::of(Some("Europe/Berlin")).unwrap()
    }

    fn hours(period: Period) -> i64 {
        assert_eq!((period.end.0 - period.start.0) % HOUR, 0);
        (period.end.0 - period.start.0) / HOUR
    }

    #[test]
    fn a_month_is_one_of_the_zone() {
        let hours_of = |calendar: &Calendar, month: &str| {
            hours(calendar.month(month.parse().unwrap()).unwrap())
        };
        let berlin = berlin();
        assert_eq!(hours_of(&berlin, "2026-01"), 744);
        assert_eq!(hours_of(&berlin, "2026-02"), 672);
        assert_eq!(hours_of(&berlin, "2028-02"), 696);
        assert_eq!(hours_of(&berlin, "2026-03"), 743);
        assert_eq!(hours_of(&berlin, "2026-10"), 745);
        let utc = Calendar::of(Some("UTC")).unwrap();
        assert_eq!(hours_of(&utc, "2026-03"), 744);
        // 2026-11-01 00:00 in Berlin is an hour before that in UTC.
        let start =
            |calendar: &Calendar| calendar.month("2026-11".parse().unwrap()).unwrap().start.0;
        assert_eq!(start(&utc) - start(&berlin), HOUR);
        for bad in ["2026", "2026-13", "2026-1", "11-2026", "2026-11-01"] {
            assert!(bad.parse::<Month>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_that_the_clock_skips_is_when_it_goes_on_and_one_that_it_repeats_is_the_first() {
        let berlin = berlin();
        let at = |text: &str| berlin.moment(text.parse::<When>().unwrap().0).unwrap().0 / NANOS;
        // 2026-03-29 01:00 UTC, and 2026-10-25 00:30 UTC.
        assert_eq!(at("2026-03-29 02:30"), 1_774_746_000);
        assert_eq!(at("2026-03-29 03:00"), 1_774_746_000);
        assert_eq!(at("2026-10-25 02:30"), 1_792_888_200);
        for bad in ["", "tomorrow", "2026-02-30", "2026-11-01 25:00"] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_cover_the_period_without_gap_or_overlap() {
        let berlin = berlin();
        let october = berlin.month("2026-10".parse().unwrap()).unwrap();
        for (part, n, first, last) in [
            (Part::Month, 1, "2026-10", "2026-10"),
            (Part::Week, 5, "2026-W40", "2026-W44"),
            (Part::Day, 31, "2026-10-01", "2026-10-31"),
            (Part::Hour, 745, "2026-10-01 00:00", "2026-10-31 23:00"),
            (
                Part::Interval,
                745 * 12,
                "2026-10-01 00:00:00",
                "2026-10-31 23:55:00",
            ),
        ] {
            let parts = berlin.parts(october, part, 300 * NANOS).unwrap();
            assert_eq!(
                (parts.len(), &*parts[0].0, &*parts[n - 1].0),
                (n, first, last)
            );
            assert_eq!(
                (parts[0].1.start, parts[n - 1].1.end),
                (october.start, october.end)
            );
            assert!(
                parts
                    .windows(2)
                    .all(|pair| pair[0].1.end == pair[1].1.start)
            );
        }
    }

    #[test]
    fn a_zone_that_is_none_is_an_error() {
        assert!(Calendar::of(Some("Europe/Atlantis")).is_err());
    }
}
