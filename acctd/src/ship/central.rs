//! What the database has of this host, and what is written there.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::local::{Content, Finished, Rows, Sums};
use super::schema::{COUNTERS, ROLL_UPS, VERSION};
use crate::client::clickhouse::{ClickHouse, Settings, quoted};
use crate::files::journal::{IN, OUT};
use crate::model::interval::UnixNanos;

/// The first ClickHouse with tokens of deduplication, and with inserts that it collects.
const CURRENT: u32 = 22;
/// An insert with fewer rows is collected with those of other hosts: one part on the disk for all of them.
const FEW_ROWS: u64 = 10_000;
/// A replica may be asked that has not yet what another one took.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// The tables, as far as they are this host's.
#[derive(Debug)]
pub(super) struct Central {
    server: ClickHouse,
    host: String,
    machine: String,
    is_current: bool,
}

/// A file that is all there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Mark {
    file: String,
    /// In Unix time.
    pub(super) start: i64,
    pub(super) sha256: String,
    pub(super) machine: String,
}

impl Mark {
    pub(super) fn new(file: &Finished, sha256: String, machine: &str) -> Self {
        Self {
            file: file.name.clone(),
            start: file.period.start.seconds_and_nanos().0,
            sha256,
            machine: machine.to_owned(),
        }
    }
}

#[derive(Serialize)]
struct NewMark<'m> {
    host: &'m str,
    file: &'m str,
    start: i64,
    end: i64,
    rows: u64,
    source_bytes: u64,
    source_packets: u64,
    dest_bytes: u64,
    dest_packets: u64,
    missing_source_bytes: Option<u64>,
    missing_dest_bytes: Option<u64>,
    sha256: &'m str,
    machine: &'m str,
    line: &'m str,
    shipped_at: i64,
}

#[derive(Deserialize)]
struct OfFile {
    file: String,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Day {
    name: String,
}

impl Central {
    /// Asks the server who it is.
    pub(super) fn open(mut server: ClickHouse, host: &str, machine: String) -> Result<Self> {
        let versions: Vec<Text> = server.select("SELECT version() AS text")?;
        let version = versions.first().map(|it| it.text.as_str());
        let major = version.and_then(|text| text.split('.').next()?.parse::<u32>().ok());
        let major = major.with_context(|| format!("{} is no ClickHouse", server.shown()))?;
        if major < 20 {
            server.without_zstd();
        }
        let versions: Vec<Version> =
            server.select("SELECT max(version) AS version FROM schema_version")?;
        let found = versions.first().map_or(0, |it| it.version);
        ensure!(
            found == VERSION,
            "{}: its tables are of version {found}, and this acctd's of {VERSION}: {}",
            server.shown(),
            if found < VERSION {
                "acctd ship --schema prints what brings them to this one"
            } else {
                "install a newer acctd on this host"
            }
        );
        Ok(Self {
            server,
            host: host.to_owned(),
            machine,
            is_current: major >= CURRENT,
        })
    }

    pub(super) fn shown(&self) -> String {
        self.server.shown()
    }

    /// Of all files, by their names.
    pub(super) fn marks(&self) -> Result<HashMap<String, Mark>> {
        let marks: Vec<Mark> = self.server.select(&format!(
            "SELECT file, toUnixTimestamp(start) AS start, sha256, machine FROM files FINAL WHERE host = {}",
            quoted(&self.host)
        ))?;
        Ok(marks
            .into_iter()
            .map(|mark| (mark.file.clone(), mark))
            .collect())
    }

    /// Of the rows that are there, by file.
    pub(super) fn sums(&self, files: &[Finished]) -> Result<HashMap<String, Sums>> {
        let Some(times) = times(files) else {
            return Ok(HashMap::new());
        };
        let names: Vec<String> = files.iter().map(|file| quoted(&file.name)).collect();
        let of_files: Vec<OfFile> = self.server.select(&format!(
            "SELECT file, count() AS rows, sum(SourceBytes) AS source_bytes, sum(SourcePackets) AS source_packets, \
             sum(DestBytes) AS dest_bytes, sum(DestPackets) AS dest_packets FROM traffic FINAL \
             WHERE host = {} AND file IN ({}) AND Time >= {} AND Time <= {} GROUP BY file",
            quoted(&self.host),
            names.join(", "),
            times.start(),
            times.end(),
        ))?;
        Ok(of_files.into_iter().map(|it| (it.file, it.sums)).collect())
    }

