//! The report: figures with their bounds, in the order in which they are printed. Serialized, it is `--format json`.

use std::cmp::Reverse;

use rayon::prelude::*;
use serde::Serialize;

use super::plan::{Plan, Span};
use super::sums::{Grouping, HostLoss, Sums, loss_of};
use super::tally::{Line, Who};
use crate::cli::report::{Form, Sort};
use crate::files::calendar::Calendar;
use crate::files::journal::{IN, Loss, OUT};
use crate::model::interval::{Period, UnixNanos};

/// A figure that is exact, or lies between two; without `at_most` nothing bounds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Bounds {
    pub(super) at_least: u64,
    pub(super) at_most: Option<u64>,
}

impl Bounds {
    pub(super) fn is_exact(self) -> bool {
        self.at_most == Some(self.at_least)
    }

    /// Both together.
    fn with(self, other: Self, both: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            at_least: both(self.at_least, other.at_least),
            at_most: self
                .at_most
                .zip(other.at_most)
                .map(|(own, other)| both(own, other)),
        }
    }

    pub(super) fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self {
            at_least: change(self.at_least),
            at_most: self.at_most.map(change),
        }
    }
}

/// A line of the report.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) name: String,
    /// What was sent to it.
    pub(super) in_bytes: Bounds,
    pub(super) in_packets: u64,
    /// What it sent.
    pub(super) out_bytes: Bounds,
    pub(super) out_packets: u64,
    /// In bits per second.
    pub(super) percentile: Bounds,
    pub(super) form: &'static str,
    /// Bytes of rows in which the cross-check counted the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) matched_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) contract: Option<Box<Contract>>,
    /// For plots, by their number: in and out, in bits per second.
    #[serde(skip)]
    pub(super) points: Vec<(u32, [u64; 2])>,
}

/// What is agreed, and what is above it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Contract {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commit_mbit: Option<f64>,
    /// The percentile less the commit, in bits per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_commit: Option<Bounds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota_gb: Option<f64>,
    /// Bytes of the form, of the whole quota.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) used_bytes: Option<Bounds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) over_quota_bytes: Option<Bounds>,
    /// 80, 90 or 100: as much of the quota is used, in percent, at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) threshold_percent: Option<u8>,
    /// When the quota will be used up, if use goes on as it did, and that is in the period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) used_up: Option<String>,
}

/// A part of the period.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SpanReport {
    pub(super) name: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) samples: u64,
    pub(super) incomplete_samples: u64,
    pub(super) lines: Vec<Entry>,
    pub(super) all: Entry,
    #[serde(skip)]
    pub(super) plot: Plot,
}

/// What the plots of a part have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    pub(super) n_points: u32,
    pub(super) samples_per_point: u32,
    /// Points with an incomplete sample.
    pub(super) incomplete: Vec<u32>,
    /// Bytes in and out of each day.
    pub(super) days: Vec<(String, [u64; 2])>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) acctd: &'static str,
    pub(super) command: Vec<String>,
    pub(super) zone: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) sample_seconds: u64,
    pub(super) percentile: String,
    pub(super) hosts: Vec<String>,
    pub(super) files: usize,
    pub(super) rows: u64,
    /// Files that no line of intervals.jsonl describes: nothing is known of their losses.
    pub(super) undescribed_files: usize,
    /// The first, and the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) files_from_to: Option<[String; 2]>,
    /// SHA-256 over the sorted SHA-256 digests of the files, in hex; with HTML alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    pub(super) parts: Vec<SpanReport>,
}

/// What the lines of one part are made with.
pub(super) struct Making<'m> {
    pub(super) grouping: &'m Grouping,
    pub(super) hosts: &'m [String],
    pub(super) sample_seconds: u64,
    pub(super) has_kernel: bool,
    pub(super) sort: Sort,
    pub(super) top: Option<usize>,
    pub(super) calendar: &'m Calendar,
    /// The end of the whole period, which may be yet to come.
    pub(super) planned_end: UnixNanos,
}

