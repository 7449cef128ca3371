//! The rows of an archive, a batch at a time.

use std::net::IpAddr;
use std::ops::Range;
use std::str;

use acctd_common::Counters;
use anyhow::{Context as _, Result, ensure};
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::reader::{FileReader as _, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;

use super::archive::{self, ADDRESS, Archive, KERNEL, NFLOG, TIME, VERDICT, WIRE};
use crate::model::columns::Columns;
use crate::model::prefix::Side;
use crate::model::verdict::Verdict;
use crate::output::rows::{KernelRow, Row};

/// Rows that are decoded at once: their columns fit a processor's cache.
const BATCH: usize = 8_192;

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
    /// The next row's, of which the text was parsed.
    address: Option<IpAddr>,
}

impl std::fmt::Debug for ArchiveRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArchiveRows")
            .field("path", &self.path)
            .field("groups", &self.groups)
            .field("address", &self.address)
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
            address: None,
        };
        rows.load()
            .with_context(|| rows.path.display().to_string())?;
        Ok(rows)
    }

    /// Of the next rows.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// All rows of the next address, each with the number of its file in the archive.
    pub(crate) fn take(&mut self, each: &mut impl FnMut(usize, &Row) -> Result<()>) -> Result<()> {
        self.take_rows(each)
            .with_context(|| self.path.display().to_string())
    }

    fn take_rows(&mut self, each: &mut impl FnMut(usize, &Row) -> Result<()>) -> Result<()> {
        let Some(address) = self.address else {
            return Ok(());
        };
        let mut file = 0;
        while let Some(group) = &mut self.group {
            let text = group.addresses[group.at].clone();
            let end = group.end_of(&text);
            let at = group.at..end;
            for at in at {
                let time = group.times[at];
                // Most often the next file.
                if self.files.get(file).is_none_or(|it| it.0 != time) {
                    let found = self.files.binary_search_by_key(&time, |it| it.0);
                    file = found
                        .ok()
                        .context("it is damaged: a row's time is that of no file")?;
                }
                let row = group.row(at, address, self.files[file].1)?;
                each(file, &row)?;
                file += 1;
            }
            group.at = end;
            if end < group.times.len() {
                break;
            }
            self.load()?;
            // It may go on in the next batch.
            if self.address != Some(address) {
                return Ok(());
            }
        }
        self.parse_address()
    }

    /// The next batch, of this row group or of the next.
    fn load(&mut self) -> Result<()> {
        loop {
            if let Some(group) = &mut self.group
                && group.load()?
            {
                return self.parse_address();
            }
            self.group = None;
            let Some(number) = self.groups.next() else {
                self.address = None;
                return Ok(());
            };
            let reader = self.parquet.get_row_group(number)?;
            self.group = Some(Group::open(&*reader, self.has_kernel, self.has_wire)?);
        }
    }

    fn parse_address(&mut self) -> Result<()> {
        let group = self.group.as_ref();
        let text = group.and_then(|group| group.addresses.get(group.at));
        let address = text.map(|text| {
            let text = str::from_utf8(text.data()).unwrap_or_default();
            text.parse()
                .with_context(|| format!("it is damaged: {text:?} is no address"))
        });
        self.address = address.transpose()?;
        Ok(())
    }
}

/// A row group, and its current batch.
struct Group {
    n_left: usize,
    at: usize,
    time: ColumnReaderImpl<Int64Type>,
    address: ColumnReaderImpl<ByteArrayType>,
    nflog: [ColumnReaderImpl<Int64Type>; 4],
    kernel: Option<Kernel>,
    times: Vec<i64>,
    addresses: Vec<ByteArray>,
    counters: [Vec<i64>; 4],
}

struct Kernel {
    counters: [Optional<Int64Type>; 4],
    verdict: Optional<ByteArrayType>,
    wire: Option<[Optional<Int64Type>; 4]>,
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
            n_left: usize::try_from(group.metadata().num_rows())?,
            at: 0,
            time: column(group, TIME)?,
            address: column(group, ADDRESS)?,
            nflog: four(|at| column(group, NFLOG + at))?,
            kernel: has_kernel.then(kernel).transpose()?,
            times: Vec::with_capacity(BATCH),
            addresses: Vec::with_capacity(BATCH),
            counters: [0; 4].map(|_| Vec::with_capacity(BATCH)),
        })
    }

    /// Whether there is another batch.
    fn load(&mut self) -> Result<bool> {
        let n = self.n_left.min(BATCH);
        self.n_left -= n;
        self.at = 0;
        read(&mut self.time, n, &mut self.times)?;
        read(&mut self.address, n, &mut self.addresses)?;
        for (column, values) in self.nflog.iter_mut().zip(&mut self.counters) {
            read(column, n, values)?;
        }
        if let Some(kernel) = &mut self.kernel {
            let columns = kernel
                .counters
                .iter_mut()
                .chain(kernel.wire.iter_mut().flatten());
            for column in columns {
                column.load(n)?;
            }
            kernel.verdict.load(n)?;
        }
        Ok(n > 0)
    }

    /// Where the rows with this address end, from the next row on.
    fn end_of(&self, address: &ByteArray) -> usize {
        let rest = &self.addresses[self.at..];
        let same = rest.iter().take_while(|it| *it == address);
        self.at + same.count()
    }

    fn row(&mut self, at: usize, address: IpAddr, columns: Columns) -> Result<Row> {
        let [source_bytes, source_packets, dest_bytes, dest_packets] =
            [0, 1, 2, 3].map(|column: usize| self.counters[column][at].cast_unsigned());
        let mut row = Row {
            address,
            source: Counters {
                bytes: source_bytes,
                packets: source_packets,
            },
            dest: Counters {
                bytes: dest_bytes,
                packets: dest_packets,
            },
            kernel: None,
        };
        if let Some(kernel) = &mut self.kernel
            && columns >= Columns::CrossCheck
        {
            row.kernel = Some(kernel.row(columns)?);
        }
        Ok(row)
    }
}

impl Kernel {
    /// The next one.
    fn row(&mut self, columns: Columns) -> Result<KernelRow> {
        let [source, dest] = counters(&mut self.counters)?;
        let text = self.verdict.next()?;
        let mut all = Verdict::ALL.into_iter();
        let mut row = KernelRow {
            source,
            dest,
            verdict: all
                .find(|verdict| verdict.text().as_bytes() == text.data())
                .context("it is damaged: an unknown verdict")?,
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
        ensure!(
            n_read == n,
            "it is damaged: a column is shorter than the others"
        );
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
    ensure!(
        n_read == n,
        "it is damaged: a column is shorter than the others"
    );
    Ok(())
}

fn four<T>(mut make: impl FnMut(usize) -> Result<T>) -> Result<[T; 4]> {
    Ok([make(0)?, make(1)?, make(2)?, make(3)?])
}
