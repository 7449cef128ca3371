//! What an acctd that was killed has left in the log directory, taken in at the start: commits are
//! completed, checkpoints become the start of the current interval or a file of their own, and halves
//! of files are removed. What is damaged or not ours is set aside, never counted.

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

/// How long ago a run may have been killed whose interval goes on.
const LONGEST_WAY_BACK: Duration = Duration::from_secs(60 * 60);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// The current interval as far as it was saved.
    pub(crate) resumed: Option<Resumed>,
    /// Intervals that are over, each to get its file.
    pub(crate) finished: Vec<ClosedInterval>,
}

impl Recovered {
    /// Where the first interval begins: where the current one did, or else at `start`.
    pub(crate) fn begins_at(&self, start: UnixNanos) -> UnixNanos {
        let resumed = self.resumed.as_ref();
        resumed.map_or(start, |resumed| resumed.checkpoint.start)
    }
}

/// An interval that goes on.
#[derive(Debug)]
pub(crate) struct Resumed {
    /// What was saved of it.
    pub(crate) checkpoint: Checkpoint,
    /// The checkpoint's file.
    pub(crate) file: String,
}

/// Locks the directory for `config`'s groups, until what this returns is dropped. `None` where the
/// disk is too full for that.
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
                "cannot lock log directory {shown}: {error}; do not start a second acctd for it, and what a killed one has left is not recovered"
            );
            Ok(None)
        }
    }
}

/// Tries to open what was left, up to the first file that this process may not read. What is wrong with other
/// files is said when they are recovered.
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

/// When accounting goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResumePoint {
    /// Where the first interval begins, if no checkpoint does before.
    pub(crate) start: UnixNanos,
    /// From when on all that was logged is received, or known to be lost.
    pub(crate) known_from: UnixNanos,
    /// The time now.
    pub(crate) now: UnixNanos,
    /// The groups were bound all the time, so that packets of a period that is over may still come.
    pub(crate) is_kept: bool,
}

/// Takes in what was left. The directory must be locked.
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
    // If a kill came in between, a checkpoint has another process's name and ours.
    let mut taken_over = BTreeSet::new();
    for (tag, files) in found {
        // Another process's, which may be at work; ours is locked already.
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

/// The files of acctd's own, by whose they are, in the order in which they are to be looked at.
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

/// Commits come first: they say which checkpoints are no more, and what is not half a file.
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

/// Completes commits, removes halves of files, and returns the checkpoints that are to be recovered, as of
/// process `own`.
fn read_files(
    directory: &LogDirectory,
    own: NflogGroup,
    files: &[String],
) -> Vec<(String, Checkpoint)> {
    let mut checkpoints = Vec::new();
    let mut written = Vec::new();
    // What their intervals' checkpoints and files hold may be in a file already, or nowhere else.
    let mut unreadable = Vec::new();
    for name in files {
        match kind(name) {
            Kind::Commit => match take_in(directory, name, Record::check) {
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
                    leave(directory, name, record, *left);
                } else if let Some(name) = make_ours(directory, own, name)
                    && let Ok(checkpoint) = take_in(directory, &name, Checkpoint::from_saved)
                {
                    checkpoints.push((name, checkpoint));
                }
            }
            Kind::Temporary => {
                // Its name does not say where its interval begins.
                if let Some((record, left)) = unreadable.first() {
                    leave(directory, name, record, *left);
                    continue;
                }
                info!("{name} is half a file of an acctd that was killed, and is removed");
                if let Err(error) = directory.remove(name) {
                    warn!("cannot remove {name}: {error}");
                }
            }
            Kind::Other => {}
        }
    }
    checkpoints
}

/// If a record and a checkpoint are of the same interval, their names differ only in the ending.
fn is_same_interval(record: &str, checkpoint: &str) -> bool {
    let stem = |name: &str| name.rsplit_once('.').map(|(stem, _)| stem.to_owned());
    stem(record) == stem(checkpoint)
}

/// Gives another process's checkpoint a name of ours, while its lock is held: it would recover it as
/// well, should it be started before we have written its interval.
fn make_ours(directory: &LogDirectory, own: NflogGroup, name: &str) -> Option<String> {
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

/// What became of a file that is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It could not be read now, and stays.
    InPlace,
    /// It is set aside.
    Aside,
}

/// A file that is what it should be. Any other is set aside.
fn take_in<T: Checksummed, U>(
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

/// Does not count what may have been counted. It goes where its record went: if that can be read at the next
/// start, it is still there.
fn leave(directory: &LogDirectory, name: &str, record: &str, left: Left) {
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
    match record.carry_out(directory) {
        Ok(renamed) => {
            if let Some(file) = renamed {
                info!("{file} was complete when acctd was killed, and has its name now");
            }
            commit::forget(directory, name);
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
            // The run that was killed had gone on to the newer one without a break.
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

/// Whether the first interval may begin with it.
fn is_current(config: &Config, checkpoint: &Checkpoint, resume_point: ResumePoint) -> bool {
    let current = config.interval.index_of(resume_point.now);
    let is_recent = resume_point.now.minus(LONGEST_WAY_BACK) < checkpoint.saved_at;
    checkpoint.interval == config.interval
        && checkpoint.saved_at <= resume_point.now
        && checkpoint.is_of(&config.groups)
        && (checkpoint.index == current
            || (resume_point.is_kept && is_recent && checkpoint.index < current))
}

/// The interval as it was saved, which ends at `end`, with a file of its own.
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
        // Nothing is there to compare with: no verdict.
        kernel: config.crosscheck.is_some().then(KernelInterval::default),
        checkpoints: vec![name.to_owned()],
        ..ClosedInterval::new(period, checkpoint.groups)
    }
}

/// What is not known of an interval that was saved, up to `end`: the kernel may have held packets
/// back that were logged before that moment.
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
