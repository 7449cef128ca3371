//! One acctd for the same groups in the same directory: two of them would each recover what the
//! other has saved.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use rustix::fs::OFlags;

use crate::model::group::NflogGroup;
use crate::nflog::table;
use crate::output::log_directory::{FileId, LogDirectory};

/// How long the end of the process waits for the disk to remove the file.
const LONGEST_REMOVAL: Duration = Duration::from_secs(2);

/// Held for as long as the process lives, however it ends. The file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    name: String,
    /// The kernel unlocks the file when it is closed.
    held: Option<(LogDirectory, File)>,
}

/// Why there is no lock.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has it: `pid 812 (acctd)`, where that can be seen.
    Taken(Option<String>),
    /// The file cannot be made or locked.
    Impossible(io::Error),
}

impl DirectoryLock {
    /// Locks what processes with this lowest group have in the directory.
    pub(crate) fn take(directory: &LogDirectory, tag: NflogGroup) -> Result<Self, LockError> {
        let name = format!(".acctd-{tag}.lock");
        loop {
            // Not for writing, or the disk could not be made read-only for as long as acctd runs.
            let file = directory.open_file(&name, OFlags::RDONLY | OFlags::CREATE);
            let file = file.map_err(LockError::Impossible)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Taken(owner(&file))),
                Err(TryLockError::Error(error)) => return Err(LockError::Impossible(error)),
            }
            // Whoever had it may have removed the file since it was opened.
            let found = file.metadata().map_err(LockError::Impossible)?;
            if directory.is_name_of(&name, FileId::of(&found)) {
                let directory = directory.try_clone().map_err(LockError::Impossible)?;
                let held = Some((directory, file));
                return Ok(Self { name, held });
            }
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let (name, held) = (std::mem::take(&mut self.name), self.held.take());
        let (done, is_done) = mpsc::channel::<()>();
        // A file that stays does no harm.
        let _stays = thread::Builder::new().spawn(move || {
            // Before it is unlocked.
            let _stays = held.as_ref().map(|(directory, _)| directory.remove(&name));
            drop((held, done));
        });
        // A disk that does not answer must not keep the process from its end.
        let _done = is_done.recv_timeout(LONGEST_REMOVAL);
    }
}

/// Who has locked the file, from `/proc/locks` (proc(5)): `1: FLOCK ADVISORY WRITE PID DEV:INODE 0 EOF`.
fn owner(file: &File) -> Option<String> {
    let inode = file.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let &[_, "FLOCK", _, "WRITE", pid, place, ..] = columns.as_slice() else {
            return None;
        };
        let (_, its_inode) = place.rsplit_once(':')?;
        (its_inode == inode).then(|| table::process(pid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_has_it_and_the_next_one_gets_it() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        let first = DirectoryLock::take(directory, NflogGroup(5)).unwrap();
        let Err(LockError::Taken(Some(owner))) = DirectoryLock::take(directory, NflogGroup(5))
        else {
            panic!("it was not taken");
        };
        assert!(
            owner.starts_with(&format!("pid {} (", std::process::id())),
            "{owner}"
        );
        let other = DirectoryLock::take(directory, NflogGroup(6)).unwrap();
        drop((first, other));
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        DirectoryLock::take(directory, NflogGroup(5)).unwrap();
    }
}
