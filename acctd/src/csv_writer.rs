//! Rows → a CSV file, in the seed's format, complete or absent.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use acctd_common::Counters;
use log::warn;
use rustix::fs::{CWD, RenameFlags};

use crate::prefix::go_ip_text;
use crate::rows::Row;

const HEADER: [&str; 6] = [
    "Time",
    "IP",
    "SourceBytes",
    "SourcePackets",
    "DestBytes",
    "DestPackets",
];
/// Behind the others, with a cross-check.
const CROSS_CHECK_HEADER: [&str; 5] = [
    "TcSourceBytes",
    "TcSourcePackets",
    "TcDestBytes",
    "TcDestPackets",
    "Verdict",
];

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileTotals {
    /// Rows, the header not counted.
    pub rows: u64,
    /// The sum of the source columns.
    pub source: Counters,
    /// The sum of the destination columns.
    pub dest: Counters,
    /// The sum of the cross-check's source columns.
    pub tc_source: Counters,
    /// The sum of the cross-check's destination columns.
    pub tc_dest: Counters,
}

/// Writes header and rows; `time` is the first column of each. Rows have the cross-check's part if
/// and only if `with_crosscheck`.
pub fn write_rows(
    target: impl Write,
    time: &str,
    rows: impl Iterator<Item = Row>,
    with_crosscheck: bool,
) -> io::Result<FileTotals> {
    let mut csv = csv::WriterBuilder::new()
        .buffer_capacity(64 * 1024)
        .from_writer(target);
    let more: &[&str] = if with_crosscheck {
        &CROSS_CHECK_HEADER
    } else {
        &[]
    };
    csv.write_record(HEADER.iter().chain(more))?;
    let mut totals = FileTotals::default();
    let mut address = String::new();
    let mut digits = itoa::Buffer::new();
    for row in rows {
        address.clear();
        // Writing to a String cannot fail.
        let _infallible = write!(address, "{}", go_ip_text(row.address));
        csv.write_field(time)?;
        csv.write_field(&address)?;
        let mut write_counters = |csv: &mut csv::Writer<_>, source: Counters, dest: Counters| {
            [source.bytes, source.packets, dest.bytes, dest.packets]
                .into_iter()
                .try_for_each(|number| csv.write_field(digits.format(number)))
        };
        write_counters(&mut csv, row.source, row.dest)?;
        if let Some(kernel) = row.kernel {
            write_counters(&mut csv, kernel.source, kernel.dest)?;
            csv.write_field(kernel.verdict.text())?;
            totals.tc_source.add(kernel.source);
            totals.tc_dest.add(kernel.dest);
        }
        csv.write_record(None::<&[u8]>)?;
        totals.rows += 1;
        totals.source.add(row.source);
        totals.dest.add(row.dest);
    }
    csv.flush()?;
    Ok(totals)
}

/// Makes a log directory with its parents, mode 0750 as the seed does.
pub fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
}

/// Makes `directory/STEM.csv` appear at once and whole: `write` fills `STEM.tmp`, that is synced
/// and renamed, and so is the directory. Where the name is taken, `-1`, `-2` … goes before the ending: nothing is ever
/// replaced. Returns the name; on an error nothing is left behind.
pub fn create_whole<T>(
    directory: &Path,
    stem: &str,
    write: impl FnOnce(&File) -> io::Result<T>,
) -> io::Result<(String, T)> {
    let (tmp, file) = create_temporary(directory, stem)?;
    let tmp = directory.join(tmp);
    let written = write(&file).and_then(|written| {
        file.sync_all()?;
        let name = rename_to_free_name(directory, &tmp, stem)?;
        Ok((name, written))
    });
    match &written {
        Ok((name, _)) => {
            // The file is there, so a second try would double it: this can only be said.
            if let Err(error) = sync_directory(directory) {
                warn!("{name} may not outlast a power cut: {error}");
            }
        }
        // Half a file only takes space on a disk that may be full; the error to report is the first.
        Err(_) => {
            let _already_failing = fs::remove_file(&tmp);
        }
    }
    written
}

/// Makes a rename in `directory` last over a power cut.
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A temporary file that was there before belongs to another process or to a crash: not ours.
fn create_temporary(directory: &Path, stem: &str) -> io::Result<(String, File)> {
    for name in free_names(stem, "tmp") {
        match File::create_new(directory.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(file) => return Ok((name, file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn rename_to_free_name(directory: &Path, from: &Path, stem: &str) -> io::Result<String> {
    for name in free_names(stem, "csv") {
        match rename_without_replacing(from, &directory.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// `STEM.ending`, `STEM-1.ending`, …
fn free_names(stem: &str, ending: &str) -> impl Iterator<Item = String> {
    (0..u32::MAX).map(move |n| match n {
        0 => format!("{stem}.{ending}"),
        n => format!("{stem}-{n}.{ending}"),
    })
}

fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network and FUSE file systems lack it. A hard link does not replace either.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            fs::hard_link(from, to)?;
            // The file is there, so this try has succeeded; a second would double it.
            let _spare_name_stays = fs::remove_file(from);
            Ok(())
        }
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        fs::write(directory.join("a.csv"), "older").unwrap();
        fs::write(directory.join("a.tmp"), "somebody's").unwrap();
        for expected in ["a-1.csv", "a-2.csv"] {
            let (name, ()) =
                create_whole(directory, "a", |mut file| file.write_all(b"new")).unwrap();
            assert_eq!(name, expected);
        }
        assert_eq!(names(directory), ["a-1.csv", "a-2.csv", "a.csv", "a.tmp"]);
        assert_eq!(fs::read(directory.join("a.csv")).unwrap(), b"older");
        assert_eq!(fs::read(directory.join("a-2.csv")).unwrap(), b"new");
        assert_eq!(fs::read(directory.join("a.tmp")).unwrap(), b"somebody's");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let full = |_: &File| Err::<(), _>(io::ErrorKind::StorageFull.into());
        let error = create_whole(directory.path(), "a", full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(names(directory.path()), [""; 0]);
    }
}
