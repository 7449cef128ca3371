//! The steps in which an interval gets its file and its checkpoints are removed. Wherever acctd is killed, the
//! interval's data are on the disk once.
//!
//! ```text
//!  1  rows ─► .acctd-5-STEM.tmp, synced
//!  2  .acctd-5-START.commit, synced: the temporary name, the checkpoints, the line
//!  3  .acctd-5-STEM.tmp renamed to STEM.csv      from here on the interval has its file
//!  4  the checkpoints removed
//!  5  the line appended to intervals.jsonl
//!  6  .acctd-5-START.commit removed
//! ```
//!
//! If acctd is killed before step 2, the checkpoints hold the interval. If it is killed later, the record does: the
//! file that it names is complete, and the next start does the missing steps (`recovery`). An interval without a
//! checkpoint needs no record.

use std::fs::File;
use std::io;

use log::warn;
use serde::{Deserialize, Serialize};

use crate::fault_points::{self, reached};
use crate::model::group::NflogGroup;
use crate::model::interval::UnixNanos;
use crate::output::log_directory::{FileId, LogDirectory};
use crate::output::{atomic_file, journal};
use crate::restart::checksummed::{self, Checksummed, Damage};

/// How the names of records end.
pub(crate) const ENDING: &str = "commit";

/// The steps that an interval still needs to get its file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The temporary name of the complete file, and its inode: a later file may have the same name.
    temporary: String,
    inode: u64,
    /// The final name, without `-1`, `-2`, … and `.csv`.
    stem: String,
    /// The name in `line`.
    expected: String,
    /// These must not be recovered any more.
    pub(crate) checkpoints: Vec<String>,
    /// The interval's line for intervals.jsonl.
    line: Vec<u8>,
}

impl Checksummed for Record {
    const TITLE: &'static str = "acctd commit 1\n";
    /// A line has some hundred bytes for each group.
    const MAX_BYTES: u64 = 1 << 26;
}

/// The log directory, and the lowest group of this process, which is in the names of its files.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) directory: &'a LogDirectory,
    pub(crate) tag: NflogGroup,
}

/// An interval's file that is complete under its temporary name.
#[derive(Debug)]
pub(crate) struct Prepared {
    temporary: String,
    id: FileId,
    stem: String,
    /// The name of the record, if there is one. Then no other file may get the final name.
    record: Option<String>,
}

impl Prepared {
    /// Step 1. If it fails, no file is left.
    pub(crate) fn prepare<T>(
        place: Place<'_>,
        stem: &str,
        write: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<(Self, T)> {
        let (temporary, file) = atomic_file::create_temporary(place.directory, place.tag, stem)?;
        reached("created");
        let written = write(&file).and_then(|written| {
            fault_points::sync()?;
            file.sync_all()?;
            Ok((FileId::of(&file.metadata()?), written))
        });
        if written.is_err() {
            // An incomplete file takes space on a disk that may be full. The first error is reported.
            let _already_failing = place.directory.remove(&temporary);
        }
        let (id, written) = written?;
        reached("prepared");
        let prepared = Self {
            temporary,
            id,
            stem: stem.to_owned(),
            record: None,
        };
        Ok((prepared, written))
    }

    /// Whether the file still exists, under its temporary or its final name. The directory may have been replaced.
    pub(crate) fn exists(&self, directory: &LogDirectory) -> io::Result<bool> {
        Ok(directory.is_name_of(&self.temporary, self.id) || self.name(directory)?.is_some())
    }

    fn name(&self, directory: &LogDirectory) -> io::Result<Option<String>> {
        atomic_file::name_of(directory, &self.stem, self.id)
    }

    pub(crate) fn is_recorded(&self) -> bool {
        self.record.is_some()
    }

    /// Step 2. `line` returns the line for intervals.jsonl, given the name of the file.
    pub(crate) fn record(
        &mut self,
        place: Place<'_>,
        start: UnixNanos,
        checkpoints: &[String],
        line: impl FnOnce(&str) -> Vec<u8>,
    ) -> io::Result<()> {
        let expected = atomic_file::free_name(place.directory, &self.stem, "csv");
        let record = Record {
            temporary: self.temporary.clone(),
            inode: self.id.inode,
            stem: self.stem.clone(),
            line: line(&expected),
            expected,
            checkpoints: checkpoints.to_vec(),
        };
        let name = format!("{}{}.{ENDING}", atomic_file::own_prefix(place.tag), start.0);
        atomic_file::replace(place.directory, place.tag, &name, |file| {
            checksummed::write(&record, file)
        })?;
        self.record = Some(name);
        reached("recorded");
        Ok(())
    }

    /// Step 3. Returns the name of the file.
    pub(crate) fn publish(&self, directory: &LogDirectory) -> io::Result<String> {
        let renamed = atomic_file::rename_to_free_name(directory, &self.temporary, &self.stem);
        let name = match renamed {
            // An earlier try succeeded, but its answer was lost.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.name(directory)?.ok_or(error)?
            }
            renamed => renamed?,
        };
        reached("renamed");
        atomic_file::sync_rename(directory, &name);
        reached("published");
        Ok(name)
    }

