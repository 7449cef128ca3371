//! Files and archives of a host, merged by address: each is read once, in little memory.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::archive_rows::ArchiveRows;
use super::rows;
use crate::model::columns::Columns;
use crate::model::row::Row;

/// The rows of a CSV file that is sorted by address, as acctd's are. It is open only while it is read from: a day may have
/// more files than a process may open.
#[derive(Debug)]
pub(crate) struct CsvRows {
    path: PathBuf,
    columns: Columns,
    offset: u64,
    buffer: Vec<u8>,
    /// What of the buffer is text, and not yet read.
    rest: Range<usize>,
    n_before: u64,
    next: Option<Row>,
}

impl CsvRows {
    /// `size` bytes are read at once.
    pub(crate) fn open(path: &Path, size: usize) -> Result<Self> {
        let mut rows = Self {
            path: path.to_owned(),
            columns: Columns::Nflog,
            offset: 0,
            buffer: vec![0; size],
            rest: 0..0,
            n_before: 0,
            next: None,
        };
        let opened = (|| {
            let header = rows.line()?.context("it is empty")?;
            rows.columns = rows::columns(&rows.buffer[header])?;
            rows.advance()
        })();
        opened.with_context(|| path.display().to_string())?;
        Ok(rows)
    }

    fn take(&mut self, each: &mut impl FnMut(&Row) -> Result<()>) -> Result<()> {
        if let Some(row) = self.next.take() {
            each(&row)?;
            self.advance()
                .with_context(|| self.path.display().to_string())?;
            if self.next.is_some_and(|next| next.address <= row.address) {
                bail!("{}: it is not sorted", self.path.display());
            }
        }
        Ok(())
    }

    fn advance(&mut self) -> Result<()> {
        self.next = match self.line()? {
            None => None,
            Some(line) => Some(rows::row(&self.buffer[line], self.columns, self.n_before)?),
        };
        self.n_before += 1;
        Ok(())
    }

    /// Where the next line is in the buffer; `None` at the end.
    fn line(&mut self) -> Result<Option<Range<usize>>> {
        loop {
            let text = &self.buffer[self.rest.clone()];
            if let Some(length) = memchr::memchr(b'\n', text) {
                let line = self.rest.start..self.rest.start + length;
                self.rest.start = line.end + 1;
                return Ok(Some(line));
            }
            // Half a line goes to the front.
            self.buffer.copy_within(self.rest.clone(), 0);
            self.rest = 0..self.rest.len();
            if self.rest.end == self.buffer.len() {
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            let free = &mut self.buffer[self.rest.end..];
            let n = File::open(&self.path)?.read_at(free, self.offset)?;
            if n == 0 && self.rest.is_empty() {
                return Ok(None);
            }
            if n == 0 {
                bail!("its last line is cut off");
            }
            self.offset += u64::try_from(n)?;
            self.rest.end += n;
        }
    }
}

/// A file with the rows of `path` in order of their addresses: acctd's have them so, and of another `copy` gets one.
pub(crate) fn in_order(path: &Path, copy: PathBuf) -> Result<PathBuf> {
    let text = fs::read(path)?;
    let mut order = Order::default();
    rows::read(&text, |row| {
        order.note(row.address);
        Ok(())
    })?;
    if order.is_kept() {
        return Ok(path.to_owned());
    }
    write_sorted(&text, &copy)?;
    Ok(copy)
}

/// Whether addresses come in order, each once.
#[derive(Debug, Default)]
pub(crate) struct Order {
    last: Option<IpAddr>,
    is_broken: bool,
}

impl Order {
    pub(crate) fn note(&mut self, address: IpAddr) {
        let last = self.last.replace(address);
        self.is_broken |= last.is_some_and(|last| last >= address);
    }

    pub(crate) fn is_kept(&self) -> bool {
        !self.is_broken
    }
}

/// Writes the file's text with its rows in order of their addresses.
pub(crate) fn write_sorted(text: &[u8], target: &Path) -> Result<()> {
    let mut lines: Vec<(IpAddr, &[u8])> = Vec::new();
    let mut all = text.split_inclusive(|byte| *byte == b'\n');
    let header = all.next().unwrap_or_default();
    rows::read(text, |row| {
        lines.extend(all.next().map(|line| (row.address, line)));
        Ok(())
    })?;
    lines.sort_unstable();
    if let Some(twice) = lines.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        bail!("{} has two rows", twice[0].0);
    }
    let mut target = std::io::BufWriter::new(File::create_new(target)?);
    target.write_all(header)?;
    for (_, line) in lines {
        target.write_all(line)?;
    }
    Ok(target.flush()?)
}

/// Rows in order of their addresses.
#[derive(Debug)]
pub(crate) enum Source {
    Csv(Box<CsvRows>),
    Archive(Box<ArchiveRows>),
}

impl Source {
    fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Csv(rows) => rows.next.map(|row| row.address),
            Self::Archive(rows) => rows.address(),
        }
    }
}

/// Sources, merged.
#[derive(Debug)]
pub(crate) struct Merged {
    sources: Vec<Source>,
    /// The next address of each source that has one.
    next: BinaryHeap<Reverse<(IpAddr, usize)>>,
}

impl Merged {
    pub(crate) fn new(sources: Vec<Source>) -> Self {
        let numbered = sources.iter().enumerate();
        let next = numbered.filter_map(|(at, it)| Some(Reverse((it.address()?, at))));
        Self {
            next: next.collect(),
            sources,
        }
    }

    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.next.peek().map(|Reverse((address, _))| *address)
    }

    /// All rows of the next address, in the order of the sources, each with the number of its source and of its file
    /// there.
    pub(crate) fn take(
        &mut self,
        mut each: impl FnMut(usize, usize, &Row) -> Result<()>,
    ) -> Result<()> {
        let Some(wanted) = self.address() else {
            return Ok(());
        };
        while let Some(mut first) = self.next.peek_mut() {
            let Reverse((address, number)) = *first;
            if address != wanted {
                break;
            }
            let source = &mut self.sources[number];
            match source {
                Source::Csv(rows) => rows.take(&mut |row| each(number, 0, row))?,
                Source::Archive(rows) => rows.take(&mut |file, row| each(number, file, row))?,
            }
            match source.address() {
                Some(address) => first.0.0 = address,
                None => {
                    PeekMut::pop(first);
                }
            }
        }
        Ok(())
    }
}

/// How much of each of `n` files is read at once.
pub(crate) fn buffer_size(n: usize) -> usize {
    const ALL: usize = 48 << 20;
    (ALL / n.max(1)).clamp(1 << 10, 256 << 10)
}
