//! Which files make which sample, in which part of the report, and where files are missing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};

use crate::cli::report::{Missing, Part};
use crate::files::calendar::Calendar;
use crate::files::directory::{File, Host, holes};
use crate::files::journal::{ByDirection, Loss};
use crate::model::interval::{Period, UnixNanos};

/// The default length of a sample, unless intervals are longer: what contracts take.
const FIVE_MINUTES: i64 = 300_000_000_000;

/// A part of the report's period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) period: Period,
    /// How many samples it has, whether there are files for them or not.
    pub(super) n_samples: u64,
    /// The number of its first sample.
    pub(super) first: u32,
}

/// A plot has about so many points, each of one sample or more.
const POINTS: u64 = 480;

impl Span {
    /// How many samples a point of a plot has.
    pub(super) fn samples_per_point(&self) -> u32 {
        u32::try_from(self.n_samples.div_ceil(POINTS).max(1)).unwrap_or(u32::MAX)
    }

    /// The point of a sample.
    pub(super) fn point(&self, number: u32) -> u32 {
        number.saturating_sub(self.first) / self.samples_per_point()
    }
}

/// Files whose counts are one sample.
#[derive(Debug)]
pub(super) struct Sample<'f> {
    /// Counted from the first of the whole period.
    pub(super) number: u32,
    pub(super) span: usize,
    /// In `Plan::days`.
    pub(super) day: usize,
    /// With the numbers of their hosts.
    pub(super) files: Vec<(usize, &'f File)>,
    /// Whether it counts for percentiles.
    pub(super) is_counted: bool,
}

#[derive(Debug)]
pub(super) struct Plan<'f> {
    pub(super) whole: Period,
    /// The length of a sample, in nanoseconds.
    pub(super) length: i64,
    pub(super) spans: Vec<Span>,
    pub(super) samples: Vec<Sample<'f>>,
    /// The calendar days of the period.
    pub(super) days: Vec<(String, Period)>,
    /// Samples of which files are missing, or of which it is not known what was logged: by sample and host.
    pub(super) missing: BTreeMap<(u32, usize), Loss>,
    /// Files that begin in the period and end after it, or the other way round.
    pub(super) n_across: usize,
}

/// The length of a sample: what was asked for, or five minutes, or an interval if that is longer.
pub(super) fn sample_length(asked: Option<i64>, interval: i64) -> Result<i64> {
    // The shortest that has five minutes.
    let usual = || -(-FIVE_MINUTES).div_euclid(interval.max(1)) * interval;
    let length = asked.unwrap_or_else(usual);
    ensure!(
        interval > 0 && length % interval == 0,
        "--sample must be a multiple of the files' interval, which is {} s",
        interval / 1_000_000_000
    );
    Ok(length)
}

impl<'f> Plan<'f> {
    pub(super) fn new(
        hosts: &'f [Host],
        whole: Period,
        part: Option<Part>,
        calendar: &Calendar,
        length: i64,
        missing: Missing,
    ) -> Result<Self> {
        let grid = Grid { whole, length };
        let periods = match part {
            Some(part) => calendar.parts(whole, part, length)?,
            None => vec![(String::new(), whole)],
        };
        let mut spans: Vec<Span> = periods
            .into_iter()
            .map(|(name, period)| {
                let first = grid.first_of(period);
                let n_samples = u64::from(grid.first_after(period.end) - first);
                Span {
                    name,
                    period,
                    n_samples,
                    first,
                }
            })
            .collect();
        let mut plan = Self {
            whole,
            length,
            spans: Vec::new(),
            samples: Vec::new(),
            days: calendar.parts(whole, Part::Day, length)?,
            missing: BTreeMap::new(),
            n_across: 0,
        };
        let mut by_sample: BTreeMap<u32, Vec<(usize, &File)>> = BTreeMap::new();
        for (host, of_host) in hosts.iter().enumerate() {
            for file in &of_host.files {
                let is_in = whole.start <= file.period.start && file.period.start < whole.end;
                let ends_in = whole.start < file.period.end && file.period.end <= whole.end;
                plan.n_across +=
                    usize::from(is_in != ends_in && file.period.start < file.period.end);
                if is_in {
                    by_sample
                        .entry(grid.number(file.period.start)?)
                        .or_default()
                        .push((host, file));
                }
                let gaps = file.described.iter().flat_map(|it| &it.gaps);
                for (period, groups) in gaps {
                    plan.note_missing(&grid, host, *period, *groups)?;
                }
            }
            for hole in holes(of_host, whole) {
                plan.note_missing(&grid, host, hole, [[true; 2]; 2])?;
            }
        }
        let mut skipped: BTreeSet<u32> = BTreeSet::new();
        match missing {
            Missing::Bound => {}
            Missing::Zero => plan.missing.clear(),
            Missing::Skip => {
                skipped = plan.missing.keys().map(|(number, _)| *number).collect();
                plan.missing.clear();
            }
        }
        for number in &skipped {
            let span = span_of(&spans, *number);
            spans[span].n_samples -= 1;
        }
        let days = &plan.days;
        plan.samples = by_sample
            .into_iter()
            .map(|(number, files)| Sample {
                number,
                span: span_of(&spans, number),
                day: days.partition_point(|(_, day)| day.end <= grid.start(number)),
                files,
                is_counted: !skipped.contains(&number),
            })
            .collect();
        plan.spans = spans;
        Ok(plan)
    }

