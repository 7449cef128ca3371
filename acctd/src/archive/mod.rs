//! `acctd archive`: the files of days that are over, in one Parquet file for each day and host.
//!
//! ```text
//!  CSV files of a day ─► write (merged by address) ─► verify (read back) ─► DAY.jsonl, DAY.parquet
//!  CSV files older than --keep ─► verify (archive, and that it is this file) ─► deleted
//! ```
//!
//! Nothing is deleted that is not in an archive that was just read back.

mod verify;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::OFlags;

use crate::cli::archive::ArchiveArgs;
use crate::fault_points::reached;
use crate::files::archive::{Archive, EXTENSION, JOURNAL_EXTENSION};
use crate::files::calendar::{Calendar, utc_day};
use crate::files::directory::{File, Host};
use crate::files::journal;
use crate::model::columns::JOURNAL;
use crate::model::human::thousands;
use crate::model::interval::UnixNanos;
use crate::output::atomic_file::free_name;
use crate::output::directory_lock::{DirectoryLock, LockError};
use crate::output::log_directory::LogDirectory;

const DAY: Duration = Duration::from_secs(86_400);
/// What is not whole yet: below it, so that a killed command leaves nothing else.
const SCRATCH: &str = ".acctd-archive";

/// Archives the days of these directories that are over.
pub fn run(args: &ArchiveArgs) -> Result<ExitCode> {
    let calendar = Calendar::of(args.zone.as_deref())?;
    let mut code = ExitCode::SUCCESS;
    for directory in &args.directories {
        // Of many hosts, each is looked after.
        if let Err(error) = look_after(directory, &calendar, args.keep) {
            writeln!(io::stderr(), "acctd: error: {error:#}")?;
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn look_after(path: &Path, calendar: &Calendar, keep: Option<Duration>) -> Result<()> {
    let shown = path.display();
    let directory =
        LogDirectory::open(path).with_context(|| format!("cannot open the directory {shown}"))?;
    let lock = DirectoryLock::take_file(&directory, format!("{SCRATCH}.lock"));
    let _lock = lock.map_err(|error| match error {
        LockError::Taken(owner) => {
            let owner = owner.map_or_else(String::new, |owner| format!(", {owner}"));
            anyhow!("another acctd archives {shown}{owner}: wait for its end")
        }
        LockError::Impossible(error) => anyhow!(error).context(format!(
            "cannot write to {shown}: acctd archive needs the rights of its owner"
        )),
    })?;
    let scratch = path.join(SCRATCH);
    // A killed command's.
    remove_scratch(&scratch)?;
    let host = Host::read(path, calendar)?;
    let mut journal = journal::lines(&path.join(JOURNAL))?;
    for (day, files) in days_over(&host) {
        fs::DirBuilder::new().mode(0o700).create(&scratch)?;
        let stored = store(&directory, path, &day, &files, &mut journal);
        let removed = remove_scratch(&scratch);
        stored.with_context(|| format!("{shown}: {day} is not archived"))?;
        removed?;
    }
    if let Some(keep) = keep {
        delete(&directory, &Host::read(path, calendar)?, keep)?;
    }
    Ok(())
}

fn remove_scratch(scratch: &Path) -> Result<()> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", scratch.display()))
        }
        _ => Ok(()),
    }
}

