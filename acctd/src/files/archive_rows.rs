//! The rows of an archive, a batch at a time.

use std::net::IpAddr;
use std::ops::Range;

use acctd_common::Counters;
use anyhow::{Context as _, Result, ensure};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArrayType, DataType, Int64Type};
use parquet::file::reader::{FileReader as _, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;

use super::address_runs::AddressRuns;
use super::archive::{self, ADDRESS, Archive, KERNEL, NFLOG, TIME, VERDICT, WIRE};
use crate::model::columns::Columns;
use crate::model::prefix::Side;
use crate::model::row::{KernelRow, Row};
use crate::model::verdict::Verdict;

/// Rows that are decoded at once: their columns fit a processor's cache.
const BATCH: usize = 2_048;

/// What of the columns is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Nflog,
    All,
}

/// The rows of some row groups.
pub(crate) struct ArchiveRows {
    parquet: SerializedFileReader<std::fs::File>,
    path: std::path::PathBuf,
    /// Microseconds at which its files begin, and their columns.
    files: Vec<(i64, Columns)>,
    groups: Range<usize>,
    has_kernel: bool,
    has_wire: bool,
    group: Option<Group>,
    /// The next address, and how many rows it has.
    next: Option<(IpAddr, usize)>,
}

impl std::fmt::Debug for ArchiveRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveRows")
            .field("path", &self.path)
            .field("groups", &self.groups)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl ArchiveRows {
    pub(crate) fn open(archive: &Archive, groups: Range<usize>, wanted: Wanted) -> Result<Self> {
        let has = |columns| {
            wanted == Wanted::All && archive.files.iter().any(|file| file.columns >= columns)
        };
        let mut rows = Self {
            parquet: archive::open(&archive.path)?,
            path: archive.path.clone(),
            files: archive
                .files
                .iter()
                .map(|file| (file.period.start.0 / 1_000, file.columns))
                .collect(),
            groups,
            has_kernel: has(Columns::CrossCheck),
            has_wire: has(Columns::Wire),
            group: None,
            next: None,
        };
        rows.find_next()
            .with_context(|| rows.path.display().to_string())?;
        Ok(rows)
    }

    /// Of the next rows.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.next.map(|(address, _)| address)
    }

    /// All rows of the next address, each with the number of its file in the archive.
    pub(crate) fn take(&mut self, each: &mut impl FnMut(usize, &Row) -> Result<()>) -> Result<()> {
        let taken = self.take_rows(each).and_then(|()| self.find_next());
        taken.with_context(|| self.path.display().to_string())
    }

    /// The same rows, where the next ones are of files that follow each other: the number of the first file, and the columns
    /// without the cross-check's.
    pub(crate) fn take_columns(&mut self, each: &mut impl FnMut(usize, [&[i64]; 4])) -> Result<()> {
        let taken = self.columns_of_next(each).and_then(|()| self.find_next());
        taken.with_context(|| self.path.display().to_string())
    }

    fn columns_of_next(&mut self, each: &mut impl FnMut(usize, [&[i64]; 4])) -> Result<()> {
        let (Some((_, mut n_left)), Some(group)) = (self.next, &mut self.group) else {
            return Ok(());
        };
        while n_left > 0 {
            let (first, n) = group.following_files(&self.files, n_left)?;
            let rows = group.at..group.at + n;
            each(
                first,
                [0, 1, 2, 3].map(|column: usize| &group.counters[column][rows.clone()]),
            );
            group.at += n;
            n_left -= n;
        }
        Ok(())
    }

    fn take_rows(&mut self, each: &mut impl FnMut(usize, &Row) -> Result<()>) -> Result<()> {
        let (Some((address, mut n_left)), Some(group)) = (self.next, &mut self.group) else {
            return Ok(());
        };
        while n_left > 0 {
            let (first, n) = group.following_files(&self.files, n_left)?;
            for file in first..first + n {
                let row = group.next_row(address, self.files[file].1)?;
                each(file, &row)?;
            }
            n_left -= n;
        }
        Ok(())
    }

    /// The next address, of this row group or of the next.
    fn find_next(&mut self) -> Result<()> {
        loop {
            if let Some(group) = &mut self.group {
                self.next = group.addresses.next()?;
                if self.next.is_some() {
                    return Ok(());
                }
            }
            let Some(number) = self.groups.next() else {
                self.next = None;
                return Ok(());
            };
            let reader = self.parquet.get_row_group(number)?;
            self.group = Some(Group::open(&*reader, self.has_kernel, self.has_wire)?);
        }
    }
}

