//! Recovers at the start what a killed acctd left in the log directory: commits are completed, checkpoints become the
//! start of the current interval or get a CSV file, and incomplete files are removed. Damaged files are set aside and
//! never counted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use anyhow::{Result, anyhow};
use log::{info, warn};
use rustix::fs::OFlags;

use crate::config::Config;
use crate::model::closed_interval::{ClosedInterval, Gap, GapCause, KernelInterval};
use crate::model::group::NflogGroup;
use crate::model::interval::{Period, UnixNanos};
use crate::output::atomic_file;
use crate::output::checkpoint::{self, Checkpoint};
use crate::output::commit::{self, Record};
use crate::output::directory_lock::{DirectoryLock, LockError};
use crate::output::log_directory::LogDirectory;
use crate::restart::checksummed::{self, Checksummed, Damage};

/// An older checkpoint is not continued, only written to a file.
const MAX_RESUME_AGE: Duration = Duration::from_secs(60 * 60);

/// The result of a recovery.
#[derive(Default)]
pub(crate) struct Recovered {
    /// The current interval, as it was saved.
    pub(crate) resumed: Option<Resumed>,
    /// Intervals that are over. Each gets a file.
    pub(crate) finished: Vec<ClosedInterval>,
}

impl Recovered {
    /// The start of the first interval: that of the resumed one, otherwise `start`.
    pub(crate) fn begins_at(&self, start: UnixNanos) -> UnixNanos {
        let resumed = self.resumed.as_ref();
        resumed.map_or(start, |resumed| resumed.checkpoint.start)
    }
}

/// An interval that continues.
pub(crate) struct Resumed {
    pub(crate) checkpoint: Checkpoint,
    /// The name of the checkpoint's file.
    pub(crate) file: String,
}

/// Locks the directory for `config`'s groups, until the result is dropped. `None` if locking fails, for example on a
/// full disk.
pub(crate) fn lock(config: &Config) -> Result<Option<DirectoryLock>> {
    let shown = config.log_directory.display();
    let directory = LogDirectory::open(&config.log_directory).map_err(LockError::Impossible);
    match directory.and_then(|directory| DirectoryLock::take(&directory, config.tag())) {
        Ok(lock) => Ok(Some(lock)),
        Err(LockError::Taken(owner)) => Err(anyhow!(
            "log directory {shown} is in use by {} for group {}: stop it, or choose another directory with --log-directory",
            owner.as_deref().unwrap_or("another acctd"),
            config.tag()
        )),
        Err(LockError::Impossible(error)) => {
            warn!(
                "cannot lock log directory {shown}: {error}; do not start a second acctd for it; the data of a killed acctd are not recovered"
            );
            Ok(None)
        }
    }
}

/// Tries to open the files of a killed acctd, up to the first one that this process is not permitted to read. Other
/// errors are reported during the recovery.
pub(crate) fn try_to_read(path: &Path) -> (PathBuf, io::Result<()>) {
    let (files, directory) = match open(path) {
        Ok((directory, found)) => (found.into_values().flatten(), directory),
        Err(error) => return (path.to_owned(), Err(error)),
    };
    let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    files
        .map(|name| (directory.open_file(&name, OFlags::RDONLY), name))
        .find_map(|(tried, name)| {
            let error = tried.err().filter(is_refused)?;
            Some((directory.path_of(&name), Err(error)))
        })
        .unwrap_or((path.to_owned(), Ok(())))
}

/// When accounting continues.
#[derive(Clone, Copy)]
pub(crate) struct ResumePoint {
    /// The start of the first interval, if no checkpoint begins earlier.
    pub(crate) start: UnixNanos,
    /// All packets logged since then are received, or known to be lost.
    pub(crate) known_from: UnixNanos,
    pub(crate) now: UnixNanos,
    /// The groups stayed bound, so packets of a period that is over may still arrive.
    pub(crate) is_kept: bool,
}

/// Recovers the files of a killed acctd. The directory must be locked.
pub(crate) fn recover(config: &Config, resume_point: ResumePoint) -> Recovered {
    let mut recovered = Recovered::default();
    let (directory, found) = match open(&config.log_directory) {
        Ok(opened) => opened,
        Err(error) => {
            let shown = config.log_directory.display();
            warn!("cannot look for checkpoints in {shown}: {error}");
            return recovered;
        }
    };
    // If acctd was killed during the renaming, a checkpoint has two names: that of another process and ours.
    let mut taken_over = BTreeSet::new();
    for (tag, files) in found {
        // Another process may be running, so its files are locked first; ours are locked already.
        let lock = (tag != config.tag())
            .then(|| DirectoryLock::take(&directory, tag))
            .transpose();
        if lock.is_err() {
            continue;
        }
        for (name, checkpoint) in read_files(&directory, config.tag(), &files) {
            if taken_over.insert(name.clone()) {
                take_over(config, checkpoint, &name, resume_point, &mut recovered);
            }
        }
    }
    if let Some(Resumed { checkpoint, .. }) = &mut recovered.resumed {
        let gap = gap_after(config, checkpoint, resume_point.known_from);
        checkpoint.gaps.extend(gap);
    }
    recovered
}