    /// Where a sample begins, in the period.
    pub(super) fn start_of(&self, number: u32) -> UnixNanos {
        let (whole, length) = (self.whole, self.length);
        Grid { whole, length }.start(number)
    }

    fn note_missing(
        &mut self,
        grid: &Grid,
        host: usize,
        period: Period,
        groups: ByDirection<bool>,
    ) -> Result<()> {
        let start = period.start.max(grid.whole.start);
        let end = period.end.min(grid.whole.end);
        if start >= end {
            return Ok(());
        }
        for number in grid.number(start)?..=grid.number(UnixNanos(end.0 - 1))? {
            let loss = Loss {
                is_unbounded: groups,
                ..Loss::default()
            };
            self.missing.entry((number, host)).or_default().add(&loss);
        }
        Ok(())
    }
}

/// Samples that follow each other.
pub(super) enum Stretch<'s, 'f> {
    /// Without archives.
    Files(&'s [Sample<'f>]),
    /// All samples of some archives.
    Archived(&'s [Sample<'f>]),
}

/// Divides the samples, so that each archive is read once.
pub(super) fn stretches<'s, 'f>(samples: &'s [Sample<'f>]) -> Vec<Stretch<'s, 'f>> {
    let archives = |sample: &'s Sample<'f>| {
        let files = sample.files.iter();
        files.filter_map(|(host, file)| Some((*host, file.archived?.0)))
    };
    let mut last: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (at, sample) in samples.iter().enumerate() {
        last.extend(archives(sample).map(|archive| (archive, at)));
    }
    let end_of = |sample| archives(sample).map(|it| last[&it] + 1).max();
    let mut stretches = Vec::new();
    let mut at = 0;
    while at < samples.len() {
        let start = at;
        if let Some(mut end) = end_of(&samples[at]) {
            while at < end {
                end = end.max(end_of(&samples[at]).unwrap_or(0));
                at += 1;
            }
            stretches.push(Stretch::Archived(&samples[start..end]));
        } else {
            while at < samples.len() && end_of(&samples[at]).is_none() {
                at += 1;
            }
            stretches.push(Stretch::Files(&samples[start..at]));
        }
    }
    stretches
}

/// The part in which a sample begins.
fn span_of(spans: &[Span], number: u32) -> usize {
    spans
        .partition_point(|span| span.first <= number)
        .saturating_sub(1)
}

/// Samples are multiples of their length in Unix time, as intervals are.
struct Grid {
    whole: Period,
    length: i64,
}

impl Grid {
    fn number(&self, at: UnixNanos) -> Result<u32> {
        let first = self.whole.start.0.div_euclid(self.length);
        Ok(u32::try_from(at.0.div_euclid(self.length) - first)?)
    }

    /// Where a sample begins, in the period.
    fn start(&self, number: u32) -> UnixNanos {
        let first = self.whole.start.0.div_euclid(self.length);
        UnixNanos((first + i64::from(number)) * self.length).max(self.whole.start)
    }

