//! What this host has: finished files, and their lines of `intervals.jsonl`.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use acctd_common::Counters;
use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::files::calendar::Calendar;
use crate::files::directory::{self, Stem};
use crate::files::journal::{self, Described};
use crate::files::rows;
use crate::model::columns::{Columns, JOURNAL};
use crate::model::interval::{Period, UnixNanos};

/// A file without a line in the journal is sent without one when it is this old: acctd writes the line right after the file.
const WITHOUT_LINE: Duration = Duration::from_secs(60);
/// What is read of a file at once.
const BUFFER: usize = 65_536;

/// The directory of acctd's files. It is only read.
#[derive(Debug)]
pub(super) struct Local {
    directory: PathBuf,
    calendar: Calendar,
    /// Of the journal, as far as it was read.
    journal: Position,
    /// Where it has the lines of files that are not sent.
    lines: HashMap<String, Range<u64>>,
}

#[derive(Debug, Default)]
struct Position {
    inode: u64,
    offset: u64,
}

/// A finished file.
#[derive(Clone, Debug)]
pub(super) struct Finished {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// By its name, until it is described.
    pub(super) period: Period,
    /// Its line of the journal.
    pub(super) line: Option<String>,
    pub(super) described: Option<Described>,
}

/// What a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) columns: Columns,
    pub(super) sums: Sums,
    /// In hexadecimal.
    pub(super) sha256: String,
}

/// Of the rows of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(super) struct Sums {
    pub(super) rows: u64,
    pub(super) source_bytes: u64,
    pub(super) source_packets: u64,
    pub(super) dest_bytes: u64,
    pub(super) dest_packets: u64,
}

impl Local {
    pub(super) fn new(directory: &Path, calendar: Calendar) -> Self {
        Self {
            directory: directory.to_owned(),
            calendar,
            journal: Position::default(),
            lines: HashMap::new(),
        }
    }

    /// The finished files that `is_wanted` (by their names) takes, in the order of their names, which is that of their times.
    pub(super) fn finished(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Finished>> {
        // Before the journal is read, which has the line of each file that has its name for long enough.
        let names = directory::names(&self.directory)?;
        self.read_journal(&is_wanted)?;
        let mut stems: BTreeMap<&str, Stem> = BTreeMap::new();
        for name in names.iter().filter(|name| is_wanted(name)) {
            stems.extend(Stem::parse(name).map(|stem| (name.as_str(), stem)));
        }
        let mut finished = Vec::new();
        for (name, stem) in stems {
            let path = self.directory.join(name);
            let Ok(metadata) = fs::metadata(&path) else {
                // acctd archive has deleted it.
                continue;
            };
            let age = metadata.modified()?.elapsed().unwrap_or_default();
            if !self.lines.contains_key(name) && age < WITHOUT_LINE {
                continue;
            }
            finished.push(Finished {
                name: name.to_owned(),
                path,
                size: metadata.len(),
                period: stem.period(&self.calendar)?,
                line: None,
                described: None,
            });
        }
        Ok(finished)
    }

    /// With its line, if it has one.
    pub(super) fn describe(&self, mut file: Finished) -> Result<Finished> {
        if let Some(place) = self.lines.get(&file.name) {
            let mut text = vec![0; usize::try_from(place.end - place.start)?];
            File::open(self.directory.join(JOURNAL))?.read_exact_at(&mut text, place.start)?;
            let line = String::from_utf8(text)?;
            let (_, described) = journal::parse(&line)?;
            file.period = described.period;
            file.described = Some(described);
            file.line = Some(line);
        }
        Ok(file)
    }

    /// Files that are there and in the database, without their lines. Of a file that is, `start_of` knows its start.
    pub(super) fn marked(
        &self,
        start_of: impl Fn(&str) -> Option<UnixNanos>,
    ) -> Result<Vec<Finished>> {
        let names = directory::names(&self.directory)?;
        let marked = names.into_iter().filter_map(|name| {
            let start = start_of(&name)?;
            let path = self.directory.join(&name);
            Some(Finished {
                // acctd archive may have deleted it.
                size: fs::metadata(&path).ok()?.len(),
                path,
                name,
                period: Period { start, end: start },
                line: None,
                described: None,
            })
        });
        Ok(marked.collect())
    }

    /// A file has to be sent again whose line was forgotten.
    pub(super) fn read_journal_again(&mut self) {
        self.journal = Position::default();
    }

    /// A file that was sent needs its line no more.
    pub(super) fn forget(&mut self, name: &str) {
        self.lines.remove(name);
    }

    /// What was added to the journal since the last time: lines of files that are wanted and there.
    fn read_journal(&mut self, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        let path = self.directory.join(JOURNAL);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let metadata = file.metadata()?;
        if metadata.ino() != self.journal.inode || metadata.len() < self.journal.offset {
            // Another one.
            self.journal = Position {
                inode: metadata.ino(),
                offset: 0,
            };
            self.lines.clear();
        }
        file.seek(SeekFrom::Start(self.journal.offset))?;
        let mut reader = BufReader::with_capacity(BUFFER, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                // It is being written, or a power cut has left half of it.
                return Ok(());
            }
            let start = self.journal.offset;
            self.journal.offset += u64::try_from(n)?;
            let text = String::from_utf8_lossy(&line);
            // Half a line, to which a whole one was added, has no file.
            if let Ok((name, _)) = journal::parse(text.trim_end())
                && is_wanted(&name)
                && self.directory.join(&name).exists()
            {
                self.lines.insert(name, start..self.journal.offset - 1);
            }
        }
    }
}

