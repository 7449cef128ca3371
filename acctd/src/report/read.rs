//! Reads the files of all samples, on all processors, and adds them up.

use std::fs;
use std::net::IpAddr;
use std::num::NonZero;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest as _, Sha256};

use super::customers::Customers;
use super::files::{File, Host};
use super::journal::{IN, Loss, OUT};
use super::plan::{Plan, Sample};
use super::rows::{self, Row};
use super::tally::{ByWho, Line, Rule, Sum, Who, by_who};
use crate::cli::report::{Form, GroupBy, Percentile};

/// What of the command line the adding up depends on.
#[derive(Debug)]
pub(super) struct Grouping {
    pub(super) by: GroupBy,
    pub(super) customers: Customers,
    pub(super) percentile: Percentile,
    pub(super) form: Form,
    /// Whether plots and digests are wanted.
    pub(super) is_plotted: bool,
}

impl Grouping {
    fn who(&self, host: usize, address: IpAddr) -> Who {
        match self.by {
            GroupBy::Prefix => Who::Prefix(address),
            GroupBy::Customer => self
                .customers
                .of(address)
                .map_or(Who::Nobody, Who::Customer),
            GroupBy::Host => Who::Host(host),
        }
    }

    /// The families of IP that it may have packets of.
    pub(super) fn families(&self, who: Who) -> [bool; 2] {
        match who {
            Who::Prefix(IpAddr::V4(_)) => [true, false],
            Who::Prefix(IpAddr::V6(_)) => [false, true],
            Who::Customer(index) => self.customers.all[index].families,
            Who::All | Who::Nobody | Who::Host(_) => [true, true],
        }
    }

    pub(super) fn form(&self, who: Who) -> Form {
        match who {
            Who::Customer(index) => self.customers.all[index].form.unwrap_or(self.form),
            _ => self.form,
        }
    }

    pub(super) fn rule(&self, who: Who, n_samples: u64) -> Rule {
        Rule {
            form: self.form(who),
            percentile: self.percentile,
            n_samples,
        }
    }
}

/// What may be missing in a sample, by host.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostLoss {
    pub(super) number: u32,
    pub(super) host: usize,
    pub(super) loss: Loss,
    /// Whether the sample counts for percentiles.
    pub(super) is_counted: bool,
}

/// Sums of the samples that were read: by part of the period.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) lines: Vec<ByWho<Line>>,
    /// In no order.
    pub(super) losses: Vec<HostLoss>,
    pub(super) n_rows: u64,
    /// Whether files have the cross-check's columns.
    pub(super) has_kernel: bool,
    /// Bytes in and out of each day.
    pub(super) days: Vec<[u64; 2]>,
    /// The digests of the files, in no order, if a plot is wanted.
    pub(super) digests: Vec<[u8; 32]>,
}

/// All samples of the plan.
pub(super) fn read(plan: &Plan<'_>, hosts: &[Host], grouping: &Grouping) -> Result<Sums> {
    let n_threads = thread::available_parallelism().map_or(1, NonZero::get);
    let n_each = plan.samples.len().div_ceil(n_threads).max(1);
    let progress = progress(plan);
    let parts = thread::scope(|scope| {
        let threads = plan
            .samples
            .chunks(n_each)
            .map(|samples| scope.spawn(|| read_samples(samples, plan, hosts, grouping, &progress)));
        let threads: Vec<_> = threads.collect();
        let ended = threads.into_iter().map(|it| {
            it.join()
                .map_err(|_panicked| anyhow!("a thread has panicked"))?
        });
        ended.collect::<Result<Vec<Sums>>>()
    })?;
    progress.finish_and_clear();
    let mut all = Sums::new(plan);
    for part in parts {
        all.append(part, plan, grouping);
    }
    Ok(all)
}

/// On a terminal alone.
fn progress(plan: &Plan<'_>) -> ProgressBar {
    let n_files: usize = plan.samples.iter().map(|sample| sample.files.len()).sum();
    let progress = ProgressBar::new(u64::try_from(n_files).unwrap_or(u64::MAX));
    // Without a style, it has the default one.
    match ProgressStyle::with_template("{wide_bar} {pos}/{len} files, {per_sec}, {eta} left") {
        Ok(style) => progress.with_style(style),
        Err(_wrong) => progress,
    }
}

impl Sums {
    fn new(plan: &Plan<'_>) -> Self {
        Self {
            lines: plan.spans.iter().map(|_| by_who()).collect(),
            days: vec![[0; 2]; plan.days.len()],
            ..Self::default()
        }
    }