    /// Sends the rows of files that have the same columns. `is_again`: even if the server has seen them.
    pub(super) fn send(
        &self,
        files: &[Finished],
        content: &[Content],
        is_again: bool,
    ) -> Result<()> {
        let Some(first) = content.first() else {
            return Ok(());
        };
        let columns = first.columns.header().join(", ");
        let statement = format!("INSERT INTO traffic (host, file, {columns}) FORMAT CSV");
        let n_rows: u64 = content.iter().map(|it| it.sums.rows).sum();
        let mut digest = Sha256::new();
        digest.update(&self.host);
        for of_file in content {
            digest.update(&of_file.sha256);
        }
        let token = hex::encode(digest.finalize());
        let mut settings: Vec<(&str, &str)> = vec![("insert_distributed_sync", "1")];
        if is_again {
            // What was lost after it was taken would be taken for a repetition.
            settings.push(("insert_deduplicate", "0"));
        } else if self.is_current {
            settings.push(("insert_deduplication_token", &token));
        }
        if self.is_current && n_rows < FEW_ROWS {
            settings.extend(COLLECTED);
        }
        let mut rows = Rows::new(&self.host, files);
        self.server.insert(&statement, &settings, &mut rows)
    }

    /// An error if the rows that are there are not those of the files.
    pub(super) fn compare(&self, files: &[Finished], content: &[Content]) -> Result<()> {
        let mut looks = 1;
        loop {
            let found = self.sums(files)?;
            let mut pairs = files.iter().zip(content);
            // A file without rows is not found.
            let other = pairs.find(|(file, content)| {
                found.get(&file.name).copied().unwrap_or_default() != content.sums
            });
            let Some((file, content)) = other else {
                return Ok(());
            };
            let found = found.get(&file.name).copied().unwrap_or_default();
            if looks < LOOKS && found.rows <= content.sums.rows {
                looks += 1;
                thread::sleep(LOOK_PAUSE);
                continue;
            }
            let advice = if found.rows > content.sums.rows {
                ": another machine sends as this host, or the file was sent with other rows"
            } else {
                ""
            };
            bail!("{}: {}{advice}", file.name, content.sums.differs(&found));
        }
    }

    /// From now on these files are there.
    pub(super) fn mark(
        &self,
        files: &[Finished],
        content: &[Content],
        now: UnixNanos,
    ) -> Result<()> {
        let mut lines = String::new();
        for (file, content) in files.iter().zip(content) {
            let missing = file.missing();
            let Sums {
                rows,
                source_bytes,
                source_packets,
                dest_bytes,
                dest_packets,
            } = content.sums;
            let mark = NewMark {
                host: &self.host,
                file: &file.name,
                start: file.period.start.seconds_and_nanos().0,
                end: file.period.end.seconds_and_nanos().0,
                rows,
                source_bytes,
                source_packets,
                dest_bytes,
                dest_packets,
                missing_source_bytes: missing[OUT],
                missing_dest_bytes: missing[IN],
                sha256: &content.sha256,
                machine: &self.machine,
                line: file.line.as_deref().unwrap_or_default(),
                shipped_at: now.seconds_and_nanos().0,
            };
            lines.push_str(&serde_json::to_string(&mark)?);
            lines.push('\n');
        }
        let mut settings = vec![
            ("insert_distributed_sync", "1"),
            ("insert_deduplicate", "0"),
        ];
        if self.is_current {
            settings.extend(COLLECTED);
        }
        let statement = "INSERT INTO files FORMAT JSONEachRow";
        self.server
            .insert(statement, &settings, &mut lines.as_bytes())
    }

    /// Adds up each day that is over and of which a file was added or changed since it was added up. Returns how many.
    pub(super) fn roll_up(&self, until: UnixNanos) -> Result<usize> {
        let host = quoted(&self.host);
        let (until, _) = until.seconds_and_nanos();
        let days: Vec<Day> = self.server.select(&format!(
            "SELECT toString(day) AS name FROM (SELECT toDate(start) AS day, count() AS files, {DIGEST} AS digest \
             FROM files FINAL WHERE host = {host} AND start < {until} GROUP BY day) \
             WHERE (day, files, digest) GLOBAL NOT IN (SELECT day, files, digest FROM days FINAL WHERE host = {host}) ORDER BY day"
        ))?;
        for (at, Day { name: day }) in days.iter().enumerate() {
            let begin = format!("toDate('{day}')");
            for (table, time, _) in &ROLL_UPS[..2] {
                self.add_up(
                    table,
                    time,
                    "traffic",
                    &begin,
                    &format!("{begin} + 1"),
                    until,
                )?;
            }
            // A month is the sum of its days.
            if days
                .get(at + 1)
                .is_none_or(|next| next.name[..7] != day[..7])
            {
                let (table, time, _) = ROLL_UPS[2];
                let begin = format!("toStartOfMonth({begin})");
                let end = format!("addMonths({begin}, 1)");
                let added = self.add_up(table, time, "traffic_day", &begin, &end, until);
                if added.is_err() {
                    // One of its other days has lost rows: the next time, that one is added up too.
                    self.check_roll_ups()?;
                }
                added?;
            }
            self.execute(&format!(
                "INSERT INTO days (host, day, files, digest, rolled_up_at) SELECT {host}, toDate('{day}'), count(), {DIGEST}, now() \
                 FROM files FINAL WHERE host = {host} AND toDate(start) = toDate('{day}') AND start < {until}"
            ))?;
        }
        Ok(days.len())
    }

