//! Files in the log directory that appear whole or not at all: written under a name of their own,
//! synced, renamed, and the directory synced. Mode 0640.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use log::warn;
use rustix::fs::{CWD, RenameFlags};

use crate::nflog_socket::NflogGroup;

/// Who may read accounting data: the owner and its group.
pub const FILE_MODE: u32 = 0o640;
/// How the names of files end that are not whole.
pub const TEMPORARY: &str = "tmp";

/// What the names of acctd's own files begin with. `tag` tells apart the processes that share a
/// directory: it is the lowest group of each.
#[must_use]
pub fn own_prefix(tag: NflogGroup) -> String {
    format!(".acctd-{tag}-")
}

/// A new file under a temporary name. One that was there before is left alone.
pub fn create_temporary(
    directory: &Path,
    tag: NflogGroup,
    stem: &str,
) -> io::Result<(String, File)> {
    let stem = format!("{}{stem}", own_prefix(tag));
    for name in free_names(&stem, TEMPORARY) {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        match options.open(directory.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((name, opened?)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Puts a whole file in the place of `name`, or leaves what was there.
pub fn replace(
    directory: &Path,
    tag: NflogGroup,
    name: &str,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let (temporary, file) = create_temporary(directory, tag, name)?;
    let temporary = directory.join(temporary);
    let replaced = write(&file)
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&temporary, directory.join(name)));
    if replaced.is_err() {
        // The error to report is the first.
        let _already_failing = fs::remove_file(&temporary);
    }
    replaced?;
    sync_rename(directory, name);
    Ok(())
}

/// Makes a rename last over a power cut. It has happened, so an error can only be said.
pub fn sync_rename(directory: &Path, name: &str) {
    if let Err(error) = sync_directory(directory) {
        warn!("{name} may not outlast a power cut: {error}");
    }
}

/// Makes what was renamed or removed in `directory` so for good.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a file that need not be there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Renames `directory/from` to the first free one of `STEM.csv`, `STEM-1.csv`, … and returns it.
pub fn rename_to_free_name(directory: &Path, from: &str, stem: &str) -> io::Result<String> {
    let from = directory.join(from);
    for name in free_names(stem, "csv") {
        match rename_without_replacing(&from, &directory.join(&name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The name that [`rename_to_free_name`] gives, unless somebody takes it in between.
#[must_use]
pub fn free_name(directory: &Path, stem: &str) -> String {
    let mut names = free_names(stem, "csv");
    names
        .find(|name| directory.join(name).symlink_metadata().is_err())
        .unwrap_or_default()
}

/// `STEM.ending`, `STEM-1.ending`, …
fn free_names(stem: &str, ending: &str) -> impl Iterator<Item = String> {
    (0..u32::MAX).map(move |n| match n {
        0 => format!("{stem}.{ending}"),
        n => format!("{stem}-{n}.{ending}"),
    })
}

/// Fails if `to` is there.
pub fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
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
    use std::io::Write as _;

    use super::*;

    const TAG: NflogGroup = NflogGroup(5);

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
        fs::write(directory.join(".acctd-5-a.tmp"), "somebody's").unwrap();
        for expected in ["a-1.csv", "a-2.csv"] {
            let (temporary, mut file) = create_temporary(directory, TAG, "a").unwrap();
            assert_eq!(temporary, ".acctd-5-a-1.tmp");
            file.write_all(b"new").unwrap();
            assert_eq!(free_name(directory, "a"), expected);
            let name = rename_to_free_name(directory, &temporary, "a").unwrap();
            assert_eq!(name, expected);
        }
        assert_eq!(
            names(directory),
            [".acctd-5-a.tmp", "a-1.csv", "a-2.csv", "a.csv"]
        );
        assert_eq!(fs::read(directory.join("a.csv")).unwrap(), b"older");
        assert_eq!(fs::read(directory.join("a-2.csv")).unwrap(), b"new");
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let write = |text: &'static [u8]| move |mut file: &File| file.write_all(text);
        replace(directory, TAG, "a", write(b"old")).unwrap();
        let full = |_: &File| Err(io::ErrorKind::StorageFull.into());
        let error = replace(directory, TAG, "a", full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(directory.join("a")).unwrap(), b"old");
        replace(directory, TAG, "a", write(b"new")).unwrap();
        assert_eq!(fs::read(directory.join("a")).unwrap(), b"new");
        assert_eq!(names(directory), ["a"]);
    }
}