const NO_FILE: &str = "it is damaged: a row's time is that of no file";
const SHORT: &str = "it is damaged: a column is shorter than the others";

/// A row group, and its current batch.
struct Group {
    addresses: AddressRuns,
    n_left: usize,
    /// The next row in the batch.
    at: usize,
    time: ColumnReaderImpl<Int64Type>,
    nflog: [ColumnReaderImpl<Int64Type>; 4],
    kernel: Option<Kernel>,
    times: Vec<i64>,
    counters: [Vec<i64>; 4],
}

impl Group {
    fn open(group: &dyn RowGroupReader, has_kernel: bool, has_wire: bool) -> Result<Self> {
        let kernel = || {
            Ok::<_, anyhow::Error>(Kernel {
                counters: four(|at| Optional::open(group, KERNEL + at))?,
                verdict: Optional::open(group, VERDICT)?,
                wire: has_wire
                    .then(|| four(|at| Optional::open(group, WIRE + at)))
                    .transpose()?,
            })
        };
        Ok(Self {
            addresses: AddressRuns::new(group.get_column_page_reader(ADDRESS)?),
            n_left: usize::try_from(group.metadata().num_rows())?,
            at: 0,
            time: column(group, TIME)?,
            nflog: four(|at| column(group, NFLOG + at))?,
            kernel: has_kernel.then(kernel).transpose()?,
            times: Vec::with_capacity(BATCH),
            counters: [0; 4].map(|_| Vec::with_capacity(BATCH)),
        })
    }

    /// Of the next rows, at most `n` and one at least, those of files that follow each other: the number of the first file,
    /// and how many.
    fn following_files(&mut self, files: &[(i64, Columns)], n: usize) -> Result<(usize, usize)> {
        let n = self.load()?.min(n);
        ensure!(n > 0, SHORT);
        let times = &self.times[self.at..self.at + n];
        let first = files.binary_search_by_key(&times[0], |it| it.0);
        let first = first.ok().context(NO_FILE)?;
        let of_files = times.iter().zip(&files[first..]);
        let same = of_files.take_while(|(time, file)| **time == file.0);
        Ok((first, same.count()))
    }

    /// How many rows the batch has left; if none, the next one is decoded.
    fn load(&mut self) -> Result<usize> {
        if self.at == self.times.len() {
            let n = self.n_left.min(BATCH);
            self.n_left -= n;
            self.at = 0;
            read(&mut self.time, n, &mut self.times)?;
            for (column, values) in self.nflog.iter_mut().zip(&mut self.counters) {
                read(column, n, values)?;
            }
            if let Some(kernel) = &mut self.kernel {
                let columns = kernel.counters.iter_mut();
                for column in columns.chain(kernel.wire.iter_mut().flatten()) {
                    column.load(n)?;
                }
                kernel.verdict.load(n)?;
            }
        }
        Ok(self.times.len() - self.at)
    }

    #[inline]
    fn next_row(&mut self, address: IpAddr, columns: Columns) -> Result<Row> {
        let [source_bytes, source_packets, dest_bytes, dest_packets] = &self.counters;
        let counters = |bytes: &[i64], packets: &[i64]| Counters {
            bytes: bytes[self.at].cast_unsigned(),
            packets: packets[self.at].cast_unsigned(),
        };
        let mut row = Row {
            address,
            source: counters(source_bytes, source_packets),
            dest: counters(dest_bytes, dest_packets),
            kernel: None,
        };
        self.at += 1;
        if let Some(kernel) = &mut self.kernel
            && columns >= Columns::CrossCheck
        {
            row.kernel = Some(kernel.row(columns)?);
        }
        Ok(row)
    }
}