    /// Step 4. Returns the record that step 6 has to remove, if there is one.
    pub(crate) fn retire(
        &mut self,
        directory: &LogDirectory,
        checkpoints: &[String],
    ) -> Option<String> {
        let record = self.record.take()?;
        match retire(directory, checkpoints) {
            Ok(()) => Some(record),
            Err(error) => {
                warn!("{error}; the next start tries again");
                None
            }
        }
    }
}

/// Removes the checkpoints of an interval that has its file.
fn retire(directory: &LogDirectory, checkpoints: &[String]) -> io::Result<()> {
    for name in checkpoints {
        directory.remove(name).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot remove checkpoint {name}: {error}"),
            )
        })?;
    }
    reached("retired");
    Ok(())
}

/// Step 6.
pub(crate) fn remove_record(directory: &LogDirectory, record: &str) {
    // The removal of the checkpoints must be on the disk before the record is removed.
    let removed = directory.sync().and_then(|()| directory.remove(record));
    if let Err(error) = removed {
        warn!("cannot remove {record}: {error}; the next start tries again");
    }
    reached("forgotten");
}

impl Record {
    /// Checks a record that was read from a file: no name may lead out of the directory.
    pub(crate) fn check(self) -> Result<Self, Damage> {
        let names = [&self.temporary, &self.stem].into_iter();
        let is_sound = names
            .chain(&self.checkpoints)
            .all(|name| !name.is_empty() && !name.contains('/'));
        is_sound.then_some(self).ok_or(Damage::Invalid)
    }

    /// Does the missing steps. Returns the name of the file, if it was renamed now.
    pub(crate) fn complete(&self, directory: &LogDirectory) -> io::Result<Option<String>> {
        let mut line = self.line.clone();
        // Only the inode is compared: the number of the device may have changed.
        let found = directory.find(&self.temporary);
        let renamed = found
            .is_ok_and(|found| found.id.inode == self.inode)
            .then(|| atomic_file::rename_to_free_name(directory, &self.temporary, &self.stem))
            .transpose()?;
        if let Some(name) = &renamed {
            directory.sync()?;
            let with_name = |name: &str| format!("\"file\":\"{name}\"");
            if let Ok(text) = std::str::from_utf8(&line) {
                let (expected, name) = (with_name(&self.expected), with_name(name));
                line = text.replacen(&expected, &name, 1).into_bytes();
            }
        }
        retire(directory, &self.checkpoints)?;
        if !journal::has_line(directory, &line)? {
            journal::append(directory, &line)?;
        }
        Ok(renamed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the version that introduced format 1. A later version must read it, or use another title.
    #[test]
    fn a_record_of_format_1_is_read() {
        let written = Record {
            temporary: ".acctd-5-20261128-1000_20261128-1001.tmp".into(),
            inode: 4_711,
            stem: "20261128-1000_20261128-1001".into(),
            expected: "20261128-1000_20261128-1001-1.csv".into(),
            checkpoints: vec![".acctd-5-71000000000.checkpoint".into()],
            line: b"{\"file\":\"20261128-1000_20261128-1001-1.csv\"}\n".to_vec(),
        };
        checksummed::testing::ensure_format("commit-1", &written);
    }
}
