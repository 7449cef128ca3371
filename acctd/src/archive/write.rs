//! The files of a day → the rows of an archive.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use acctd_common::Counters;
use anyhow::{Context as _, Result, ensure};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, Type};
use sha2::{Digest as _, Sha256};

use crate::files::archive::{Contents, Entry, KEY, VERSION, digest_row};
use crate::files::directory;
use crate::files::rows;
use crate::files::sorted::{CsvRows, Merged, Order, Source, buffer_size, write_sorted};
use crate::model::columns::Columns;
use crate::model::prefix::Side;
use crate::model::row::Row;

/// Rows of a row group, at least: readers skip those that cannot have an address.
const GROUP: usize = 1 << 17;
/// More bytes, and more rows, than a column of a row group has.
const PAGE: usize = 16 << 20;
/// Of the filter for addresses: how often it says of an address that it may be in a row group, and it is not.
const FALSE_POSITIVES: f64 = 0.01;
/// Of zstd: higher levels save 1 %, and take twice the time.
const LEVEL: i32 = 3;

/// Writes the files' rows, and what they are. Sorted copies of files that are not sorted are below `scratch` meanwhile.
pub(super) fn write(
    target: File,
    files: &[&directory::File],
    journal: &str,
    scratch: &Path,
) -> Result<()> {
    let mut entries = Vec::new();
    let mut sources = Vec::new();
    let size = buffer_size(files.len());
    for (number, file) in files.iter().enumerate() {
        let failed = || file.path.display().to_string();
        let copy = scratch.join(number.to_string());
        let (entry, path) = examine(file, copy).with_context(failed)?;
        entries.push(entry);
        sources.push(Source::Csv(Box::new(CsvRows::open(&path, size)?)));
    }
    let times: Vec<[i64; 2]> = entries.iter().map(|it| [it.start, it.end]).collect();
    let columns: Vec<usize> = entries.iter().map(|it| it.columns).collect();
    let mut contents = Contents {
        version: VERSION,
        files: entries,
        first_addresses: Vec::new(),
        journal_sha256: (!journal.is_empty()).then(|| hex::encode(Sha256::digest(journal))),
    };
    let mut parquet =
        SerializedFileWriter::new(target, Arc::new(schema()?), Arc::new(properties()?))?;
    let mut merged = Merged::new(sources);
    let mut group = Group::default();
    while let Some(address) = merged.address() {
        if group.times.is_empty() {
            contents.first_addresses.push(address);
        }
        let text = ByteArray::from(address.to_string().into_bytes());
        merged.take(|file, _, row| {
            group.add(&text, times[file], columns[file], row);
            Ok(())
        })?;
        if group.times.len() >= GROUP {
            group.write(&mut parquet)?;
        }
    }
    if !group.times.is_empty() {
        group.write(&mut parquet)?;
    }
    let contents = serde_json::to_string(&contents)?;
    parquet.append_key_value_metadata(KeyValue::new(KEY.to_owned(), contents));
    parquet.finish()?;
    Ok(parquet.inner().sync_all()?)
}

/// What the file is, after its line of the journal was found to be right; and a file with its rows in order, which is `copy`
/// if it is another.
fn examine(file: &directory::File, copy: PathBuf) -> Result<(Entry, PathBuf)> {
    let text = fs::read(&file.path)?;
    let mut digest = Sha256::new();
    let mut order = Order::default();
    let (columns, n_rows) = file.read_rows(&text, |row| {
        digest_row(&mut digest, row);
        order.note(row.address);
    })?;
    let mut sorted = file.path.clone();
    if !order.is_kept() {
        write_sorted(&text, &copy)?;
        digest = Sha256::new();
        rows::read(&fs::read(&copy)?, |row| {
            digest_row(&mut digest, row);
            Ok(())
        })?;
        sorted = copy;
    }
    let name = file.path.file_name().and_then(|name| name.to_str());
    let entry = Entry {
        name: name.context("its name is not UTF-8")?.to_owned(),
        start: micros(file.period.start.0)?,
        end: micros(file.period.end.0)?,
        size: u64::try_from(text.len())?,
        columns: columns.header().len(),
        rows: n_rows,
        sha256: hex::encode(Sha256::digest(&text)),
        rows_sha256: hex::encode(digest.finalize()),
    };
    Ok((entry, sorted))
}

fn micros(nanos: i64) -> Result<i64> {
    ensure!(nanos % 1_000 == 0, "its time is not of whole microseconds");
    Ok(nanos / 1_000)
}

