//! Only one acctd per directory and groups: two would each recover the checkpoints of the other.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::sync::mpsc;
use std::time::Duration;
use std::{io, thread};

use rustix::fs::OFlags;

use crate::model::group::NflogGroup;
use crate::nflog::table;
use crate::output::log_directory::{FileId, LogDirectory};

/// How long the end of the process waits for the disk to remove the lock file.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Held until the process ends, in whatever way. If it is dropped, the lock file is removed.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    name: String,
    /// When the file is closed, the kernel unlocks it.
    held: Option<(LogDirectory, File)>,
}

#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process has the lock: `pid 812 (acctd)`, if it is visible from here.
    Taken(Option<String>),
    /// The file cannot be created or locked.
    Impossible(io::Error),
}

impl DirectoryLock {
    /// Locks the files of processes with this lowest group.
    pub(crate) fn take(directory: &LogDirectory, tag: NflogGroup) -> Result<Self, LockError> {
        Self::take_file(directory, format!(".acctd-{tag}.lock"))
    }

    /// By the name of the lock file.
    pub(crate) fn take_file(directory: &LogDirectory, name: String) -> Result<Self, LockError> {
        loop {
            // Not for writing: otherwise the disk could not be remounted read-only while acctd runs.
            let file = directory.open_file(&name, OFlags::RDONLY | OFlags::CREATE);
            let file = file.map_err(LockError::Impossible)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Taken(owner(&file))),
                Err(TryLockError::Error(error)) => return Err(LockError::Impossible(error)),
            }
            // The previous owner may have removed the file since it was opened.
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
        // If the file stays, it does no harm.
        let _stays = thread::Builder::new().spawn(move || {
            // Removed before it is unlocked.
            let _stays = held.as_ref().map(|(directory, _)| directory.remove(&name));
            drop((held, done));
        });
        // A disk that does not answer must not prevent the process from ending.
        let _done = is_done.recv_timeout(REMOVAL_TIMEOUT);
    }
}

/// The process that has locked the file, from `/proc/locks` (proc(5)):
/// `1: FLOCK ADVISORY WRITE PID DEV:INODE 0 EOF`.
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
    fn a_second_process_learns_the_owner_and_gets_the_lock_after_it() {
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
