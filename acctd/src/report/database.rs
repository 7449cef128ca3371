//! Files that acctd ship has sent to ClickHouse: the database adds up the rows of all hosts in each sample.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::plan::{Plan, Sample};
use super::sums::{Grouping, HostLoss, Sums, add_overflow_of, known_missing};
use super::tally::{ByWho, Sum, Who, by_who};
use crate::cli::report::{GroupBy, ReportArgs};
use crate::cli::ship::Compression;
use crate::client::clickhouse::{ClickHouse, quoted};
use crate::files::archive::from_hex;
use crate::files::directory::{File, Host};
use crate::files::journal::{self, Loss};
use crate::files::rows::{address_of, number_of};
use crate::model::interval::{Period, UnixNanos};

const NANOS: i64 = 1_000_000_000;
/// Files that begin so long before a period, or after it, tell whether it has holes.
const DAY: i64 = 86_400 * NANOS;

/// So many rows have sums that fit into the memory that the database gives a request.
const ROWS_AT_ONCE: u64 = 2_000_000;

/// A database that is asked.
pub(super) struct Database {
    server: ClickHouse,
    /// Those that were asked for; all if there are none.
    hosts: Vec<String>,
}

#[derive(Deserialize)]
struct Covered {
    files: u64,
    start: i64,
    end: i64,
}

#[derive(Deserialize)]
struct OfFile {
    host: String,
    file: String,
    start: i64,
    end: i64,
    line: String,
}

#[derive(Deserialize)]
struct Digest {
    sha256: String,
}

impl Database {
    /// `None` if files are to be read.
    pub(super) fn of(args: &ReportArgs) -> Result<Option<Self>> {
        let Some(url) = &args.from_clickhouse else {
            return Ok(None);
        };
        let hosts = args.directories.iter();
        Ok(Some(Self {
            server: ClickHouse::new(url, &args.server, Compression::None)?,
            hosts: hosts
                .map(|host| host.to_string_lossy().into_owned())
                .collect(),
        }))
    }

    /// From the start of the first file to the end of the last.
    pub(super) fn covered(&self) -> Result<Period> {
        let covered: Vec<Covered> = self.server.select(&format!(
            "SELECT count() AS files, toInt64(toUnixTimestamp(min(start))) AS start, toInt64(toUnixTimestamp(max(end))) AS end \
             FROM files WHERE {}",
            self.is_asked()
        ))?;
        let covered = covered.first().filter(|it| it.files > 0);
        let covered = covered
            .with_context(|| format!("{} has no files of these hosts", self.server.shown()))?;
        Ok(Period {
            start: UnixNanos(covered.start * NANOS),
            end: UnixNanos(covered.end * NANOS),
        })
    }

    /// The files that begin in a period, and those around it.
    pub(super) fn hosts(&self, period: Period) -> Result<Vec<Host>> {
        let named = |name: &String| Host {
            name: name.clone(),
            files: Vec::new(),
            archives: Vec::new(),
            others: Vec::new(),
        };
        let mut hosts: Vec<Host> = self.hosts.iter().map(named).collect();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for (number, host) in hosts.iter().enumerate() {
            numbers.insert(host.name.clone(), number);
        }
        let statement = format!(
            "SELECT host, file, toInt64(toUnixTimestamp(start)) AS start, toInt64(toUnixTimestamp(end)) AS end, line \
             FROM files FINAL WHERE {} AND {} ORDER BY host, start, file",
            self.is_asked(),
            begins_in(
                "start",
                UnixNanos(period.start.0 - DAY),
                UnixNanos(period.end.0 + DAY)
            )
        );
        self.server.select_each(&statement, |of_file: OfFile| {
            let number = *numbers.entry(of_file.host).or_insert_with_key(|name| {
                hosts.push(named(name));
                hosts.len() - 1
            });
            let described = (!of_file.line.is_empty()).then(|| journal::parse(&of_file.line));
            let described = described
                .transpose()
                .with_context(|| of_file.file.clone())?;
            let described = described.map(|(_, described)| described);
            hosts[number].files.push(File {
                path: of_file.file.into(),
                period: described.as_ref().map_or(
                    Period {
                        start: UnixNanos(of_file.start * NANOS),
                        end: UnixNanos(of_file.end * NANOS),
                    },
                    |described| described.period,
                ),
                described,
                archived: None,
            });
            Ok(())
        })?;
        Ok(hosts)
    }

