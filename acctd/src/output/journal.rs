//! The file `intervals.jsonl`: lines are appended whole or not at all.

use std::fs::File;
use std::io;
use std::io::Write;
use std::os::unix::fs::FileExt as _;

use log::warn;
use rustix::fs::OFlags;

use crate::model::columns::JOURNAL;
use crate::output::log_directory::LogDirectory;

/// Opened for reading too, to check how the file ends.
const APPENDING: OFlags = OFlags::RDWR.union(OFlags::APPEND);

/// Checks that an existing file can be appended to. A missing file is created later.
pub(crate) fn check(directory: &LogDirectory) -> io::Result<()> {
    match directory.open_file(JOURNAL, APPENDING) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Appends `line` whole or not at all, so a full disk leaves no half line. If a crash has left a half line, it is
/// ended first, so that it does not spoil this one.
pub(crate) fn append(directory: &LogDirectory, line: &[u8]) -> io::Result<()> {
    let mut file = directory.open_file(JOURNAL, APPENDING | OFlags::CREATE)?;
    let length_before = file.metadata()?.len();
    let written = end_half_line(&mut file, length_before)
        .and_then(|()| file.write_all(line))
        .and_then(|()| file.sync_data());
    if written.is_err() {
        // The first error is reported. If this fails too, the next append ends the half line.
        let _already_failing = file.set_len(length_before);
    }
    written
}

/// Whether `line` is one of the last lines.
pub(crate) fn has_line(directory: &LogDirectory, line: &[u8]) -> io::Result<bool> {
    /// In bytes. A line has some kilobytes, and few others were appended since.
    const LAST: u64 = 1 << 20;
    let file = match directory.open_file(JOURNAL, OFlags::RDONLY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    let mut last = vec![0; usize::try_from(length.min(LAST)).unwrap_or(0)];
    file.read_exact_at(&mut last, length.saturating_sub(LAST))?;
    let mut lines = last.split_inclusive(|byte| *byte == b'\n');
    Ok(lines.any(|found| found == line))
}

fn end_half_line(file: &mut File, length: u64) -> io::Result<()> {
    let mut last = [b'\n'];
    if let Some(position) = length.checked_sub(1) {
        file.read_exact_at(&mut last, position)?;
    }
    if last == [b'\n'] {
        return Ok(());
    }
    file.write_all(b"\n")?;
    warn!("{JOURNAL} ended with half a line, most likely from a crash; the next lines are whole");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_spoils_no_other() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = &LogDirectory::open(scratch.path()).unwrap();
        let path = directory.path_of(JOURNAL);
        for line in ["1\n", "2\n"] {
            append(directory, line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n");
        std::fs::write(&path, "1\n{\"start").unwrap();
        for line in ["3\n", "4\n"] {
            append(directory, line.as_bytes()).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "1\n{\"start\n3\n4\n"
        );
    }
}