    /// The number of the first sample that begins in a part, or would if it had one.
    fn first_of(&self, part: Period) -> u32 {
        if part.start == self.whole.start {
            return 0;
        }
        self.first_after(part.start)
    }

    /// The number of the first sample that does not begin before this.
    fn first_after(&self, at: UnixNanos) -> u32 {
        let number = -(-at.0).div_euclid(self.length) - self.whole.start.0.div_euclid(self.length);
        u32::try_from(number).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn period(start: i64, end: i64) -> Period {
        Period {
            start: UnixNanos(start * MINUTE),
            end: UnixNanos(end * MINUTE),
        }
    }

    fn host(minutes: &[(i64, i64)]) -> Host {
        let file = |&(start, end): &(i64, i64)| File {
            path: PathBuf::new(),
            period: period(start, end),
            described: None,
            archived: None,
        };
        Host {
            name: "r1".into(),
            files: minutes.iter().map(file).collect(),
            archives: Vec::new(),
            others: Vec::new(),
        }
    }

    fn plan(hosts: &[Host], whole: Period, missing: Missing) -> Plan<'_> {
        let utc = Calendar::of(Some("UTC")).unwrap();
        Plan::new(hosts, whole, Some(Part::Hour), &utc, 5 * MINUTE, missing).unwrap()
    }

    #[test]
    fn files_of_a_sample_are_together_and_missing_ones_are_known() {
        // One-minute files, of which two are missing, on two hosts; the second has nothing in the second hour.
        let minutes = |from: i64, to: i64| (from..to).map(|it| (it, it + 1)).collect::<Vec<_>>();
        let mut first = minutes(0, 120);
        first.remove(62);
        first.remove(7);
        let hosts = [host(&first), host(&minutes(0, 60))];
        let planned = plan(&hosts, period(0, 120), Missing::Bound);
        let spans: Vec<(&str, u64)> = planned
            .spans
            .iter()
            .map(|it| (it.name.as_str(), it.n_samples))
            .collect();
        assert_eq!(spans, [("1970-01-01 00:00", 12), ("1970-01-01 01:00", 12)]);
        let sizes: Vec<usize> = planned.samples.iter().map(|it| it.files.len()).collect();
        assert_eq!(
            (planned.samples.len(), sizes[0], sizes[1], sizes[12]),
            (24, 10, 9, 4)
        );
        assert_eq!((planned.samples[11].span, planned.samples[12].span), (0, 1));
        let missing: Vec<(u32, usize)> = planned.missing.keys().copied().collect();
        assert_eq!(missing.len(), 2 + 12);
        assert!(
            missing.contains(&(1, 0)) && missing.contains(&(12, 0)) && missing.contains(&(23, 1))
        );
        let skipping = plan(&hosts, period(0, 120), Missing::Skip);
        assert_eq!(
            (skipping.spans[0].n_samples, skipping.spans[1].n_samples),
            (11, 0)
        );
        assert!(
            skipping.missing.is_empty()
                && !skipping.samples[1].is_counted
                && skipping.samples[0].is_counted
        );
        assert!(
            plan(&hosts, period(0, 120), Missing::Zero)
                .missing
                .is_empty()
        );
    }

    #[test]
    fn a_file_belongs_to_where_it_begins() {
        let hosts = [host(&[(0, 5), (5, 10), (10, 15)])];
        let planned = plan(&hosts, period(3, 12), Missing::Bound);
        assert_eq!((planned.samples.len(), planned.n_across), (2, 2));
        assert_eq!(planned.spans[0].n_samples, 3);
    }

    #[test]
    fn a_sample_is_five_minutes_or_an_interval_that_is_longer() {
        assert_eq!(sample_length(None, MINUTE).unwrap(), 5 * MINUTE);
        assert_eq!(sample_length(None, 60 * MINUTE).unwrap(), 60 * MINUTE);
        assert_eq!(
            sample_length(Some(10 * MINUTE), 5 * MINUTE).unwrap(),
            10 * MINUTE
        );
        assert!(sample_length(Some(MINUTE), 5 * MINUTE).is_err());
        assert_eq!(sample_length(None, 2 * MINUTE).unwrap(), 6 * MINUTE);
    }
}