    /// All samples of the plan.
    pub(super) fn read(
        &self,
        plan: &Plan<'_>,
        hosts: &[Host],
        grouping: &Grouping,
    ) -> Result<Sums> {
        let numbers: HashMap<&str, usize> = hosts
            .iter()
            .enumerate()
            .map(|(number, host)| (host.name.as_str(), number))
            .collect();
        let mut sums = Sums::new(plan);
        let mut rest = &plan.samples[..];
        while !rest.is_empty() {
            let (samples, later) = rest.split_at(n_at_once(rest));
            self.read_samples(&mut sums, samples, plan, grouping, &numbers)?;
            rest = later;
        }
        if grouping.is_plotted {
            let digests: Vec<Digest> = self.server.select(&format!(
                "SELECT sha256 FROM files FINAL WHERE {} AND {}",
                self.is_asked(),
                begins_in("start", plan.whole.start, plan.whole.end)
            ))?;
            for digest in digests {
                sums.digests.push(from_hex(&digest.sha256)?);
            }
        }
        Ok(sums)
    }

    /// The database sorts what it has added up by samples, and sends it one after the other.
    fn read_samples(
        &self,
        sums: &mut Sums,
        samples: &[Sample<'_>],
        plan: &Plan<'_>,
        grouping: &Grouping,
        numbers: &HashMap<&str, usize>,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
            return Ok(());
        };
        let start = plan.start_of(first.number);
        let end = plan.start_of(last.number + 1).min(plan.whole.end);
        let of_samples = format!(
            "{} AND {} AND (host, file) GLOBAL IN (SELECT host, file FROM files WHERE {} AND {})",
            self.is_asked(),
            begins_in("Time", start, end),
            self.is_asked(),
            begins_in("start", start, end)
        );
        let mut losses = self.losses(samples, plan, numbers, &of_samples)?;
        let (host, address) = match grouping.by {
            GroupBy::Host => ("host", "'::'"),
            GroupBy::Prefix | GroupBy::Customer => ("''", "IP"),
        };
        let statement = format!(
            "SELECT intDiv(toInt64(toUnixTimestamp(Time)), {}) AS sample, {host} AS by_host, {address} AS address, {SUMS}, count(), countIf(isNotNull(Verdict)) \
             FROM traffic FINAL WHERE {of_samples} GROUP BY sample, by_host, address ORDER BY sample",
            plan.length / NANOS
        );
        let first_sample = plan.whole.start.0.div_euclid(plan.length);
        let mut rest = samples.iter().zip(&mut losses).peekable();
        let mut of_sample: ByWho<Sum> = by_who();
        let mut all = Sum::default();
        let mut next = |sums: &mut Sums, of_sample: &mut ByWho<Sum>, all: &mut Sum| {
            let (sample, losses) = rest.next()?;
            let lines = of_sample.drain().chain([(Who::All, std::mem::take(all))]);
            sums.add_sample(lines, std::mem::take(losses), sample, plan, grouping);
            rest.peek().map(|(sample, _)| sample.number)
        };
        let mut current = Some(first.number);
        self.server.each_row(&statement, |fields| {
            let number = i64::try_from(number_of(fields.next()?)?).ok()? - first_sample;
            let number = u32::try_from(number).ok()?;
            while current? < number {
                current = next(sums, &mut of_sample, &mut all);
            }
            let host = std::str::from_utf8(fields.next()?).ok()?;
            let host = numbers.get(host).copied().unwrap_or_default();
            let address = address_of(fields.next()?)?;
            let mut counters = [0; 10];
            for counter in &mut counters {
                *counter = number_of(fields.next()?)?;
            }
            let [
                in_bytes,
                out_bytes,
                in_packets,
                out_packets,
                more_in,
                more_out,
                same_in,
                same_out,
                n_rows,
                n_checked,
            ] = counters;
            let sum = Sum {
                bytes: [in_bytes, out_bytes],
                packets: [in_packets, out_packets],
                uncovered: [more_in, more_out],
                matched: [same_in, same_out],
            };
            of_sample
                .entry(grouping.who(host, address))
                .or_default()
                .append(&sum);
            all.append(&sum);
            sums.n_rows += n_rows;
            sums.has_kernel |= n_checked > 0;
            fields.next().is_none().then_some(())
        })?;
        while current.is_some() {
            current = next(sums, &mut of_sample, &mut all);
        }
        Ok(())
    }

