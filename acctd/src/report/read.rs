//! Reads the files of all samples, on all processors, and adds them up.

use std::fs;

use anyhow::{Context as _, Result};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::archived;
use super::plan::{self, Plan, Sample, Stretch};
use super::sums::{Grouping, HostLoss, Sums, add_overflow, known_missing};
use super::tally::{ByWho, Sum, Who, by_who};
use crate::cli::report::GroupBy;
use crate::files::directory::Host;
use crate::files::journal::Loss;
use crate::files::sorted::Order;

/// All samples of the plan.
pub(super) fn read(plan: &Plan<'_>, hosts: &[Host], grouping: &Grouping) -> Result<Sums> {
    let n_threads = rayon::current_num_threads();
    let progress = progress(plan);
    let mut all = Sums::new(plan);
    for stretch in plan::stretches(&plan.samples) {
        match stretch {
            Stretch::Files(samples) => {
                let n_each = samples.len().div_ceil(n_threads).max(1);
                let parts = samples
                    .par_chunks(n_each)
                    .map(|samples| read_samples(samples, plan, hosts, grouping, &progress));
                for part in parts.collect::<Result<Vec<Sums>>>()? {
                    all.append(part, plan, grouping);
                }
            }
            Stretch::Archived(samples) => {
                let stretch = archived::Opened::new(samples, plan, hosts, grouping)?;
                let parts = stretch.parts(n_threads).into_par_iter();
                let parts = parts.map(|part| stretch.read(&part));
                stretch.add_to(&mut all, parts.collect::<Result<_>>()?)?;
                progress.inc(stretch.n_files());
            }
        }
    }
    progress.finish_and_clear();
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

fn read_samples(
    samples: &[Sample<'_>],
    plan: &Plan<'_>,
    hosts: &[Host],
    grouping: &Grouping,
    progress: &ProgressBar,
) -> Result<Sums> {
    let mut sums = Sums::new(plan);
    let mut of_sample: ByWho<Sum> = by_who();
    // Of a file that is a sample by itself, and whose rows are in order: each is of another prefix.
    let mut in_order: Vec<(Who, Sum)> = Vec::new();
    for sample in samples {
        let is_alone = grouping.by == GroupBy::Prefix && sample.files.len() == 1;
        let mut order = Order::default();
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
            let (_, n_rows) = file
                .read_rows(&text, |row| {
                    has_kernel |= row.kernel.is_some();
                    let who = grouping.who(host, row.address);
                    if is_alone {
                        order.note(row.address);
                        in_order.push((who, Sum::default()));
                    }
                    let sum = match in_order.last_mut() {
                        Some((_, sum)) => sum,
                        None => of_sample.entry(who).or_default(),
                    };
                    sum.add(row);
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
                losses.push(HostLoss::new(sample, host, loss));
            }
        }
        losses.extend(known_missing(plan, sample, hosts.len()));
        if !order.is_kept() {
            for (who, sum) in in_order.drain(..) {
                of_sample.entry(who).or_default().append(&sum);
            }
        }
        let lines = in_order.drain(..).chain(of_sample.drain());
        let lines = lines.chain([(Who::All, all)]);
        sums.add_sample(lines, losses, sample, plan, grouping);
    }
    Ok(sums)
}
