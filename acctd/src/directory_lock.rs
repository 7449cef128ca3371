//! One acctd for the same groups in the same directory: two of them would each recover what the
//! other has saved.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::nflog_socket::NflogGroup;
use crate::nflog_table;
use crate::whole_file::FILE_MODE;

/// How long the end of the process waits for the disk to remove the file.
const LONGEST_REMOVAL: Duration = Duration::from_secs(2);

/// Held for as long as the process lives, however it ends. The file goes when this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
    /// The kernel unlocks it when it is closed.
    file: Option<File>,
}

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Another process has it: `pid 812 (acctd)`, where that can be seen.
    Taken(Option<String>),
    /// The file cannot be made or locked.
    Impossible(io::Error),
}

impl DirectoryLock {
    /// Locks what processes with this lowest group have in the directory.
    pub fn take(directory: &Path, tag: NflogGroup) -> Result<Self, LockError> {
        let path = directory.join(format!(".acctd-{tag}.lock"));
        loop {
            let file = open(&path).map_err(LockError::Impossible)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Taken(owner(&file))),
                Err(TryLockError::Error(error)) => return Err(LockError::Impossible(error)),
            }
            // Whoever had it may have removed the file since it was opened.
            if is_same(&file, &path) {
                return Ok(Self {
                    path,
                    file: Some(file),
                });
            }
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let (path, file) = (std::mem::take(&mut self.path), self.file.take());
        let (done, is_done) = mpsc::channel::<()>();
        // A file that stays does no harm.
        let _stays = thread::Builder::new().spawn(move || {
            // Before it is unlocked.
            let _stays = fs::remove_file(path);
            drop((file, done));
        });
        // A disk that does not answer must not keep the process from its end.
        let _done = is_done.recv_timeout(LONGEST_REMOVAL);
    }
}

/// Not for writing, or the disk could not be made read-only for as long as acctd runs.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(FILE_MODE))?.into())
}

fn is_same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => (file.dev(), file.ino()) == (path.dev(), path.ino()),
        _ => false,
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
        (its_inode == inode).then(|| nflog_table::process(pid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_told_who_has_it_and_the_next_one_gets_it() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
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
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
        DirectoryLock::take(directory, NflogGroup(5)).unwrap();
    }
}