/// The columns of a CSV file, and `End`.
fn schema() -> Result<Type> {
    let columns = Columns::Wire.header().into_iter().enumerate().map(|(at, name)| {
        let repetition = if at < Columns::Nflog.header().len() { "REQUIRED" } else { "OPTIONAL" };
        match name {
            "Time" => "REQUIRED INT64 Time (TIMESTAMP(MICROS,true)); REQUIRED INT64 End (TIMESTAMP(MICROS,true));".to_owned(),
            "IP" | "Verdict" => format!("{repetition} BYTE_ARRAY {name} (STRING);"),
            _ => format!("{repetition} INT64 {name} (INTEGER(64,false));"),
        }
    });
    let columns: String = columns.collect();
    Ok(parse_message_type(&format!(
        "message acctd {{ {columns} }}"
    ))?)
}

fn properties() -> Result<WriterProperties> {
    let path = |name: &str| ColumnPath::from(name);
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_created_by(format!("acctd {}", env!("CARGO_PKG_VERSION")))
        // Numbers of neighbouring rows are alike: a prefix's in the order of time. So are each of their bytes, and zstd has
        // a block for each if a page has all rows of a row group.
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::BYTE_STREAM_SPLIT)
        .set_data_page_size_limit(PAGE)
        .set_data_page_row_count_limit(PAGE)
        .set_column_encoding(path("Time"), Encoding::DELTA_BINARY_PACKED)
        .set_column_encoding(path("End"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_page_size_limit(path("IP"), PAGE)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_bloom_filter_enabled(path("IP"), true)
        .set_column_bloom_filter_fpp(path("IP"), FALSE_POSITIVES);
    for name in ["IP", "Verdict"] {
        properties = properties
            .set_column_dictionary_enabled(path(name), true)
            .set_column_encoding(path(name), Encoding::PLAIN);
    }
    Ok(properties.build())
}

/// The columns of a row group.
#[derive(Default)]
struct Group {
    times: Vec<i64>,
    ends: Vec<i64>,
    addresses: Vec<ByteArray>,
    counters: [Vec<i64>; 4],
    /// 1 for rows that have the kernel's count.
    has_kernel: Vec<i16>,
    kernel: [Vec<i64>; 4],
    verdicts: Vec<ByteArray>,
    has_wire: Vec<i16>,
    wire: [Vec<i64>; 4],
}

impl Group {
    fn add(&mut self, address: &ByteArray, [start, end]: [i64; 2], n_columns: usize, row: &Row) {
        self.times.push(start);
        self.ends.push(end);
        self.addresses.push(address.clone());
        push(&mut self.counters, [row.source, row.dest]);
        self.has_kernel.push(i16::from(row.kernel.is_some()));
        let has_wire = row.kernel.is_some() && n_columns == Columns::Wire.header().len();
        self.has_wire.push(i16::from(has_wire));
        if let Some(kernel) = &row.kernel {
            push(&mut self.kernel, [kernel.source, kernel.dest]);
            self.verdicts.push(ByteArray::from(kernel.verdict.text()));
            if has_wire {
                push(
                    &mut self.wire,
                    [Side::Source, Side::Dest].map(|side| kernel.wire(side)),
                );
            }
        }
    }

    /// Empties it.
    fn write(&mut self, parquet: &mut SerializedFileWriter<File>) -> Result<()> {
        let mut group = parquet.next_row_group()?;
        put::<Int64Type>(&mut group, &mut self.times, None)?;
        put::<Int64Type>(&mut group, &mut self.ends, None)?;
        put::<ByteArrayType>(&mut group, &mut self.addresses, None)?;
        for values in &mut self.counters {
            put::<Int64Type>(&mut group, values, None)?;
        }
        for values in &mut self.kernel {
            put::<Int64Type>(&mut group, values, Some(&self.has_kernel))?;
        }
        put::<ByteArrayType>(&mut group, &mut self.verdicts, Some(&self.has_kernel))?;
        for values in &mut self.wire {
            put::<Int64Type>(&mut group, values, Some(&self.has_wire))?;
        }
        group.close()?;
        self.has_kernel.clear();
        self.has_wire.clear();
        Ok(())
    }
}

fn push(columns: &mut [Vec<i64>; 4], [source, dest]: [Counters; 2]) {
    let numbers = [source.bytes, source.packets, dest.bytes, dest.packets];
    for (column, number) in columns.iter_mut().zip(numbers) {
        column.push(number.cast_signed());
    }
}

fn put<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &mut Vec<T::T>,
    levels: Option<&[i16]>,
) -> Result<()> {
    let mut column = group.next_column()?.context("a column too many")?;
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()?;
    values.clear();
    Ok(())
}