impl Making<'_> {
    /// The lines of a part in order, and the sum of all.
    pub(super) fn entries(
        &self,
        plan: &Plan<'_>,
        sums: &Sums,
        span: usize,
        of_span: &[HostLoss],
    ) -> (Vec<Entry>, Entry) {
        let lines = &sums.lines[span];
        let span = &plan.spans[span];
        let empty = Line::default();
        let of_all = Losses::of(Who::All, of_span);
        let entry = |who: Who| {
            let line = lines.get(who).unwrap_or(&empty);
            if matches!(who, Who::Host(_)) {
                self.entry(who, line, &Losses::of(who, of_span), span)
            } else {
                self.entry(who, line, &of_all, span)
            }
        };
        let mut sorted: Vec<(Who, Entry)> = lines
            .par_iter()
            .filter(|(who, _)| *who != Who::All)
            .map(|(who, _)| (who, entry(who)))
            .collect();
        // A customer without traffic has a bill too.
        for index in 0..self.grouping.customers.all.len() {
            let who = Who::Customer(index);
            if lines.get(who).is_none() {
                sorted.push((who, entry(who)));
            }
        }
        sorted.par_sort_by_cached_key(|(who, entry)| (Reverse(self.weight(entry)), *who));
        if self.sort == Sort::Name {
            sorted.sort_by(|(who, entry), (other_who, other)| match (who, other_who) {
                (Who::Prefix(_), Who::Prefix(_)) => who.cmp(other_who),
                _ => entry.name.cmp(&other.name),
            });
        }
        let mut entries: Vec<Entry> = sorted.into_iter().map(|(_, entry)| entry).collect();
        let all = entry(Who::All);
        if let Some(top) = self.top
            && entries.len() > top
        {
            let others = entries.split_off(top);
            entries.push(sum_of(&others));
        }
        (entries, all)
    }

    fn weight(&self, entry: &Entry) -> u64 {
        let (inward, outward) = (entry.in_bytes.at_least, entry.out_bytes.at_least);
        match self.sort {
            Sort::Bytes | Sort::Name => inward.saturating_add(outward),
            Sort::In => inward,
            Sort::Out => outward,
            Sort::Percentile => entry.percentile.at_least,
        }
    }

    fn entry(&self, who: Who, line: &Line, losses: &Losses, span: &Span) -> Entry {
        let families = self.grouping.families(who);
        let rule = self.grouping.rule(who, span.n_samples);
        let most = line.most(&losses.all, families);
        let bytes = [IN, OUT].map(|direction| Bounds {
            at_least: line.sum.bytes[direction],
            at_most: most[direction],
        });
        let (at_least, at_most) = line.percentile(&losses.counted, families, &rule);
        let seconds = self.sample_seconds.max(1);
        let percentile =
            Bounds { at_least, at_most }.map(|bytes| bytes.saturating_mul(8) / seconds);
        Entry {
            name: self.name(who),
            in_bytes: bytes[IN],
            in_packets: line.sum.packets[IN],
            out_bytes: bytes[OUT],
            out_packets: line.sum.packets[OUT],
            percentile,
            form: name_of(rule.form),
            matched_bytes: self.has_kernel.then(|| line.sum.matched.iter().sum()),
            contract: self.contract(who, bytes, percentile, rule.form, span.period),
            points: line
                .points
                .iter()
                .map(|(point, bytes)| {
                    (*point, bytes.map(|bytes| bytes.saturating_mul(8) / seconds))
                })
                .collect(),
        }
    }

    fn name(&self, who: Who) -> String {
        match who {
            Who::All => "all".to_owned(),
            Who::Prefix(address) => address.to_string(),
            Who::Customer(index) => self.grouping.customers.all[index].name.clone(),
            Who::Nobody => "(nobody)".to_owned(),
            Who::Host(index) => self.hosts[index].clone(),
        }
    }

    fn contract(
        &self,
        who: Who,
        [inward, outward]: [Bounds; 2],
        percentile: Bounds,
        form: Form,
        period: Period,
    ) -> Option<Box<Contract>> {
        let Who::Customer(index) = who else {
            return None;
        };
        let customer = &self.grouping.customers.all[index];
        if customer.commit_mbit.is_none() && customer.quota_gb.is_none() {
            return None;
        }
        let used = match form {
            Form::In => inward,
            Form::Out => outward,
            Form::Max | Form::SampleMax => inward.with(outward, u64::max),
            Form::Sum => inward.with(outward, u64::saturating_add),
        };
        let commit = customer.commit_mbit.map(|mbit| whole(mbit * 1e6));
        let quota = customer.quota_gb.map(|gb| whole(gb * 1e9));
        Some(Box::new(Contract {
            commit_mbit: customer.commit_mbit,
            over_commit: commit.map(|commit| percentile.map(|it| it.saturating_sub(commit))),
            quota_gb: customer.quota_gb,
            used_bytes: quota.map(|_| used),
            over_quota_bytes: quota.map(|quota| used.map(|it| it.saturating_sub(quota))),
            threshold_percent: quota.and_then(|quota| threshold(used.at_least, quota)),
            used_up: quota.and_then(|quota| self.used_up(used.at_least, quota, period)),
        }))
    }

    /// When `used` bytes in the period become the quota.
    fn used_up(&self, used: u64, quota: u64, period: Period) -> Option<String> {
        if used >= quota {
            return None;
        }
        let elapsed = i128::from(period.end.0) - i128::from(period.start.0);
        let until = (elapsed * i128::from(quota)).checked_div(i128::from(used))?;
        let at = i64::try_from(i128::from(period.start.0) + until).ok()?;
        (at < self.planned_end.0).then(|| self.calendar.text(UnixNanos(at)).ok())?
    }
}

