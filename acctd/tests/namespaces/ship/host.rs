//! Hosts whose files are sent, and what a database has of them.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::ACCTD;
use super::server::Server;
use crate::world::{Random, Row, START, World};

/// A host: its directory, and what its files have.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) directory: PathBuf,
    pub(super) world: World,
}

impl Host {
    /// Files of a day, of 5 minutes each, and one of the next day.
    pub(super) fn new(scratch: &Path, number: u64) -> Result<Self> {
        let random = &mut Random(number);
        let addresses: Vec<IpAddr> = (0..40_u8)
            .map(|it| match it % 2 {
                0 => IpAddr::from([10, 0, u8::try_from(number).unwrap_or_default(), it]),
                _ => IpAddr::from([0x2001, 0xdb8, 0, u16::from(it), 0, 0, 0, 0]),
            })
            .collect();
        let world = World::random(random, START, 300, 289, &addresses);
        Self::of(scratch, number, world)
    }

    pub(super) fn of(scratch: &Path, number: u64, world: World) -> Result<Self> {
        let name = format!("r{number}");
        let directory = scratch.join(&name);
        fs::create_dir(&directory)?;
        world.write(&directory, chrono_tz::Europe::Berlin);
        Ok(Self {
            name,
            directory,
            world,
        })
    }

    /// The same, whose files are in another place, to be moved to its directory.
    pub(super) fn staged(staged: &Path, scratch: &Path, number: u64) -> Result<Self> {
        let host = Self::new(staged, number)?;
        let directory = scratch.join(&host.name);
        fs::create_dir(&directory)?;
        Ok(Self { directory, ..host })
    }

    pub(super) fn ship(&self, port: u16, more: &[&str]) -> Command {
        let mut command = Command::new(ACCTD);
        command
            .arg("ship")
            .arg(&self.directory)
            .args(["--to", &format!("http://127.0.0.1:{port}")])
            .args(["--user=default", "--host", &self.name])
            .args(more);
        command
    }

    pub(super) fn once(&self, port: u16) -> Result<String> {
        let output = self.ship(port, &["--once"]).output()?;
        let log = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{log}");
        Ok(log)
    }

    pub(super) fn sums(&self) -> BTreeMap<(String, IpAddr), Row> {
        let mut sums: BTreeMap<_, Row> = BTreeMap::new();
        for (address, row) in self.world.intervals.iter().flat_map(|it| &it.rows) {
            let sum = sums.entry((self.name.clone(), *address)).or_default();
            sum.add(*row);
        }
        sums
    }

    pub(super) fn n_rows(&self) -> usize {
        self.world.intervals.iter().map(|it| it.rows.len()).sum()
    }
}

/// What a table has, by host and address.
pub(super) fn sums_of(server: &Server, table: &str) -> Result<BTreeMap<(String, IpAddr), Row>> {
    let text = server.query(&format!(
        "SELECT host, IP, sum(DestBytes), sum(SourceBytes), sum(DestPackets), sum(SourcePackets) \
         FROM acctd.{table} FINAL GROUP BY host, IP"
    ))?;
    let rows = text.lines().map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let [host, address, numbers @ ..] = &fields[..] else {
            anyhow::bail!("{line}");
        };
        let numbers: Vec<u64> = numbers
            .iter()
            .map(|it| it.parse())
            .collect::<Result<_, _>>()?;
        let row = Row {
            bytes: [numbers[0], numbers[1]],
            packets: [numbers[2], numbers[3]],
        };
        Ok((((*host).to_owned(), address.parse()?), row))
    });
    rows.collect()
}

/// The database has the files of these hosts, and nothing else; and no day is being added up, which a server goes on with
/// when its client is killed.
pub(super) fn assert_exact(server: &Server, hosts: &[Host]) -> Result<()> {
    let expected: BTreeMap<_, _> = hosts.iter().flat_map(Host::sums).collect();
    for table in ["traffic", "traffic_hour", "traffic_day", "traffic_month"] {
        ensure!(sums_of(server, table)? == expected, "{table} is not exact");
    }
    let n_rows: usize = hosts.iter().map(Host::n_rows).sum();
    let counts = server.query(
        "SELECT (SELECT count() FROM acctd.traffic FINAL), (SELECT count() FROM acctd.files FINAL), \
         (SELECT sum(rows) FROM acctd.files FINAL), (SELECT count() FROM acctd.days FINAL WHERE files > 0)",
    )?;
    let expected = format!(
        "{n_rows}\t{}\t{n_rows}\t{}",
        hosts.len() * 289,
        hosts.len() * 2
    );
    ensure!(counts.trim() == expected, "{counts} and not {expected}");
    Ok(())
}

/// Files appear one after the other, each with its line.
pub(super) fn reveal(from: &Path, to: &Path) -> Result<()> {
    let lines = fs::read_to_string(from.join("intervals.jsonl"))?;
    let mut journal = String::new();
    for line in lines.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line)?;
        let name = parsed["file"].as_str().context("a file")?;
        fs::rename(from.join(name), to.join(name))
            .or_else(|_| fs::copy(from.join(name), to.join(name)).map(drop))?;
        journal.push_str(line);
        journal.push('\n');
        fs::write(to.join("intervals.jsonl"), &journal)?;
        thread::sleep(Duration::from_millis(60));
    }
    Ok(())
}

/// A file, by its place in the journal.
pub(super) fn nth_file(directory: &Path, at: usize) -> Result<PathBuf> {
    let lines = fs::read_to_string(directory.join("intervals.jsonl"))?;
    let line: serde_json::Value = serde_json::from_str(lines.lines().nth(at).context("a line")?)?;
    Ok(directory.join(line["file"].as_str().context("a file")?))
}

/// Gives a file the cross-check's columns: of each second row, it counted 100 bytes more.
pub(super) fn cross_checked(directory: &Path, at: usize) -> Result<()> {
    let path = nth_file(directory, at)?;
    let mut text = Vec::new();
    for (number, line) in fs::read_to_string(&path)?.lines().enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        let more = if number == 0 {
            "TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict".to_owned()
        } else if number % 2 == 0 {
            format!("{},match", fields[2..].join(","))
        } else {
            let bytes = fields[2].parse::<u64>()? + 100;
            format!("{bytes},{},uncovered", fields[3..].join(","))
        };
        text.push(format!("{line},{more}\n"));
    }
    Ok(fs::write(path, text.concat())?)
}
