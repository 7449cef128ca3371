//! acctd's CSV files, read back.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use csv::StringRecord;
use serde::Deserialize;

use crate::nft::Count;

/// One interval's file.
#[derive(Debug)]
pub struct CsvFile {
    pub name: String,
    pub header: StringRecord,
    pub rows: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    #[serde(rename = "IP")]
    pub ip: String,
    pub source_packets: u64,
    pub source_bytes: u64,
    pub dest_packets: u64,
    pub dest_bytes: u64,
    pub tc_source_packets: Option<u64>,
    pub tc_source_bytes: Option<u64>,
    pub tc_dest_packets: Option<u64>,
    pub tc_dest_bytes: Option<u64>,
    pub verdict: Option<String>,
    pub wire_source_packets: Option<u64>,
    pub wire_source_bytes: Option<u64>,
    pub wire_dest_packets: Option<u64>,
    pub wire_dest_bytes: Option<u64>,
    /// As it stands in the file.
    #[serde(skip)]
    pub record: StringRecord,
}

impl Row {
    /// What the address has sent, and what was sent to it.
    pub fn counted(&self) -> [Count; 2] {
        [
            count(self.source_packets, self.source_bytes),
            count(self.dest_packets, self.dest_bytes),
        ]
    }

    /// The same by the kernel's own count, with a cross-check.
    pub fn passed(&self) -> Option<[Count; 2]> {
        Some([
            count(self.tc_source_packets?, self.tc_source_bytes?),
            count(self.tc_dest_packets?, self.tc_dest_bytes?),
        ])
    }

    /// The same as it is on the wire, with `--crosscheck-wire`.
    pub fn on_the_wire(&self) -> Option<[Count; 2]> {
        Some([
            count(self.wire_source_packets?, self.wire_source_bytes?),
            count(self.wire_dest_packets?, self.wire_dest_bytes?),
        ])
    }

    pub fn is_ipv6(&self) -> bool {
        self.ip.contains(':')
    }

    /// Whether there is a verdict, and it is another than `match`.
    pub fn differs(&self) -> bool {
        self.verdict.as_deref().is_some_and(|it| it != "match")
    }
}

fn count(packets: u64, bytes: u64) -> Count {
    Count { packets, bytes }
}

/// The CSV files of a directory, oldest first: their names begin with the time.
pub fn paths(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("cannot read {}", directory.display()))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "csv"));
    paths.sort();
    Ok(paths)
}

pub fn read(path: &Path) -> Result<CsvFile> {
    let read = || {
        let mut reader = csv::Reader::from_path(path)?;
        let header = reader.headers()?.clone();
        let rows = reader.records().map(|record| {
            let record = record?;
            let row = record.deserialize(Some(&header))?;
            Ok(Row { record, ..row })
        });
        let rows = rows.collect::<Result<_, csv::Error>>()?;
        let name = path.file_name().unwrap_or_default();
        anyhow::Ok(CsvFile {
            name: name.to_string_lossy().into_owned(),
            header,
            rows,
        })
    };
    read().with_context(|| format!("cannot read {}", path.display()))
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
            "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n\
             2026-01-01 00:00:00,192.0.2.1,100,1,0,0\n",
        );
        write("c.tmp", "half a li");
        write("intervals.jsonl", "{}\n");

        let paths = paths(directory.path()).unwrap();
        let files: Vec<CsvFile> = paths.iter().map(|path| read(path).unwrap()).collect();
        let names: Vec<_> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.csv", "b.csv"]);
        assert_eq!(files[0].rows[0].counted(), [count(1, 100), count(0, 0)]);
        assert_eq!(files[0].rows[0].passed(), None);
        let [first, second] = files[1].rows.as_slice() else {
            panic!("{files:?}");
        };
        assert!(!first.is_ipv6() && second.is_ipv6());
        assert_eq!(second.counted(), [count(2, 200), count(1, 80)]);
        assert_eq!(second.passed(), Some([count(3, 300), count(1, 80)]));
        assert!(!first.differs() && second.differs());
        assert_eq!(second.ip, "2001:db8::");
        assert_eq!(&second.record[0], "2026-01-01 00:00:00");
    }

    #[test]
    fn a_file_without_a_column_is_an_error_that_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.csv");
        fs::write(&path, "Time,IP\n2026-01-01 00:00:00,192.0.2.1\n").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(
            error.contains("a.csv") && error.contains("SourcePackets"),
            "{error}"
        );
    }
}