struct Kernel {
    counters: [Optional<Int64Type>; 4],
    verdict: Optional<ByteArrayType>,
    wire: Option<[Optional<Int64Type>; 4]>,
}

impl Kernel {
    /// The next one.
    fn row(&mut self, columns: Columns) -> Result<KernelRow> {
        let [source, dest] = counters(&mut self.counters)?;
        let text = self.verdict.next()?;
        let mut row = KernelRow {
            source,
            dest,
            verdict: Verdict::of_text(text.data()).context("it is damaged: an unknown verdict")?,
            segments: [Counters::default(); 2],
        };
        if let Some(wire) = &mut self.wire
            && columns >= Columns::Wire
        {
            let wire = counters(wire)?;
            for (side, counted) in [(Side::Source, source), (Side::Dest, dest)] {
                let wire = wire[side as usize];
                row.segments[side as usize] = Counters {
                    bytes: wire.bytes.wrapping_sub(counted.bytes),
                    packets: wire.packets.wrapping_sub(counted.packets),
                };
            }
        }
        Ok(row)
    }
}

/// The next of four columns: of the source and of the destination.
fn counters(columns: &mut [Optional<Int64Type>; 4]) -> Result<[Counters; 2]> {
    let mut numbers = [0; 4];
    for (number, column) in numbers.iter_mut().zip(columns) {
        *number = column.next()?.cast_unsigned();
    }
    let [source_bytes, source_packets, dest_bytes, dest_packets] = numbers;
    Ok([
        Counters {
            bytes: source_bytes,
            packets: source_packets,
        },
        Counters {
            bytes: dest_bytes,
            packets: dest_packets,
        },
    ])
}

/// A column that only rows of some files have.
struct Optional<T: DataType> {
    column: ColumnReaderImpl<T>,
    levels: Vec<i16>,
    values: Vec<T::T>,
    next: usize,
}

impl<T: DataType> Optional<T> {
    fn open(group: &dyn RowGroupReader, number: usize) -> Result<Self> {
        Ok(Self {
            column: column(group, number)?,
            levels: Vec::new(),
            values: Vec::new(),
            next: 0,
        })
    }

    fn load(&mut self, n: usize) -> Result<()> {
        self.levels.clear();
        self.values.clear();
        self.next = 0;
        let levels = Some(&mut self.levels);
        let (n_read, _, _) = self
            .column
            .read_records(n, levels, None, &mut self.values)?;
        ensure!(n_read == n, SHORT);
        Ok(())
    }

    fn next(&mut self) -> Result<T::T> {
        let value = self.values.get(self.next);
        self.next += 1;
        value
            .cloned()
            .context("it is damaged: a row lacks columns of its file")
    }
}

fn column<T: DataType>(group: &dyn RowGroupReader, number: usize) -> Result<ColumnReaderImpl<T>> {
    let is_it = group.metadata().column(number).column_type() == T::get_physical_type();
    ensure!(is_it, "it is damaged: column {number} has another type");
    Ok(get_typed_column_reader(group.get_column_reader(number)?))
}

fn read<T: DataType>(
    column: &mut ColumnReaderImpl<T>,
    n: usize,
    values: &mut Vec<T::T>,
) -> Result<()> {
    values.clear();
    let (n_read, _, _) = column.read_records(n, None, None, values)?;
    ensure!(n_read == n, SHORT);
    Ok(())
}

fn four<T>(mut make: impl FnMut(usize) -> Result<T>) -> Result<[T; 4]> {
    Ok([make(0)?, make(1)?, make(2)?, make(3)?])
}