/// Files that are not archived, of days (UTC) for which no more are to be expected. Of files with the same start, as after
/// the clock was set back, each is in another archive.
fn days_over(host: &Host) -> Vec<(String, Vec<&File>)> {
    let now = UnixNanos::now();
    let last = host.files.last().map_or(now, |file| file.period.start);
    let mut days: BTreeMap<i64, Vec<Vec<&File>>> = BTreeMap::new();
    let day_length = i64::try_from(DAY.as_nanos()).unwrap_or(i64::MAX);
    for file in host.files.iter().filter(|file| file.archived.is_none()) {
        let day = file.period.start.0.div_euclid(day_length);
        let end = UnixNanos((day + 1) * day_length);
        // acctd writes files in their order. Without a later one, it may have one to write.
        let is_over = end <= last || end.plus(DAY) <= now;
        if end > now || !is_over {
            continue;
        }
        let parts = days.entry(day).or_default();
        let is_free = |part: &Vec<&File>| {
            part.last()
                .is_none_or(|last| last.period.start < file.period.start)
        };
        match parts.iter_mut().find(|part| is_free(part)) {
            Some(part) => part.push(file),
            None => parts.push(vec![file]),
        }
    }
    let named = days.into_iter().flat_map(|(day, parts)| {
        let name = utc_day(UnixNanos(day * day_length));
        parts.into_iter().map(move |files| (name.clone(), files))
    });
    named.collect()
}

/// Writes an archive, reads it back, and gives it its name.
fn store(
    directory: &LogDirectory,
    path: &Path,
    day: &str,
    files: &[&File],
    journal: &mut HashMap<String, String>,
) -> Result<()> {
    let mut lines = String::new();
    for file in files {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(line) = journal.remove(&*name) {
            lines.push_str(&line);
            lines.push('\n');
        }
    }
    let archive = free_name(directory, day, EXTENSION);
    let beside = Path::new(&archive).with_extension(JOURNAL_EXTENSION);
    let beside = beside.to_string_lossy();
    let temporary = |name: &str| format!("{SCRATCH}/{name}");
    let create = |name: &str| {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        directory.open_file(&temporary(name), flags)
    };
    if !lines.is_empty() {
        let mut file = create(&beside)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
    }
    let scratch = path.join(SCRATCH);
    write::write(create(&archive)?, files, &lines, &scratch)?;
    reached("archive written");
    let written = Archive::open(&scratch.join(&archive))?;
    verify::verify(&written)?;
    reached("archive verified");
    if !lines.is_empty() {
        // Without its archive, it is of a command that was killed here.
        directory.rename(&temporary(&beside), &beside)?;
        reached("journal named");
    }
    directory.rename_without_replacing(&temporary(&archive), &archive)?;
    reached("archive named");
    directory.sync()?;
    let size = |name: &str| fs::metadata(path.join(name)).map_or(0, |it| it.len());
    writeln!(
        io::stdout(),
        "{}: {} rows of {} files, {} bytes in {}",
        path.join(&archive).display(),
        thousands(written.files.iter().map(|file| file.rows).sum()),
        thousands(u64::try_from(files.len())?),
        thousands(written.files.iter().map(|file| file.size).sum()),
        thousands(size(&archive)),
    )?;
    Ok(())
}

/// Deletes the archived files that ended before `keep`.
fn delete(directory: &LogDirectory, host: &Host, keep: Duration) -> Result<()> {
    let until = UnixNanos::now().minus(keep);
    let mut kept = Vec::new();
    for archive in &host.archives {
        let old = archive.files.iter().filter(|file| file.period.end <= until);
        let old: Vec<_> = old
            .filter(|file| directory.find(&file.name).is_ok())
            .collect();
        if old.is_empty() {
            continue;
        }
        verify::verify(archive)?;
        // What was named before a power cut is there after it.
        directory.sync()?;
        let mut n_deleted = 0;
        for file in old {
            let path = directory.path_of(&file.name);
            let text = fs::read(&path);
            let checked = text
                .map_err(Into::into)
                .and_then(|text| verify::is_the_archived(&text, file.sha256));
            match checked {
                Ok(()) => {
                    directory.remove(&file.name)?;
                    n_deleted += 1;
                    reached("file deleted");
                }
                Err(error) => kept.push(format!("{}: {error:#}", path.display())),
            }
        }
        writeln!(
            io::stdout(),
            "{}: {} of its files deleted",
            archive.path.display(),
            thousands(n_deleted)
        )?;
    }
    match kept.split_first() {
        None => Ok(()),
        Some((first, [])) => bail!("{first}"),
        Some((first, others)) => bail!("{first} ({} more)", others.len()),
    }
}
