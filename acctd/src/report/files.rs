//! Which files there are, and the time that each covers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::NaiveDateTime;

use super::journal::{self, Described};
use super::period::Calendar;
use crate::model::interval::{Period, UnixNanos};
use crate::output::journal::FILE_NAME;

/// The files of one host: those of one directory.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    /// In the order of their time.
    pub(super) files: Vec<File>,
    /// Files whose names are not those of acctd's.
    pub(super) others: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) period: Period,
    /// `None` if no line of the journal describes it.
    pub(super) described: Option<Described>,
}

impl Host {
    /// All files of the directory. A name without a line in the journal is a time in this zone.
    pub(super) fn read(directory: &Path, calendar: &Calendar) -> Result<Self> {
        let shown = directory.display();
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot read the directory {shown}"))?;
        let mut described = journal::read(&directory.join(FILE_NAME))?;
        let mut files = Vec::new();
        let mut others = Vec::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot read the directory {shown}"))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            if Path::new(name).extension() != Some("csv".as_ref()) {
                continue;
            }
            let path = entry.path();
            let Some(stem) = Stem::parse(name) else {
                others.push(path);
                continue;
            };
            let described = described.remove(name);
            let period = match &described {
                Some(described) => described.period,
                None => stem.period(calendar)?,
            };
            files.push(File {
                path,
                period,
                described,
            });
        }
        ensure!(
            !files.is_empty(),
            "{shown} has no file of acctd's (START_END.csv)"
        );
        files.sort_by(|a, b| (a.period.start, &a.path).cmp(&(b.period.start, &b.path)));
        let name = directory.canonicalize()?;
        let name = name.file_name().map_or_else(
            || shown.to_string(),
            |name| name.to_string_lossy().into_owned(),
        );
        Ok(Self {
            name,
            files,
            others,
        })
    }
}

/// The times in a name.
struct Stem {
    start: NaiveDateTime,
    end: NaiveDateTime,
    /// `-1` and so on, of a name that was taken.
    repeated: u32,
}

impl Stem {
    fn parse(name: &str) -> Option<Self> {
        const LENGTH: usize = "2006-01-02-150405".len();
        let stem = name.strip_suffix(".csv")?;
        let time = |text: &str| NaiveDateTime::parse_from_str(text, "%Y-%m-%d-%H%M%S").ok();
        let start = time(stem.get(..LENGTH)?)?;
        let rest = stem.get(LENGTH..)?.strip_prefix('_')?;
        let end = time(rest.get(..LENGTH)?)?;
        let repeated = match rest.get(LENGTH..)? {
            "" => 0,
            more => more.strip_prefix('-')?.parse().ok()?,
        };
        Some(Self {
            start,
            end,
            repeated,
        })
    }

    fn period(&self, calendar: &Calendar) -> Result<Period> {
        let start = calendar.nth_moment(self.start, self.repeated)?;
        let mut end = calendar.nth_moment(self.end, self.repeated)?;
        if end <= start {
            // The clock was set back in it.
            end = calendar.nth_moment(self.end, self.repeated + 1)?.max(start);
        }
        Ok(Period { start, end })
    }
}

/// The interval of most files, in nanoseconds.
pub(super) fn usual_length(hosts: &[Host]) -> i64 {
    let mut lengths: BTreeMap<i64, usize> = BTreeMap::new();
    for file in hosts.iter().flat_map(|host| &host.files) {
        *lengths
            .entry(file.period.end.0 - file.period.start.0)
            .or_default() += 1;
    }
    let usual = lengths.into_iter().max_by_key(|(_, n)| *n);
    usual.map_or(0, |(length, _)| length)
}

/// From the start of the first file to the end of the last.
pub(super) fn covered(hosts: &[Host]) -> Result<Period> {
    let files = || hosts.iter().flat_map(|host| &host.files);
    let start = files().map(|it| it.period.start).min();
    let end = files().map(|it| it.period.end).max();
    match (start, end) {
        (Some(start), Some(end)) => Ok(Period { start, end }),
        _ => bail!("there are no files"),
    }
}

/// The times in `whole` that no file of the host covers.
pub(super) fn holes(host: &Host, whole: Period) -> Vec<Period> {
    let mut holes = Vec::new();
    let mut known_until = whole.start;
    let mut add = |start: UnixNanos, end: UnixNanos| {
        if start < end {
            holes.push(Period { start, end });
        }
    };
    for file in &host.files {
        add(known_until, file.period.start.min(whole.end));
        known_until = known_until.max(file.period.end);
    }
    add(known_until, whole.end);
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(periods: &[(i64, i64)]) -> Host {
        let file = |&(start, end): &(i64, i64)| File {
            path: PathBuf::new(),
            period: Period {
                start: UnixNanos(start),
                end: UnixNanos(end),
            },
            described: None,
        };
        Host {
            name: "r1".into(),
            files: periods.iter().map(file).collect(),
            others: Vec::new(),
        }
    }

    #[test]
    fn holes_are_what_no_file_covers() {
        let whole = Period {
            start: UnixNanos(10),
            end: UnixNanos(50),
        };
        let holes = |periods: &[(i64, i64)]| -> Vec<(i64, i64)> {
            holes(&host(periods), whole)
                .iter()
                .map(|it| (it.start.0, it.end.0))
                .collect()
        };
        assert_eq!(holes(&[]), [(10, 50)]);
        assert_eq!(holes(&[(0, 20), (20, 60)]), []);
        assert_eq!(holes(&[(12, 20), (25, 40)]), [(10, 12), (20, 25), (40, 50)]);
        // A file in another, and one after the period.
        assert_eq!(
            holes(&[(0, 30), (5, 20), (35, 45), (70, 80)]),
            [(30, 35), (45, 50)]
        );
        assert_eq!(usual_length(&[host(&[(0, 5), (5, 10), (10, 11)])]), 5);
    }

    #[test]
    fn names_are_times_in_the_zone() {
        let berlin = Calendar::of(Some("Europe/Berlin")).unwrap();
        let period = |name: &str| Stem::parse(name).map(|it| it.period(&berlin).unwrap());
        let hour = |name: &str| {
            let period = period(name).unwrap();
            (
                period.start.0 / 3_600_000_000_000,
                (period.end.0 - period.start.0) / 1_000_000_000,
            )
        };
        // 2026-10-25 00:00 UTC, and an hour later: the clock shows the same.
        assert_eq!(
            hour("2026-10-25-020000_2026-10-25-020000.csv"),
            (498_024, 3_600)
        );
        assert_eq!(
            hour("2026-10-25-020000_2026-10-25-030000-1.csv"),
            (498_025, 3_600)
        );
        for other in [
            "customers.csv",
            "2026-10-25-020000.csv",
            "2026-10-25-020000_2026-10-25-030000-x.csv",
            "2026-13-25-020000_2026-10-25-030000.csv",
        ] {
            assert!(period(other).is_none(), "{other}");
        }
    }
}