    fn append(&mut self, other: Self, plan: &Plan<'_>, grouping: &Grouping) {
        for ((own, other), span) in self.lines.iter_mut().zip(other.lines).zip(&plan.spans) {
            if own.is_empty() {
                *own = other;
                continue;
            }
            for (who, line) in other {
                let rule = grouping.rule(who, span.n_samples);
                own.entry(who).or_default().append(line, &rule);
            }
        }
        self.losses.extend(other.losses);
        self.n_rows += other.n_rows;
        self.has_kernel |= other.has_kernel;
        for (own, other) in self.days.iter_mut().zip(other.days) {
            for (own, other) in own.iter_mut().zip(other) {
                *own += other;
            }
        }
        self.digests.extend(other.digests);
    }
}

fn read_samples(
    samples: &[Sample<'_>],
    plan: &Plan<'_>,
    hosts: &[Host],
    grouping: &Grouping,
    progress: &ProgressBar,
) -> Result<Sums> {
    let mut sums = Sums::new(plan);
    let mut of_sample: ByWho<Sum> = by_who();
    for sample in samples {
        let mut losses: Vec<HostLoss> = Vec::new();
        let mut all = Sum::default();
        for &(host, file) in &sample.files {
            let mut loss = Loss::default();
            let mut has_kernel = false;
            let text = fs::read(&file.path)
                .with_context(|| format!("cannot read {}", file.path.display()))?;
            if grouping.is_plotted {
                sums.digests.push(Sha256::digest(&text).into());
            }
            let n_rows = read_file(file, &text, |row| {
                has_kernel |= row.kernel.is_some();
                of_sample
                    .entry(grouping.who(host, row.address))
                    .or_default()
                    .add(row);
                all.add(row);
                add_overflow(&mut loss, file, row);
            })
            .with_context(|| file.path.display().to_string())?;
            sums.n_rows += n_rows;
            progress.inc(1);
            sums.has_kernel |= has_kernel;
            if let Some(described) = &file.described {
                loss.add(&described.loss);
            }
            if !loss.is_none() {
                losses.push(HostLoss {
                    number: sample.number,
                    host,
                    loss,
                    is_counted: sample.is_counted,
                });
            }
        }
        for (host, _) in hosts.iter().enumerate() {
            if let Some(loss) = plan.missing.get(&(sample.number, host)) {
                losses.push(HostLoss {
                    number: sample.number,
                    host,
                    loss: *loss,
                    is_counted: sample.is_counted,
                });
            }
        }
        of_sample.insert(Who::All, all);
        let span = &plan.spans[sample.span];
        let lines = &mut sums.lines[sample.span];
        for (who, sum) in of_sample.drain() {
            let rule = grouping.rule(who, span.n_samples);
            let loss = loss_of(who, &losses);
            let line = lines.entry(who).or_default();
            line.add(&sum);
            if who == Who::All {
                for (day, bytes) in sums.days[sample.day].iter_mut().zip(sum.bytes()) {
                    *day += bytes;
                }
            }
            if grouping.is_plotted && !matches!(who, Who::Prefix(_)) {
                line.add_point(span.point(sample.number), sum.bytes());
            }
            if sample.is_counted {
                line.add_sample(&sum, &loss, grouping.families(who), sample.number, &rule);
            }
        }
        sums.losses.extend(losses);
    }
    Ok(sums)
}

/// What concerns a line.
pub(super) fn loss_of(who: Who, losses: &[HostLoss]) -> Loss {
    let mut sum = Loss::default();
    for of_host in losses {
        if !matches!(who, Who::Host(host) if host != of_host.host) {
            sum.add(&of_host.loss);
        }
    }
    sum
}

/// The row of overflow has packets of any prefix.
fn add_overflow(loss: &mut Loss, file: &File, row: &Row) {
    let Some(described) = &file.described else {
        return;
    };
    if !row.address.is_unspecified() {
        return;
    }
    let family = usize::from(row.address.is_ipv6());
    for (direction, bytes) in [(IN, row.in_bytes), (OUT, row.out_bytes)] {
        if described.has_overflow[family][direction] {
            let missing = &mut loss.missing[family][direction];
            *missing = missing.saturating_add(bytes);
        }
    }
}

/// Calls `each` for each row; an error if the file is not as its line in the journal says.
fn read_file(file: &File, text: &[u8], mut each: impl FnMut(&Row)) -> Result<u64> {
    let mut bytes = [0_u64; 2];
    let n_rows = rows::read(text, |row| {
        bytes[IN] += row.in_bytes;
        bytes[OUT] += row.out_bytes;
        each(&row);
    })?;
    if let Some(described) = &file.described {
        ensure!(
            (n_rows, bytes) == (described.rows, described.bytes),
            "it has {n_rows} rows, {} bytes in and {} out, and its line in intervals.jsonl says {}, {} and {}: one of both was changed",
            bytes[IN],
            bytes[OUT],
            described.rows,
            described.bytes[IN],
            described.bytes[OUT]
        );
    }
    Ok(n_rows)
}