    /// Has days added up again whose sums are not those of the files any more, as after a server lost its disk. Returns how
    /// many.
    pub(super) fn check_roll_ups(&self) -> Result<usize> {
        let host = quoted(&self.host);
        let mut days = BTreeSet::new();
        for (table, _, _) in ROLL_UPS {
            let period = if table == "traffic_month" {
                "toStartOfMonth"
            } else {
                "toDate"
            };
            // Of a month, the first day that was added up stands for all.
            let of_table: Vec<Day> = self.server.select(&format!(
                "SELECT toString(first) AS name FROM (SELECT {period}(start) AS period, min(toDate(start)) AS first, \
                 sum(source_bytes) AS source_bytes, sum(dest_bytes) AS dest_bytes FROM files FINAL WHERE host = {host} \
                 AND toDate(start) GLOBAL IN (SELECT day FROM days WHERE host = {host}) GROUP BY period) \
                 WHERE (period, source_bytes, dest_bytes) GLOBAL NOT IN (SELECT {period}(Time) AS period, sum(SourceBytes), sum(DestBytes) \
                 FROM {table} FINAL WHERE host = {host} GROUP BY period)"
            ))?;
            days.extend(of_table.into_iter().map(|day| day.name));
        }
        for day in &days {
            self.execute(&format!(
                "INSERT INTO days (host, day, files, digest, rolled_up_at) SELECT {host}, toDate('{day}'), 0, 0, now()"
            ))?;
        }
        Ok(days.len())
    }

    /// Adds up a period until the sums are those of its files: of replicas, one may not yet have what another has.
    fn add_up(
        &self,
        table: &str,
        time: &str,
        from: &str,
        begin: &str,
        end: &str,
        until: i64,
    ) -> Result<()> {
        let host = quoted(&self.host);
        let (begin, end) = (
            format!("toDateTime({begin}, 'UTC')"),
            format!("toDateTime({end}, 'UTC')"),
        );
        let in_period = format!("host = {host} AND Time >= {begin} AND Time < {end}");
        let of_files = format!(
            "SELECT toUInt64(0) AS rows, sum(source_bytes) AS source_bytes, sum(source_packets) AS source_packets, \
             sum(dest_bytes) AS dest_bytes, sum(dest_packets) AS dest_packets FROM files FINAL \
             WHERE host = {host} AND start >= {begin} AND start < {end} AND start < {until}"
        );
        let of_table = format!(
            "SELECT toUInt64(0) AS rows, sum(SourceBytes) AS source_bytes, sum(SourcePackets) AS source_packets, \
             sum(DestBytes) AS dest_bytes, sum(DestPackets) AS dest_packets FROM {table} FINAL WHERE {in_period}"
        );
        for look in 0..LOOKS {
            if look > 0 {
                thread::sleep(LOOK_PAUSE);
            }
            self.execute(&format!(
                "INSERT INTO {table} (host, Time, IP, {counters}) SELECT {host}, {time} AS at, IP, {sums} FROM {from} FINAL \
                 WHERE {in_period} GROUP BY at, IP",
                counters = COUNTERS.join(", "),
                sums = COUNTERS.map(|name| format!("sum({name})")).join(", "),
            ))?;
            let expected: Vec<Sums> = self.server.select(&of_files)?;
            let found: Vec<Sums> = self.server.select(&of_table)?;
            if found == expected {
                return Ok(());
            }
        }
        bail!("{table}: its sums from {begin} on are not those of the files");
    }

    fn execute(&self, statement: &str) -> Result<()> {
        let settings = [
            ("insert_distributed_sync", "1"),
            ("insert_deduplicate", "0"),
        ];
        self.server.execute(statement, &settings)
    }
}

/// Of the files of a day: another if one was added or changed.
const DIGEST: &str = "groupBitXor(sipHash64(file, sha256))";

/// The server collects small inserts, and answers when they are on its disk.
const COLLECTED: &Settings<'static> = &[("async_insert", "1"), ("wait_for_async_insert", "1")];

impl Finished {
    /// Bytes in and out that are missing at most; `None` if nothing bounds them.
    fn missing(&self) -> [Option<u64>; 2] {
        match &self.described {
            Some(described) if described.gaps.is_empty() => described.loss.of([true, true]),
            _ => [None; 2],
        }
    }
}

impl Sums {
    /// What a person reads if the database has `found` instead.
    pub(super) fn differs(&self, found: &Self) -> String {
        format!(
            "the database has {}, and the file {}",
            found.shown(),
            self.shown()
        )
    }

    fn shown(&self) -> String {
        format!(
            "{} rows with {} bytes of sources and {} of destinations",
            self.rows, self.source_bytes, self.dest_bytes
        )
    }
}

/// In Unix time, of rows.
fn times(files: &[Finished]) -> Option<RangeInclusive<i64>> {
    let starts = || {
        files
            .iter()
            .map(|file| file.period.start.seconds_and_nanos().0)
    };
    Some(starts().min()?..=starts().max()?)
}
