//! Which files there are, and the time that each covers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use chrono::NaiveDateTime;

use super::archive::{self, Archive};
use super::calendar::Calendar;
use super::journal::{self, Described, IN, OUT};
use super::rows;
use crate::model::columns::{Columns, JOURNAL};
use crate::model::interval::{Period, UnixNanos};
use crate::model::row::Row;

/// The files of one host: those of one directory.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: String,
    /// In the order of their time, each once, whether it is archived or not.
    pub(crate) files: Vec<File>,
    pub(crate) archives: Vec<Archive>,
    /// Files whose names are not those of acctd's.
    pub(crate) others: Vec<PathBuf>,
}

/// A CSV file, or what an archive has of it.
#[derive(Clone, Debug)]
pub(crate) struct File {
    /// The CSV file. If it is archived, it may have been deleted.
    pub(crate) path: PathBuf,
    pub(crate) period: Period,
    /// `None` if no line of the journal describes it.
    pub(crate) described: Option<Described>,
    /// Its archive in [`Host::archives`], and its number there.
    pub(crate) archived: Option<(usize, usize)>,
}

impl File {
    /// Calls `each` for each row of its text; an error if it is not as its line in the journal says. Returns which columns it
    /// has, and the number of rows.
    pub(crate) fn read_rows(
        &self,
        text: &[u8],
        mut each: impl FnMut(&Row),
    ) -> Result<(Columns, u64)> {
        let mut bytes = [0_u64; 2];
        let (columns, n_rows) = rows::read(text, |row| {
            bytes[IN] += row.dest.bytes;
            bytes[OUT] += row.source.bytes;
            each(row);
            Ok(())
        })?;
        if let Some(described) = &self.described {
            described.check(n_rows, bytes)?;
        }
        Ok((columns, n_rows))
    }
}

impl Host {
    /// All files of the directory. A name without a line in the journal is a time in this zone.
    pub(crate) fn read(directory: &Path, calendar: &Calendar) -> Result<Self> {
        let shown = directory.display();
        let name = directory.canonicalize();
        let mut names = names(directory)?;
        names.sort_unstable();
        let mut host = Self {
            name: name
                .with_context(|| format!("cannot read the directory {shown}"))?
                .file_name()
                .map_or_else(
                    || shown.to_string(),
                    |name| name.to_string_lossy().into_owned(),
                ),
            files: Vec::new(),
            archives: Vec::new(),
            others: Vec::new(),
        };
        let mut archived: HashMap<String, u64> = HashMap::new();
        for name in names.iter().filter(|name| archive::is_name(name)) {
            let archive = Archive::open(&directory.join(name))?;
            for (number, file) in archive.files.iter().enumerate() {
                archived.insert(file.name.clone(), file.size);
                host.files.push(File {
                    path: directory.join(&file.name),
                    period: file.period,
                    described: file.described.clone(),
                    archived: Some((host.archives.len(), number)),
                });
            }
            host.archives.push(archive);
        }
        let mut described = journal::read(&directory.join(JOURNAL))?;
        for name in names.iter().filter(|name| !archive::is_name(name)) {
            let path = directory.join(name);
            let extension = path.extension().unwrap_or_default();
            let stem = (extension == "csv").then(|| Stem::parse(name)).flatten();
            let Some(stem) = stem else {
                if ["csv", archive::EXTENSION]
                    .iter()
                    .any(|it| extension == *it)
                {
                    host.others.push(path);
                }
                continue;
            };
            if let Some(size) = archived.get(name) {
                ensure!(
                    fs::metadata(&path)?.len() == *size,
                    "{} is not the file that was archived under this name: move it",
                    path.display()
                );
                continue;
            }
            let described = described.remove(name);
            let period = match &described {
                Some(described) => described.period,
                None => stem.period(calendar)?,
            };
            host.files.push(File {
                path,
                period,
                described,
                archived: None,
            });
        }
        ensure!(
            !host.files.is_empty(),
            "{shown} has no file of acctd's (START_END.csv)"
        );
        host.files
            .sort_by(|a, b| (a.period.start, &a.path).cmp(&(b.period.start, &b.path)));
        Ok(host)
    }
}

/// Of the files in a directory that are not hidden.
pub(crate) fn names(directory: &Path) -> Result<Vec<String>> {
    let failed = || format!("cannot read the directory {}", directory.display());
    let entries = fs::read_dir(directory).with_context(failed)?;
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.with_context(failed)?.file_name();
        names.extend(
            name.to_str()
                .filter(|name| !name.starts_with('.'))
                .map(str::to_owned),
        );
    }
    Ok(names)
}

/// The times in the name of a file.
pub(crate) struct Stem {
    start: NaiveDateTime,
    end: NaiveDateTime,
    /// `-1` and so on, of a name that was taken.
    repeated: u32,
}

impl Stem {
    pub(crate) fn parse(name: &str) -> Option<Self> {
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

    pub(crate) fn period(&self, calendar: &Calendar) -> Result<Period> {
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
pub(crate) fn usual_length(hosts: &[Host]) -> i64 {
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
pub(crate) fn covered(hosts: &[Host]) -> Result<Period> {
    let files = || hosts.iter().flat_map(|host| &host.files);
    let start = files().map(|it| it.period.start).min();
    let end = files().map(|it| it.period.end).max();
    match (start, end) {
        (Some(start), Some(end)) => Ok(Period { start, end }),
        _ => bail!("there are no files"),
    }
}

/// The times in `whole` that no file of the host covers.
pub(crate) fn holes(host: &Host, whole: Period) -> Vec<Period> {
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
            archived: None,
        };
        Host {
            name: "r1".into(),
            files: periods.iter().map(file).collect(),
            archives: Vec::new(),
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
