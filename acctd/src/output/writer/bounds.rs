//! Keeps the rows that wait for the disk within `--backlog`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use log::warn;

use crate::crosscheck::verdicts::Judge;
use crate::model::closed_interval::ClosedInterval;
use crate::model::zone::Zone;
use crate::output::merge;
use crate::output::writer::unwritten::Unwritten;

/// When each warning was last logged. They may apply each second.
#[derive(Clone, Copy, Default)]
pub(super) struct LastWarned {
    merged: Option<Instant>,
    folded: Option<Instant>,
}

fn is_warning_due(last: &mut Option<Instant>) -> bool {
    let is_due = last.is_none_or(|at| at.elapsed() >= LONGEST_PAUSE);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

pub(super) fn n_rows(files: &VecDeque<Unwritten>) -> usize {
    files.iter().map(|file| file.closed.n_entries()).sum()
}

pub(super) fn is_unjudged(closed: &ClosedInterval) -> bool {
    let kernel = closed.kernel.as_ref();
    kernel.is_some_and(|kernel| kernel.judgement.is_none())
}

/// Gives the verdicts only once, although an interval may be tried several times: the verdicts of the next interval
/// depend on it.
pub(super) fn judge_once(closed: &mut ClosedInterval, judge: &mut Judge) {
    if is_unjudged(closed) {
        judge.judge(closed);
    }
}

/// Merges neighbours until at most `limit` rows wait. If a merged interval is still larger, its smallest prefixes are
/// folded into the zero address.
pub(super) fn merge_all(
    files: &mut VecDeque<Unwritten>,
    limit: usize,
    judge: &mut Judge,
    zone: Zone,
    last_warned: &mut LastWarned,
) {
    for file in files.iter_mut() {
        judge_once(&mut file.closed, judge);
    }
    // If the oldest has a complete file on the disk, it cannot be merged.
    let fixed = usize::from(files.front().is_some_and(|file| file.prepared.is_some()));
    let n_before = files.len();
    let mut n_rows = n_rows(files);
    while n_rows > limit {
        let sizes = files.iter().skip(fixed);
        let sizes = sizes.map(|file| file.closed.n_entries()).collect();
        let Some(at) = merge::smallest_neighbours(&sizes) else {
            break;
        };
        let at = at + fixed;
        let Some(next) = files.remove(at + 1) else {
            break;
        };
        n_rows -= files[at].closed.n_entries() + next.closed.n_entries();
        files[at].closed.append(next.closed);
        n_rows += files[at].closed.n_entries();
    }
    let Some(last) = files.back_mut() else { return };
    if n_rows > limit && last.closed.n_merged > 1 {
        let n_ledgers = last.closed.groups.len().max(1);
        last.closed.fold((limit / n_ledgers).max(1));
        if is_warning_due(&mut last_warned.folded) {
            warn!(
                "{} has more rows than --backlog lets wait: the smallest of its prefixes are in the row of the zero address; totals are exact",
                zone.file_stem(last.closed.period)
            );
        }
    }
    if files.len() < n_before && is_warning_due(&mut last_warned.merged) {
        warn!(
            "{n_before} intervals wait for the disk, with more rows than --backlog allows: neighbours are merged, {} files will be written",
            files.len()
        );
    }
}

pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