fn open(path: &Path) -> io::Result<(LogDirectory, BTreeMap<NflogGroup, Vec<String>>)> {
    let directory = LogDirectory::open(path)?;
    let found = list(&directory)?;
    Ok((directory, found))
}

/// The files of each acctd, by its lowest group, in the order in which they must be read.
fn list(directory: &LogDirectory) -> io::Result<BTreeMap<NflogGroup, Vec<String>>> {
    let mut found: BTreeMap<NflogGroup, Vec<String>> = BTreeMap::new();
    for name in directory.names()? {
        if let Some(tag) = tag_of(&name) {
            found.entry(tag).or_default().push(name);
        }
    }
    for files in found.values_mut() {
        files.sort_by_key(|name| (kind(name), name.clone()));
    }
    Ok(found)
}

fn tag_of(name: &str) -> Option<NflogGroup> {
    let (tag, _) = name.strip_prefix(".acctd-")?.split_once('-')?;
    u16::from_str(tag).ok().map(NflogGroup)
}

/// In the order of reading. Commits come first: they name checkpoints that are not valid any more, and temporary files
/// that are complete.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Commit,
    Checkpoint,
    Temporary,
    Other,
}

fn kind(name: &str) -> Kind {
    match name.rsplit_once('.') {
        Some((_, commit::ENDING)) => Kind::Commit,
        Some((_, checkpoint::ENDING)) => Kind::Checkpoint,
        Some((_, atomic_file::TEMPORARY)) => Kind::Temporary,
        _ => Kind::Other,
    }
}

/// Completes commits, removes incomplete files, and returns the checkpoints to recover. Their files are renamed to
/// files of process `own`.
fn read_files(
    directory: &LogDirectory,
    own: NflogGroup,
    files: &[String],
) -> Vec<(String, Checkpoint)> {
    let mut checkpoints = Vec::new();
    let mut written = Vec::new();
    // Commits. It is not known whether their intervals have a CSV file already.
    let mut unreadable = Vec::new();
    for name in files {
        match kind(name) {
            Kind::Commit => match read_checked(directory, name, Record::check) {
                Ok(record) => {
                    complete(directory, name, &record);
                    written.extend(record.checkpoints);
                }
                Err(left) => unreadable.push((name, left)),
            },
            Kind::Checkpoint if written.contains(name) => {}
            Kind::Checkpoint => {
                let mut records = unreadable.iter();
                if let Some((record, left)) = records.find(|(it, _)| is_same_interval(it, name)) {
                    leave_uncounted(directory, name, record, *left);
                } else if let Some(name) = rename_to_ours(directory, own, name)
                    && let Ok(checkpoint) = read_checked(directory, &name, Checkpoint::from_saved)
                {
                    checkpoints.push((name, checkpoint));
                }
            }
            Kind::Temporary => {
                // Its name does not say where its interval begins.
                if let Some((record, left)) = unreadable.first() {
                    leave_uncounted(directory, name, record, *left);
                    continue;
                }
                info!("{name} is an incomplete file of an acctd that was killed: removing it");
                if let Err(error) = directory.remove(name) {
                    warn!("cannot remove {name}: {error}");
                }
            }
            Kind::Other => {}
        }
    }
    checkpoints
}

/// The names of a record and a checkpoint of the same interval differ only in the ending.
fn is_same_interval(record: &str, checkpoint: &str) -> bool {
    let stem = |name: &str| name.rsplit_once('.').map(|(stem, _)| stem.to_owned());
    stem(record) == stem(checkpoint)
}

/// Renames another process's checkpoint to one of ours, while its lock is held. Otherwise that process would recover
/// it too, if it is started before we have written the interval.
fn rename_to_ours(directory: &LogDirectory, own: NflogGroup, name: &str) -> Option<String> {
    let tag = tag_of(name)?;
    if tag == own {
        return Some(name.to_owned());
    }
    let rest = name.strip_prefix(&atomic_file::own_prefix(tag))?;
    let ours = format!("{}{rest}", atomic_file::own_prefix(own));
    match directory.rename_without_replacing(name, &ours) {
        Ok(()) => Some(ours),
        Err(error) => {
            warn!("cannot take {name} over: {error}; it stays as it is");
            None
        }
    }
}

/// If a file cannot be used: where it is now.
#[derive(Clone, Copy)]
enum Left {
    /// Under its name: it cannot be read now.
    InPlace,
    /// Set aside: it is damaged.
    Aside,
}

