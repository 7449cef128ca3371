//! Files in the log directory that appear whole or not at all: written under a temporary name, synced, renamed, and
//! the directory synced. Mode 0640.

use std::fs::File;
use std::io;

use log::warn;
use rustix::fs::OFlags;

use crate::model::group::NflogGroup;
use crate::output::log_directory::{FileId, LogDirectory};

/// The ending of temporary names.
pub(crate) const TEMPORARY: &str = "tmp";

/// The prefix of the names of acctd's temporary files, records and checkpoints. `tag` distinguishes processes that
/// share a directory: it is the lowest group of each.
pub(crate) fn own_prefix(tag: NflogGroup) -> String {
    format!(".acctd-{tag}-")
}

/// Creates a file under a free temporary name.
pub(crate) fn create_temporary(
    directory: &LogDirectory,
    tag: NflogGroup,
    stem: &str,
) -> io::Result<(String, File)> {
    let stem = format!("{}{stem}", own_prefix(tag));
    for name in free_names(&stem, TEMPORARY) {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        match directory.open_file(&name, flags) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return Ok((name, opened?)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Replaces the file `name` by a new one. If that fails, the old file stays.
pub(crate) fn replace(
    directory: &LogDirectory,
    tag: NflogGroup,
    name: &str,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let (temporary, file) = create_temporary(directory, tag, name)?;
    let replaced = write(&file)
        .and_then(|()| file.sync_all())
        .and_then(|()| directory.rename(&temporary, name));
    if replaced.is_err() {
        // The first error is reported.
        let _already_failing = directory.remove(&temporary);
    }
    replaced?;
    sync_rename(directory, name);
    Ok(())
}

/// Makes a rename survive a power cut. The rename has happened, so an error is only logged.
pub(crate) fn sync_rename(directory: &LogDirectory, name: &str) {
    if let Err(error) = directory.sync() {
        warn!("{name} may not survive a power cut: {error}");
    }
}

/// Renames `from` to the first free name of `STEM.csv`, `STEM-1.csv`, … and returns that. If the file already has
/// such a name, it gets no other.
pub(crate) fn rename_to_free_name(
    directory: &LogDirectory,
    from: &str,
    stem: &str,
) -> io::Result<String> {
    let found = directory.find(from)?;
    if found.n_links > 1
        && let Some(name) = name_of(directory, stem, found.id)?
    {
        // The file has its name. An error here must not lead to another try, which would give it a second one.
        let _spare_name_stays = directory.remove(from);
        return Ok(name);
    }
    to_free_name(directory, from, stem, "csv")
}

/// The name that [`rename_to_free_name`] gave to this file, if it did.
pub(crate) fn name_of(
    directory: &LogDirectory,
    stem: &str,
    id: FileId,
) -> io::Result<Option<String>> {
    let is_it = |name: &String| {
        let rest = name.strip_prefix(stem);
        rest.is_some_and(|rest| rest.strip_suffix(".csv").is_some())
            && directory.is_name_of(name, id)
    };
    Ok(directory.names()?.into_iter().find(is_it))
}

/// Renames a damaged file to a name that acctd does not read, and returns that. Files that were set aside before are
/// not replaced.
pub(crate) fn set_aside(directory: &LogDirectory, name: &str) -> io::Result<String> {
    to_free_name(directory, name, name, "damaged")
}

fn to_free_name(
    directory: &LogDirectory,
    from: &str,
    stem: &str,
    ending: &str,
) -> io::Result<String> {
    for name in free_names(stem, ending) {
        match directory.rename_without_replacing(from, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            renamed => return renamed.map(|()| name),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The first name of `STEM.ending`, `STEM-1.ending`, … that no file has: for `csv`, the one that [`rename_to_free_name`]
/// gives, unless another process takes it meanwhile.
pub(crate) fn free_name(directory: &LogDirectory, stem: &str, ending: &str) -> String {
    let mut names = free_names(stem, ending);
    names
        .find(|name| directory.find(name).is_err())
        .unwrap_or_default()
}

/// `STEM.ending`, `STEM-1.ending`, …
fn free_names(stem: &str, ending: &str) -> impl Iterator<Item = String> {
    (0..u32::MAX).map(move |n| match n {
        0 => format!("{stem}.{ending}"),
        n => format!("{stem}-{n}.{ending}"),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    const TAG: NflogGroup = NflogGroup(5);

    fn names(directory: &LogDirectory) -> Vec<String> {
        let mut names = directory.names().unwrap();
        names.retain(|name| !name.trim_matches('.').is_empty());
        names.sort();
        names
    }

    #[test]
    fn an_existing_file_is_never_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        fs::write(directory.path_of("a.csv"), "older").unwrap();
        fs::write(directory.path_of(".acctd-5-a.tmp"), "somebody's").unwrap();
        for expected in ["a-1.csv", "a-2.csv"] {
            let (temporary, mut file) = create_temporary(directory, TAG, "a").unwrap();
            assert_eq!(temporary, ".acctd-5-a-1.tmp");
            file.write_all(b"new").unwrap();
            assert_eq!(free_name(directory, "a", "csv"), expected);
            let name = rename_to_free_name(directory, &temporary, "a").unwrap();
            assert_eq!(name, expected);
        }
        assert_eq!(
            names(directory),
            [".acctd-5-a.tmp", "a-1.csv", "a-2.csv", "a.csv"]
        );
        assert_eq!(fs::read(directory.path_of("a.csv")).unwrap(), b"older");
        assert_eq!(fs::read(directory.path_of("a-2.csv")).unwrap(), b"new");
    }

    /// As if acctd was killed between the link and the removal of the other name.
    #[test]
    fn a_file_that_has_its_name_gets_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        for is_older_there in [true, false] {
            if is_older_there {
                fs::write(directory.path_of("a.csv"), "older").unwrap();
            }
            let (temporary, _) = create_temporary(directory, TAG, "a").unwrap();
            let link = directory.path_of("a-1.csv");
            fs::hard_link(directory.path_of(&temporary), &link).unwrap();
            let name = rename_to_free_name(directory, &temporary, "a").unwrap();
            assert_eq!(name, "a-1.csv");
            directory.remove("a.csv").unwrap();
            assert_eq!(names(directory), ["a-1.csv"]);
            fs::remove_file(link).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_set_aside_replaces_nothing() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        for (text, expected) in [("1", "a.damaged"), ("2", "a-1.damaged")] {
            fs::write(directory.path_of("a"), text).unwrap();
            assert_eq!(set_aside(directory, "a").unwrap(), expected);
            assert_eq!(
                fs::read_to_string(directory.path_of(expected)).unwrap(),
                text
            );
        }
    }

    #[test]
    fn a_failed_replacement_keeps_the_old_file_and_leaves_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        let write = |text: &'static [u8]| move |mut file: &File| file.write_all(text);
        replace(directory, TAG, "a", write(b"old")).unwrap();
        let full = |_: &File| Err(io::ErrorKind::StorageFull.into());
        let error = replace(directory, TAG, "a", full).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(directory.path_of("a")).unwrap(), b"old");
        replace(directory, TAG, "a", write(b"new")).unwrap();
        assert_eq!(fs::read(directory.path_of("a")).unwrap(), b"new");
        assert_eq!(names(directory), ["a"]);
    }
}
