//! An archive: the files of a host that began on one day (UTC), as one Parquet file, sorted by prefix and time. Its
//! metadata say which files they were; their lines of the journal are beside it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use acctd_common::Counters;
use anyhow::{Context as _, Result, ensure};
use parquet::file::reader::FileReader as _;
use parquet::file::serialized_reader::SerializedFileReader;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::journal::{self, Described};
use crate::model::columns::Columns;
use crate::model::interval::{Period, UnixNanos};
use crate::model::row::Row;

pub(crate) const EXTENSION: &str = "parquet";
/// The ending of the lines of the journal.
pub(crate) const JOURNAL_EXTENSION: &str = "jsonl";
/// The key of [`Contents`] in the metadata.
pub(crate) const KEY: &str = "acctd";

/// Where columns are in the schema. Those of a CSV file have its names.
pub(crate) const TIME: usize = 0;
// `End` follows: when the interval was over.
pub(crate) const ADDRESS: usize = 2;
/// The first of four: bytes and packets of the source, and of the destination. So are the next two.
pub(crate) const NFLOG: usize = 3;
pub(crate) const KERNEL: usize = 7;
pub(crate) const VERDICT: usize = 11;
pub(crate) const WIRE: usize = 12;

/// What an archive says of itself, as JSON in its metadata.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) version: u32,
    /// In the order of their time. No two have the same start.
    pub(crate) files: Vec<Entry>,
    /// The first address of each row group. The rows of an address are in one group.
    pub(crate) first_addresses: Vec<IpAddr>,
    /// SHA-256 of the lines of the journal; none if no file had one.
    pub(crate) journal_sha256: Option<String>,
}

/// The version that this acctd writes and reads.
pub(crate) const VERSION: u32 = 1;

/// A CSV file that was archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Unix time in microseconds.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Bytes.
    pub(crate) size: u64,
    /// How many columns it has.
    pub(crate) columns: usize,
    pub(crate) rows: u64,
    /// Of the CSV file.
    pub(crate) sha256: String,
    /// Of its rows, sorted by address ([`digest_row`]).
    pub(crate) rows_sha256: String,
}

/// A file in an archive.
#[derive(Debug)]
pub(crate) struct Archived {
    pub(crate) name: String,
    pub(crate) period: Period,
    pub(crate) size: u64,
    pub(crate) columns: Columns,
    pub(crate) rows: u64,
    pub(crate) sha256: [u8; 32],
    pub(crate) rows_sha256: [u8; 32],
    pub(crate) described: Option<Described>,
}

/// An archive whose metadata were read.
#[derive(Debug)]
pub(crate) struct Archive {
    pub(crate) path: PathBuf,
    pub(crate) files: Vec<Archived>,
    pub(crate) first_addresses: Vec<IpAddr>,
}

/// Whether it is the name of an archive: `2026-11-28.parquet`, or `2026-11-28-1.parquet`.
pub(crate) fn is_name(name: &str) -> bool {
    let stem = name
        .strip_suffix(EXTENSION)
        .and_then(|it| it.strip_suffix('.'));
    let Some((day, number)) = stem.and_then(|stem| stem.split_at_checked("2026-11-28".len()))
    else {
        return false;
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    day.parse::<chrono::NaiveDate>().is_ok()
        && (number.is_empty() || number.strip_prefix('-').is_some_and(is_number))
}

impl Archive {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::read(path).with_context(|| path.display().to_string())
    }

    fn read(path: &Path) -> Result<Self> {
        let parquet = open(path)?;
        let metadata = parquet.metadata().file_metadata();
        let of_acctd = metadata.key_value_metadata().into_iter().flatten();
        let of_acctd = of_acctd
            .filter(|it| it.key == KEY)
            .find_map(|it| it.value.as_ref())
            .context("it is not an archive of acctd's")?;
        let contents: Contents = serde_json::from_str(of_acctd)
            .ok()
            .filter(|contents: &Contents| contents.version == VERSION)
            .context("it is the archive of another version of acctd")?;
        ensure!(
            contents.first_addresses.len() == parquet.num_row_groups(),
            "it is damaged: {} row groups, and addresses of {}",
            parquet.num_row_groups(),
            contents.first_addresses.len()
        );
        let mut described = match &contents.journal_sha256 {
            None => HashMap::new(),
            Some(digest) => {
                let beside = path.with_extension(JOURNAL_EXTENSION);
                let name = beside.file_name().unwrap_or_default().display();
                let lines = fs::read(&beside)
                    .with_context(|| format!("the lines of its files, {name}, cannot be read"))?;
                ensure!(
                    hex::encode(Sha256::digest(&lines)) == *digest,
                    "the lines of its files, {name}, were changed"
                );
                journal::read(&beside)?
            }
        };
        let files = contents.files.into_iter().map(|entry| {
            Ok(Archived {
                period: Period {
                    start: UnixNanos(entry.start * 1_000),
                    end: UnixNanos(entry.end * 1_000),
                },
                columns: Columns::ALL
                    .into_iter()
                    .find(|it| it.header().len() == entry.columns)
                    .context("unknown columns")?,
                size: entry.size,
                rows: entry.rows,
                sha256: from_hex(&entry.sha256)?,
                rows_sha256: from_hex(&entry.rows_sha256)?,
                described: described.remove(&entry.name),
                name: entry.name,
            })
        });
        Ok(Self {
            files: files.collect::<Result<_>>()?,
            first_addresses: contents.first_addresses,
            path: path.to_owned(),
        })
    }
}

pub(crate) fn open(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path)?;
    SerializedFileReader::new(file).context("it is damaged, or not a Parquet file")
}

/// Adds a row to the digest of its file's rows.
pub(crate) fn digest_row(digest: &mut Sha256, row: &Row) {
    let mut bytes = [0; 16 + 13 * 8];
    let mut length = 0;
    let mut add = |part: &[u8]| {
        bytes[length..][..part.len()].copy_from_slice(part);
        length += part.len();
    };
    match row.address {
        IpAddr::V4(address) => add(&address.octets()),
        IpAddr::V6(address) => add(&address.octets()),
    }
    let mut add_counters = |counters: Counters| {
        add(&counters.bytes.to_le_bytes());
        add(&counters.packets.to_le_bytes());
    };
    add_counters(row.source);
    add_counters(row.dest);
    if let Some(kernel) = &row.kernel {
        add_counters(kernel.source);
        add_counters(kernel.dest);
        add_counters(kernel.segments[0]);
        add_counters(kernel.segments[1]);
        add(&[kernel.verdict as u8]);
    }
    digest.update(&bytes[..length]);
}

/// A digest that is written in hexadecimal.
pub(crate) fn from_hex(text: &str) -> Result<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).with_context(|| format!("{text:?} is no SHA-256"))?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_named_after_its_day() {
        for name in ["2026-11-28.parquet", "2026-11-28-12.parquet"] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "2026-11-28.csv",
            "2026-11-31.parquet",
            "2026-11-28-.parquet",
            "2026-11-28-x.parquet",
            "2026-11-28parquet",
            ".parquet",
        ] {
            assert!(!is_name(name), "{name}");
        }
    }
}