/// Reads and checks a file. If it is damaged, it is set aside.
fn read_checked<T: Checksummed, U>(
    directory: &LogDirectory,
    name: &str,
    check: impl FnOnce(T) -> Result<U, Damage>,
) -> Result<U, Left> {
    let path = directory.path_of(name);
    let file = directory.open_file(name, OFlags::RDONLY);
    match file.and_then(|file| checksummed::read_file(&file)) {
        Ok(read) => read.and_then(check).map_err(|damage| {
            let kept = set_aside(directory, name);
            warn!(
                "{} is not used: {damage}; what it held is not in any file ({kept})",
                path.display()
            );
            Left::Aside
        }),
        Err(error) => {
            warn!("cannot read {}: {error}; it stays as it is", path.display());
            Err(Left::InPlace)
        }
    }
}

fn set_aside(directory: &LogDirectory, name: &str) -> String {
    match atomic_file::set_aside(directory, name) {
        Ok(aside) => format!("kept as {aside}"),
        Err(error) => format!("it stays there: {error}"),
    }
}

/// Does not count a file whose packets may be in a CSV file already. The file stays or is set aside like its record:
/// if the record can be read at the next start, both are still there.
fn leave_uncounted(directory: &LogDirectory, name: &str, record: &str, left: Left) {
    let kept = match left {
        Left::InPlace => "it stays as it is".to_owned(),
        Left::Aside => set_aside(directory, name),
    };
    warn!(
        "{} is not used: {record} cannot be read, so it is not known whether a CSV file has its packets already; look for the CSV file of its time ({kept})",
        directory.path_of(name).display()
    );
}

fn complete(directory: &LogDirectory, name: &str, record: &Record) {
    match record.complete(directory) {
        Ok(renamed) => {
            if let Some(file) = renamed {
                info!("{file} was complete when acctd was killed, and has its name now");
            }
            commit::remove_record(directory, name);
        }
        Err(error) => warn!("cannot complete {name}: {error}; the next start tries again"),
    }
}

fn take_over(
    config: &Config,
    checkpoint: Checkpoint,
    name: &str,
    resume_point: ResumePoint,
    recovered: &mut Recovered,
) {
    let (n_packets, saved_at) = (checkpoint.n_packets(), checkpoint.saved_at);
    let at = config.zone.rfc3339(saved_at);
    let resumed = recovered.resumed.as_ref();
    let is_newest = resumed.is_none_or(|other| other.checkpoint.index < checkpoint.index);
    if is_newest && is_current(config, &checkpoint, resume_point) {
        info!("{n_packets} packets of the current interval are recovered, as saved at {at}");
        let current = Resumed {
            checkpoint,
            file: name.to_owned(),
        };
        let begins = current.checkpoint.start;
        if let Some(over) = recovered.resumed.replace(current) {
            // The killed run continued from the older interval to the newer one without a gap.
            let end = over.checkpoint.period().end.max(begins);
            let interval = finished(config, over.checkpoint, &over.file, end);
            recovered.finished.push(interval);
        }
        return;
    }
    let end = checkpoint.period().end;
    let interval = finished(config, checkpoint, name, end);
    let stem = config.zone.file_stem(interval.period);
    info!("{n_packets} packets of {stem} are recovered, as saved at {at}");
    recovered.finished.push(interval);
}

/// Whether the first interval may continue this checkpoint.
fn is_current(config: &Config, checkpoint: &Checkpoint, resume_point: ResumePoint) -> bool {
    let current = config.interval.index_of(resume_point.now);
    let is_recent = resume_point.now.minus(MAX_RESUME_AGE) < checkpoint.saved_at;
    checkpoint.interval == config.interval
        && checkpoint.saved_at <= resume_point.now
        && checkpoint.has_groups(&config.groups)
        && (checkpoint.index == current
            || (resume_point.is_kept && is_recent && checkpoint.index < current))
}

/// The interval of a checkpoint, closed at `end`.
fn finished(config: &Config, checkpoint: Checkpoint, name: &str, end: UnixNanos) -> ClosedInterval {
    let period = Period {
        start: checkpoint.start,
        end,
    };
    let gap = gap_after(config, &checkpoint, end);
    let mut gaps = checkpoint.gaps;
    gaps.extend(gap);
    ClosedInterval {
        gaps,
        // There are no kernel counts to compare with: no verdict.
        kernel: config.crosscheck.is_some().then(KernelInterval::default),
        checkpoints: vec![name.to_owned()],
        ..ClosedInterval::new(period, checkpoint.groups)
    }
}

/// The gap between a checkpoint and `end`. It begins one flush timeout before the checkpoint: the kernel may have held
/// back packets that were logged then.
fn gap_after(config: &Config, checkpoint: &Checkpoint, end: UnixNanos) -> Option<Gap> {
    let saved_at = checkpoint.saved_at;
    let start = saved_at.minus(config.flush_timeout).max(checkpoint.start);
    (start < end).then(|| Gap {
        period: Period { start, end },
        groups: checkpoint
            .groups
            .iter()
            .map(|group| group.config.group)
            .collect(),
        cause: GapCause::Killed,
    })
}