impl Finished {
    /// Reads it once. An error if it is damaged, or has not what its line in the journal says.
    pub(super) fn content(&self) -> Result<Content> {
        let mut reader = BufReader::with_capacity(BUFFER, File::open(&self.path)?);
        let mut digest = Sha256::new();
        let mut line = Vec::new();
        let mut columns = None;
        let mut sums = Sums::default();
        while reader.read_until(b'\n', &mut line)? > 0 {
            digest.update(&line);
            ensure!(line.pop() == Some(b'\n'), "its last line is cut off");
            if let Some(columns) = columns {
                sums.add(&rows::row(&line, columns, sums.rows)?);
            } else {
                columns = Some(rows::columns(&line)?);
            }
            line.clear();
        }
        let Some(columns) = columns else {
            bail!("it is empty");
        };
        if let Some(described) = &self.described {
            described.check(sums.rows, [sums.dest_bytes, sums.source_bytes])?;
        }
        Ok(Content {
            columns,
            sums,
            sha256: hex::encode(digest.finalize()),
        })
    }
}

impl Sums {
    fn add(&mut self, row: &crate::model::row::Row) {
        let Counters { bytes, packets } = row.source;
        self.rows += 1;
        self.source_bytes += bytes;
        self.source_packets += packets;
        self.dest_bytes += row.dest.bytes;
        self.dest_packets += row.dest.packets;
    }
}

/// The rows of files as the data of an INSERT: host, file and start (UTC), then the file's line as it is from the address on.
pub(super) struct Rows<'f> {
    host: String,
    files: std::slice::Iter<'f, Finished>,
    current: Option<BufReader<File>>,
    /// What each line of the current file begins with.
    front: Vec<u8>,
    line: Vec<u8>,
    text: Vec<u8>,
    at: usize,
}

impl<'f> Rows<'f> {
    pub(super) fn new(host: &str, files: &'f [Finished]) -> Self {
        Self {
            host: host.to_owned(),
            files: files.iter(),
            current: None,
            front: Vec::new(),
            line: Vec::new(),
            text: Vec::with_capacity(BUFFER * 2),
            at: 0,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.text.clear();
        self.at = 0;
        while self.text.len() < BUFFER {
            let Some(reader) = &mut self.current else {
                let Some(file) = self.files.next() else {
                    return Ok(());
                };
                let mut reader = BufReader::with_capacity(BUFFER, File::open(&file.path)?);
                // The names of its columns.
                reader.skip_until(b'\n')?;
                let (start, _) = file.period.start.seconds_and_nanos();
                self.front = format!(
                    "{},{},{start},",
                    csv_quoted(&self.host),
                    csv_quoted(&file.name)
                )
                .into();
                self.current = Some(reader);
                continue;
            };
            self.line.clear();
            if reader.read_until(b'\n', &mut self.line)? == 0 {
                self.current = None;
                continue;
            }
            // The time of the file, in its own zone.
            let Some(comma) = memchr::memchr(b',', &self.line) else {
                return Err(io::Error::other("a line without a comma: it has changed"));
            };
            self.text.extend_from_slice(&self.front);
            self.text.extend_from_slice(&self.line[comma + 1..]);
        }
        Ok(())
    }
}

impl Read for Rows<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.text.len() {
            self.fill()?;
        }
        let n = (&self.text[self.at..]).read(buffer)?;
        self.at += n;
        Ok(n)
    }
}

fn csv_quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
