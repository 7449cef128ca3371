//! What is added up: for each part of the period its lines, and what may be missing.

use std::net::IpAddr;

use super::customers::Customers;
use super::plan::{Plan, Sample};
use super::tally::{Lines, Rule, Sum, Who};
use crate::cli::report::{Form, GroupBy, Percentile};
use crate::files::directory::File;
use crate::files::journal::{IN, Loss, OUT};
use crate::model::row::Row;

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
    pub(super) fn who(&self, host: usize, address: IpAddr) -> Who {
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
        Rule::new(self.form(who), self.percentile, n_samples)
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
    pub(super) lines: Vec<Lines>,
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

impl Sums {
    pub(super) fn new(plan: &Plan<'_>) -> Self {
        Self {
            lines: plan.spans.iter().map(|_| Lines::default()).collect(),
            days: vec![[0; 2]; plan.days.len()],
            ..Self::default()
        }
    }

    pub(super) fn append(&mut self, other: Self, plan: &Plan<'_>, grouping: &Grouping) {
        for ((own, other), span) in self.lines.iter_mut().zip(other.lines).zip(&plan.spans) {
            own.append(other, |who| grouping.rule(who, span.n_samples));
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

    /// Adds the sums of all lines in a sample.
    pub(super) fn add_sample(
        &mut self,
        of_sample: impl Iterator<Item = (Who, Sum)>,
        losses: Vec<HostLoss>,
        sample: &Sample<'_>,
        plan: &Plan<'_>,
        grouping: &Grouping,
    ) {
        for (who, sum) in of_sample {
            self.add(who, &sum, &losses, sample, plan, grouping);
        }
        self.losses.extend(losses);
    }

    /// Adds the sum of a line's rows in a sample.
    pub(super) fn add(
        &mut self,
        who: Who,
        sum: &Sum,
        losses: &[HostLoss],
        sample: &Sample<'_>,
        plan: &Plan<'_>,
        grouping: &Grouping,
    ) {
        let span = &plan.spans[sample.span];
        let line = self.lines[sample.span].of(who);
        line.sum.append(sum);
        if who == Who::All {
            for (day, bytes) in self.days[sample.day].iter_mut().zip(sum.bytes) {
                *day += bytes;
            }
        }
        if grouping.is_plotted && !matches!(who, Who::Prefix(_)) {
            line.add_point(span.point(sample.number), sum.bytes);
        }
        if sample.is_counted {
            let rule = grouping.rule(who, span.n_samples);
            let loss = loss_of(who, losses);
            line.add_sample(sum, &loss, grouping.families(who), sample.number, &rule);
        }
    }
}

impl HostLoss {
    pub(super) fn new(sample: &Sample<'_>, host: usize, loss: Loss) -> Self {
        Self {
            number: sample.number,
            host,
            loss,
            is_counted: sample.is_counted,
        }
    }
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

/// What may be missing in a sample because no file says it.
pub(super) fn known_missing(plan: &Plan<'_>, sample: &Sample<'_>, n_hosts: usize) -> Vec<HostLoss> {
    let of_hosts = (0..n_hosts).filter_map(|host| {
        let loss = plan.missing.get(&(sample.number, host))?;
        Some(HostLoss::new(sample, host, *loss))
    });
    of_hosts.collect()
}

/// The row of overflow has packets of any prefix.
pub(super) fn add_overflow(loss: &mut Loss, file: &File, row: &Row) {
    if row.address.is_unspecified() {
        let bytes = [row.dest.bytes, row.source.bytes];
        add_overflow_of(loss, file, row.address.is_ipv6(), bytes);
    }
}

/// `bytes`: in, out, of the row of overflow.
pub(super) fn add_overflow_of(loss: &mut Loss, file: &File, is_ip6: bool, bytes: [u64; 2]) {
    let Some(described) = &file.described else {
        return;
    };
    let family = usize::from(is_ip6);
    for direction in [IN, OUT] {
        if described.has_overflow[family][direction] {
            let missing = &mut loss.missing[family][direction];
            *missing = missing.saturating_add(bytes[direction]);
        }
    }
}