    /// What may be missing in each sample. The rows of overflow say it too.
    fn losses(
        &self,
        samples: &[Sample<'_>],
        plan: &Plan<'_>,
        numbers: &HashMap<&str, usize>,
        of_samples: &str,
    ) -> Result<Vec<Vec<HostLoss>>> {
        let mut overflows: HashMap<(usize, String), Loss> = HashMap::new();
        let described = || {
            let files = samples.iter().flat_map(|sample| &sample.files);
            files.filter_map(|(host, file)| Some((*host, file, file.described.as_ref()?)))
        };
        if described()
            .any(|(_, _, described)| described.has_overflow.as_flattened().contains(&true))
        {
            let files: HashMap<(usize, String), &File> = described()
                .map(|(host, file, _)| ((host, file.path.display().to_string()), *file))
                .collect();
            let statement = format!(
                "SELECT host, file, IP, DestBytes, SourceBytes FROM traffic FINAL WHERE IP IN ('0.0.0.0', '::') AND {of_samples}"
            );
            self.server.each_row(&statement, |fields| {
                let mut text = || std::str::from_utf8(fields.next()?).ok().map(str::to_owned);
                let (host, file) = (*numbers.get(text()?.as_str())?, text()?);
                let is_ip6 = address_of(fields.next()?)?.is_ipv6();
                let bytes = [number_of(fields.next()?)?, number_of(fields.next()?)?];
                let key = (host, file);
                let file = files.get(&key)?;
                add_overflow_of(overflows.entry(key).or_default(), file, is_ip6, bytes);
                Some(())
            })?;
        }
        let of_samples = samples.iter().map(|sample| {
            let mut losses = known_missing(plan, sample, numbers.len());
            for (host, file) in &sample.files {
                let mut loss = file
                    .described
                    .as_ref()
                    .map_or_else(Loss::default, |it| it.loss);
                if let Some(more) = overflows.get(&(*host, file.path.display().to_string())) {
                    loss.add(more);
                }
                if !loss.is_none() {
                    losses.push(HostLoss::new(sample, *host, loss));
                }
            }
            losses
        });
        Ok(of_samples.collect())
    }

    /// A condition: of the hosts that were asked for.
    fn is_asked(&self) -> String {
        if self.hosts.is_empty() {
            return "1".to_owned();
        }
        let hosts: Vec<String> = self.hosts.iter().map(|host| quoted(host)).collect();
        format!("host IN ({})", hosts.join(", "))
    }
}

/// In and out: bytes, packets, what the cross-check counted more of rows that are uncovered, bytes of rows that match.
const SUMS: &str = "sum(DestBytes), sum(SourceBytes), sum(DestPackets), sum(SourcePackets), \
    sumIf(ifNull(TcDestBytes, 0) - DestBytes, ifNull(Verdict, '') = 'uncovered' AND ifNull(TcDestBytes, 0) > DestBytes), \
    sumIf(ifNull(TcSourceBytes, 0) - SourceBytes, ifNull(Verdict, '') = 'uncovered' AND ifNull(TcSourceBytes, 0) > SourceBytes), \
    sumIf(DestBytes, ifNull(Verdict, '') = 'match'), sumIf(SourceBytes, ifNull(Verdict, '') = 'match')";

/// How many samples the database adds up at once.
fn n_at_once(samples: &[Sample<'_>]) -> usize {
    let mut n_rows = 0;
    let is_enough = |sample: &Sample<'_>| {
        let files = sample.files.iter();
        let described = files.filter_map(|(_, file)| file.described.as_ref());
        n_rows += described.map(|it| it.rows).sum::<u64>();
        n_rows > ROWS_AT_ONCE
    };
    samples
        .iter()
        .position(is_enough)
        .map_or(samples.len(), |n| n.max(1))
}

/// A condition: the database has whole seconds of starts.
fn begins_in(column: &str, start: UnixNanos, end: UnixNanos) -> String {
    let start = start.seconds_and_nanos().0;
    let end = -(-end.0).div_euclid(NANOS);
    format!("{column} >= toDateTime({start}) AND {column} < toDateTime({end})")
}
