//! The examples of docs/many-hosts.md: files of several hosts loaded into
//! `DuckDB` and `ClickHouse`, twice, and once more when there are new ones. The sums are those of the files, and no row is there twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::traffic::TrafficArgs;
use xtask::{process, python};

use crate::rig::{LOG_AND_DROP, Rig};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Databases,
        "files_of_two_hosts_are_loaded_into_duckdb_once",
        || are_loaded_once(DUCKDB),
    ),
    (
        Needs::Databases,
        "files_of_two_hosts_are_loaded_into_clickhouse_once",
        || are_loaded_once(CLICKHOUSE),
    ),
];

/// chdb is `ClickHouse` in a library.
const PACKAGES: [&str; 2] = ["duckdb==2.0.1", "chdb==4.4.0"];

/// Why they cannot be had, if so.
pub(crate) fn available() -> Result<(), String> {
    let python = python::with_packages("databases", &PACKAGES);
    python.map(drop).map_err(|error| format!("{error:#}"))
}

/// Runs a script of SQL and prints rows as JSON: host, IP, the four sums, those of the cross-check or null, the
/// number of rows; and the number of intervals.
const DUCKDB: (&str, &str) = (
    "duckdb.sql",
    r#"
import duckdb, json, sys
database = duckdb.connect(sys.argv[2])
database.execute(open(sys.argv[1]).read())
rows = database.execute("""
    SELECT host, "IP", sum("SourceBytes")::BIGINT, sum("SourcePackets")::BIGINT, sum("DestBytes")::BIGINT,
           sum("DestPackets")::BIGINT, sum("TcSourcePackets")::BIGINT, count(*)
    FROM traffic GROUP BY ALL""").fetchall()
intervals = database.execute("SELECT count(*) FROM intervals").fetchone()[0]
print(json.dumps([rows, intervals]))
"#,
);

const CLICKHOUSE: (&str, &str) = (
    "clickhouse.sql",
    r#"
import json, sys
from chdb.session import Session
database = Session(sys.argv[2])
for query in open(sys.argv[1]).read().split(";\n"):
    if query.strip():
        database.query(query)
rows = str(database.query("""
    SELECT host, IP, sum(SourceBytes), sum(SourcePackets), sum(DestBytes), sum(DestPackets),
           sum(TcSourcePackets), count()
    FROM traffic FINAL GROUP BY host, IP
    SETTINGS output_format_json_quote_64bit_integers = 0""", "JSONCompactEachRow"))
intervals = int(str(database.query("SELECT count() FROM intervals FINAL", "TSV")))
print(json.dumps([[json.loads(row) for row in rows.splitlines()], intervals]))
"#,
);

/// Of a host's prefix: the sums of the four columns, of `TcSourcePackets` where there is one, and the rows.
type Sums = BTreeMap<(String, String), ([u64; 4], Option<u64>, u64)>;

fn are_loaded_once((script, program): (&str, &str)) -> Result<()> {
    let place = tempfile::tempdir()?;
    let hosts = place.path().join("hosts");
    write_files(&hosts.join("gate1"), &[])?;
    write_files(&hosts.join("gate2"), &["-crosscheck=lan0"])?;
    // Of the hour that comes twice, and without a row.
    copy_as_suffixed(&hosts.join("gate1"))?;
    let load = || -> Result<(Sums, u64)> {
        let mut command = Command::new(python::with_packages("databases", &PACKAGES)?);
        command
            .args(["-c", program])
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../docs/examples")
                    .join(script),
            )
            .arg(place.path().join("database"))
            .current_dir(&hosts)
            .stdin(Stdio::null());
        parse(&process::output(&mut command)?)
    };
    for _ in 0..2 {
        let (loaded, n_intervals) = load()?;
        ensure!(loaded == sums(&hosts)?, "{loaded:?} != {:?}", sums(&hosts)?);
        ensure!(n_intervals == lines(&hosts)?);
    }
    write_files(&hosts.join("gate3"), &[])?;
    let (loaded, n_intervals) = load()?;
    ensure!(loaded == sums(&hosts)? && n_intervals == lines(&hosts)?);
    Ok(())
}

/// Some intervals of a second with traffic.
fn write_files(place: &Path, more: &[&str]) -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let args = [
        "-interval=1s",
        "-utc",
        "-ip4-src-group=5",
        "-ip6-dst-group=7",
    ];
    let acctd = rig.acctd(&[&args, more].concat())?;
    for (source, dest) in [
        ("10.1.0.0/16", "10.255.0.0/16"),
        ("fd00:1::/48", "fd00:2::/32"),
    ] {
        rig.send(&TrafficArgs {
            sources: 50,
            dests: 50,
            rate: 5_000,
            count: 5_000,
            ..rig.traffic(source, dest)?
        })?;
    }
    acctd.finish()?;
    let from = format!("{}/.", rig.log_directory().display());
    fs::create_dir_all(place)?;
    process::output(Command::new("cp").args(["-a", &from]).arg(place))?;
    Ok(())
}

fn copy_as_suffixed(place: &Path) -> Result<()> {
    let file = csv_files(place)?.pop().context("a file")?;
    let stem = file.file_stem().context("a stem")?.to_string_lossy();
    let header = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n";
    fs::write(place.join(format!("{stem}-1.csv")), header)?;
    fs::copy(&file, place.join(format!("{stem}-2.csv")))?;
    Ok(())
}

fn csv_files(place: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(place)?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    let is_csv = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "csv");
    Ok(paths.into_iter().filter(is_csv).collect())
}

/// What the files themselves say.
fn sums(hosts: &Path) -> Result<Sums> {
    let mut sums = Sums::new();
    for host in fs::read_dir(hosts)? {
        let host = host?;
        let name = host.file_name().to_string_lossy().into_owned();
        for file in csv_files(&host.path())? {
            for record in csv::Reader::from_path(file)?.records() {
                let record = record?;
                let sum = sums
                    .entry((name.clone(), record[1].to_owned()))
                    .or_default();
                for (column, sum) in sum.0.iter_mut().enumerate() {
                    *sum += record[column + 2].parse::<u64>()?;
                }
                if let Some(packets) = record.get(7) {
                    *sum.1.get_or_insert(0) += packets.parse::<u64>()?;
                }
                sum.2 += 1;
            }
        }
    }
    ensure!(sums.len() >= 100 && sums.values().any(|sum| sum.1.is_some()));
    Ok(sums)
}

fn lines(hosts: &Path) -> Result<u64> {
    let mut n_lines = 0;
    for host in fs::read_dir(hosts)? {
        let text = fs::read_to_string(host?.path().join("intervals.jsonl"))?;
        n_lines += text.lines().count() as u64;
    }
    Ok(n_lines)
}

fn parse(printed: &str) -> Result<(Sums, u64)> {
    let (rows, n_intervals): (Vec<[Value; 8]>, u64) = serde_json::from_str(printed)?;
    let rows = rows.iter().map(|row| {
        let text = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
        let number = |at: usize| row[at].as_u64().with_context(|| format!("{row:?}"));
        let sums = [number(2)?, number(3)?, number(4)?, number(5)?];
        Ok(((text(0), text(1)), (sums, row[6].as_u64(), number(7)?)))
    });
    Ok((rows.collect::<Result<_>>()?, n_intervals))
}
