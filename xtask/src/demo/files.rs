//! acctd's CSV files, read back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use csv::{Reader, StringRecord};
use testkit::nft::Count;

/// One interval's file.
#[derive(Debug)]
pub(super) struct CsvFile {
    pub(super) name: String,
    pub(super) header: StringRecord,
    pub(super) rows: Vec<Row>,
}

/// One line of a file.
#[derive(Debug)]
pub(super) struct Row {
    /// As it stands in the file.
    pub(super) record: StringRecord,
    pub(super) is_ipv6: bool,
    pub(super) source: Count,
    pub(super) dest: Count,
    /// The kernel's own count and the verdict, with a cross-check.
    pub(super) kernel: Option<KernelRow>,
}

/// The cross-check's part of a line.
#[derive(Debug)]
pub(super) struct KernelRow {
    pub(super) source: Count,
    pub(super) dest: Count,
    pub(super) verdict: String,
}

impl Row {
    pub(super) fn ip(&self) -> &str {
        self.record.get(1).unwrap_or_default()
    }

    /// Whether there is a verdict, and it is another than `match`.
    pub(super) fn differs(&self) -> bool {
        let kernel = self.kernel.as_ref();
        kernel.is_some_and(|kernel| kernel.verdict != "match")
    }
}

/// Reads the CSV files of a directory, oldest first: their names begin with
/// the time.
pub(super) fn read(directory: &Path) -> Result<Vec<CsvFile>> {
    let entries: Vec<_> = fs::read_dir(directory)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "csv"));
    paths.sort();
    paths
        .iter()
        .map(|path| read_file(path).with_context(|| format!("cannot read {}", path.display())))
        .collect()
}

fn read_file(path: &Path) -> Result<CsvFile> {
    let mut reader = Reader::from_path(path)?;
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|title| title == name);
        found.with_context(|| format!("no column {name}"))
    };
    let ip = column("IP")?;
    let source = (column("SourcePackets")?, column("SourceBytes")?);
    let dest = (column("DestPackets")?, column("DestBytes")?);
    let kernel = header
        .iter()
        .any(|title| title == "Verdict")
        .then(|| {
            anyhow::Ok((
                (column("TcSourcePackets")?, column("TcSourceBytes")?),
                (column("TcDestPackets")?, column("TcDestBytes")?),
                column("Verdict")?,
            ))
        })
        .transpose()?;
    let rows = reader
        .records()
        .map(|record| {
            let record = record?;
            Ok(Row {
                is_ipv6: cell(&record, ip)?.contains(':'),
                source: count(&record, source)?,
                dest: count(&record, dest)?,
                kernel: kernel
                    .map(|(source, dest, verdict)| {
                        anyhow::Ok(KernelRow {
                            source: count(&record, source)?,
                            dest: count(&record, dest)?,
                            verdict: cell(&record, verdict)?.to_owned(),
                        })
                    })
                    .transpose()?,
                record,
            })
        })
        .collect::<Result<_>>()?;
    let name = path.file_name().unwrap_or_default();
    Ok(CsvFile {
        name: name.to_string_lossy().into_owned(),
        header,
        rows,
    })
}

fn count(record: &StringRecord, (packets, bytes): (usize, usize)) -> Result<Count> {
    Ok(Count {
        packets: cell(record, packets)?.parse()?,
        bytes: cell(record, bytes)?.parse()?,
    })
}

fn cell(record: &StringRecord, column: usize) -> Result<&str> {
    record.get(column).context("a row is too short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_order_and_by_column_name() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        write(
            "b.csv",
            "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets,\
             TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict\n\
             2026-01-01 00:00:00,192.0.2.1,100,1,0,0,100,1,0,0,match\n\
             2026-01-01 00:00:00,2001:db8::,200,2,80,1,300,3,80,1,uncovered\n",
        );
        write(
            "a.csv",
            "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n",
        );
        write("c.tmp", "half a li");
        write("intervals.jsonl", "{}\n");

        let files = read(directory.path()).unwrap();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.csv", "b.csv"]);
        let [first, second] = files[1].rows.as_slice() else {
            panic!("{files:?}");
        };
        assert!(!first.is_ipv6 && second.is_ipv6);
        assert_eq!((second.source.packets, second.source.bytes), (2, 200));
        assert_eq!((second.dest.packets, second.dest.bytes), (1, 80));
        assert!(!first.differs() && second.differs());
        let kernel = second.kernel.as_ref().unwrap();
        assert_eq!((kernel.source.packets, kernel.source.bytes), (3, 300));
        assert_eq!(second.ip(), "2001:db8::");
    }
}
