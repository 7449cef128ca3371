//! The log directory, through one descriptor: names are only looked up in it. Only regular files are opened. Through
//! a symbolic link acctd would read or write another file, with rights that the owner of the link may not have. On a
//! FIFO acctd would wait for ever.

use std::fs::{DirBuilder, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::fault_points::{self, reached};
use crate::process::user::FILE_MODE;

/// The open directory.
#[derive(Debug)]
pub(crate) struct LogDirectory {
    path: PathBuf,
    descriptor: OwnedFd,
}

/// Identifies a file independently of its name. If the answer to a rename was lost, this shows whether it happened. It
/// is not stored: a network file system may get another device number when it is mounted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    pub(crate) inode: u64,
}

impl FileId {
    pub(crate) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
        }
    }
}

/// The file of a name, of any type.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: FileId,
    /// How many names the file has.
    pub(crate) n_links: u64,
}

impl LogDirectory {
    /// Opens the directory. Its path may contain symbolic links.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            path: path.to_owned(),
            descriptor: rustix::fs::open(path, flags, Mode::empty())?,
        })
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            descriptor: self.descriptor.try_clone()?,
        })
    }

    /// The path of a file, for messages.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a regular file. With [`OFlags::CREATE`], a missing file is created.
    pub(crate) fn open_file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        // Without NONBLOCK, the open of a FIFO waits until another process opens it too.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        match rustix::fs::openat(&self.descriptor, name, flags, mode) {
            Err(Errno::LOOP) => Err(io::Error::other("it is a symbolic link")),
            // A socket, or a device without a driver.
            Err(Errno::NXIO) => Err(irregular()),
            opened => {
                let file = File::from(opened?);
                let kind = file.metadata()?.file_type();
                if kind.is_file() {
                    Ok(file)
                } else if kind.is_dir() {
                    Err(io::ErrorKind::IsADirectory.into())
                } else {
                    Err(irregular())
                }
            }
        }
    }

    /// Looks a name up. Links are not followed.
    pub(crate) fn find(&self, name: &str) -> io::Result<Found> {
        let found = rustix::fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW)?;
        #[allow(
            clippy::useless_conversion,
            reason = "the types differ between machines"
        )]
        Ok(Found {
            id: FileId {
                device: found.st_dev.into(),
                inode: found.st_ino.into(),
            },
            n_links: found.st_nlink.into(),
        })
    }

    /// Whether this file has this name.
    pub(crate) fn is_name_of(&self, name: &str, id: FileId) -> bool {
        self.find(name).is_ok_and(|found| found.id == id)
    }

    /// All names, in no order. Names that are not UTF-8 are left out: acctd has none.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes a file, if it exists.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// If `to` exists, it is replaced.
    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let directory = &self.descriptor;
        Ok(rustix::fs::renameat(directory, from, directory, to)?)
    }

    /// Fails if `to` is another file. Afterwards the file has only one name, even if earlier tries were interrupted.
    pub(crate) fn rename_without_replacing(&self, from: &str, to: &str) -> io::Result<()> {
        let directory = &self.descriptor;
        let id = self.find(from)?.id;
        let renamed = fault_points::renameat2().and_then(|()| {
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(directory, from, directory, to, flags)
        });
        let done = match renamed {
            // Some network and FUSE file systems do not have it. A hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let flags = AtFlags::empty();
                let linked = rustix::fs::linkat(directory, from, directory, to, flags);
                reached("linked");
                linked.and_then(|()| fault_points::answer("linked"))
            }
            renamed => renamed.and_then(|()| fault_points::answer("renamed")),
        };
        match done {
            // A server may rename the file, and its answer may get lost. Then the next try fails because the name
            // exists. The same happens at the next start if acctd is killed before the other name is removed.
            Err(error) if fault_points::answer("asked").is_err() || !self.is_name_of(to, id) => {
                Err(error.into())
            }
            _ => {
                // The file has its name. An error here must not lead to another try.
                let _spare_name_stays = self.remove(from);
                Ok(())
            }
        }
    }

    /// Makes renames and removals permanent.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }
}

fn irregular() -> io::Error {
    io::Error::other("it is not a regular file")
}

/// Creates a log directory with its parents, mode 0750 like go-nflog-acctd.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType};

    use super::*;

    #[test]
    fn only_regular_files_of_this_directory_are_opened() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("log");
        fs::create_dir(&path).unwrap();
        let directory = LogDirectory::open(&path).unwrap();
        let outside = scratch.path().join("outside");
        symlink(&outside, path.join("link")).unwrap();
        fs::create_dir(path.join("directory")).unwrap();
        let _socket = UnixListener::bind(path.join("socket")).unwrap();
        let (mode, device) = (Mode::from_raw_mode(0o600), 0);
        rustix::fs::mknodat(CWD, path.join("fifo"), FileType::Fifo, mode, device).unwrap();
        for (name, expected) in [
            ("link", "it is a symbolic link"),
            ("directory", "is a directory"),
            ("socket", "it is not a regular file"),
            ("fifo", "it is not a regular file"),
        ] {
            for flags in [
                OFlags::RDONLY,
                OFlags::RDONLY | OFlags::CREATE,
                OFlags::WRONLY | OFlags::APPEND,
                OFlags::RDWR | OFlags::APPEND | OFlags::CREATE,
            ] {
                let error = directory.open_file(name, flags).unwrap_err().to_string();
                let error = error.to_lowercase();
                assert!(error.contains(expected), "{name}, {flags:?}: {error}");
            }
        }
        assert!(!outside.exists());
        // Also if the link leads to a file, and if the directory was moved.
        fs::write(&outside, "1").unwrap();
        assert!(directory.open_file("link", OFlags::RDONLY).is_err());
        fs::rename(&path, scratch.path().join("moved")).unwrap();
        let flags = OFlags::WRONLY | OFlags::CREATE;
        directory.open_file("new", flags).unwrap();
        assert!(scratch.path().join("moved/new").exists());
        let mut names = directory.names().unwrap();
        names.sort();
        let expected = [".", "..", "directory", "fifo", "link", "new", "socket"];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_file_of_the_same_name_is_never_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = LogDirectory::open(scratch.path()).unwrap();
        for name in ["a", "b"] {
            fs::write(directory.path_of(name), name).unwrap();
        }
        let error = directory.rename_without_replacing("a", "b").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(directory.path_of("b")).unwrap(), b"b");
        // If both are names of one file, the first is removed.
        fs::hard_link(directory.path_of("a"), directory.path_of("c")).unwrap();
        directory.rename_without_replacing("a", "c").unwrap();
        assert!(directory.find("a").is_err());
        assert_eq!(directory.find("c").unwrap().n_links, 1);
    }
}