fn threshold(used: u64, quota: u64) -> Option<u8> {
    let percent = u128::from(used) * 100 / u128::from(quota.max(1));
    [100, 90, 80]
        .into_iter()
        .find(|it| percent >= u128::from(*it))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it saturates, and is positive"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

/// What may be missing, by sample, in order.
struct Losses {
    all: Vec<(u32, Loss)>,
    /// Of samples that count for percentiles.
    counted: Vec<(u32, Loss)>,
}

impl Losses {
    fn of(who: Who, losses: &[HostLoss]) -> Self {
        let of_samples = losses.chunk_by(|a, b| a.number == b.number);
        let all = of_samples.map(|of_sample| (&of_sample[0], loss_of(who, of_sample)));
        let all: Vec<_> = all.filter(|(_, loss)| !loss.is_none()).collect();
        let numbered = |(of, loss): &(&HostLoss, Loss)| (of.number, *loss);
        Self {
            all: all.iter().map(numbered).collect(),
            counted: all
                .iter()
                .filter(|(of, _)| of.is_counted)
                .map(numbered)
                .collect(),
        }
    }
}

/// One line for those that are not shown. Their percentiles do not add up.
fn sum_of(others: &[Entry]) -> Entry {
    let sum = |of: fn(&Entry) -> Bounds| Bounds {
        at_least: others
            .iter()
            .map(|it| of(it).at_least)
            .fold(0, u64::saturating_add),
        at_most: others
            .iter()
            .map(|it| of(it).at_most)
            .try_fold(0_u64, |sum, most| Some(sum.saturating_add(most?))),
    };
    Entry {
        name: format!("({} others)", others.len()),
        in_bytes: sum(|it| it.in_bytes),
        in_packets: others.iter().map(|it| it.in_packets).sum(),
        out_bytes: sum(|it| it.out_bytes),
        out_packets: others.iter().map(|it| it.out_packets).sum(),
        percentile: Bounds {
            at_least: 0,
            at_most: None,
        },
        form: "",
        matched_bytes: others.iter().map(|it| it.matched_bytes).sum(),
        contract: None,
        points: Vec::new(),
    }
}

fn name_of(form: Form) -> &'static str {
    match form {
        Form::In => "in",
        Form::Out => "out",
        Form::Max => "max",
        Form::Sum => "sum",
        Form::SampleMax => "sample-max",
    }
}
