//! What a running `acctd ship` counts, and what is wrong.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::model::interval::UnixNanos;
use crate::observe::metrics;

/// A file that waits for longer is a problem.
const LATE: Duration = Duration::from_secs(15 * 60);

type Float = Gauge<f64, AtomicU64>;

/// Counters and gauges, all from the start.
#[derive(Debug)]
pub(super) struct State {
    pub(super) registry: Registry,
    pub(super) waiting: Gauge,
    /// In Unix time; 0 if none waits.
    oldest: Float,
    pub(super) refused: Gauge,
    pub(super) differing: Gauge,
    pub(super) reconciled: Float,
    pub(super) files: Counter,
    pub(super) rows: Counter,
    pub(super) bytes: Counter,
    pub(super) repeated: Counter,
    pub(super) failures: Counter,
    error: Mutex<Option<String>>,
}

impl State {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let mut gauge = |name, help| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let waiting = gauge(
            "acctd_ship_waiting_files",
            "Finished files that are not in the database",
        );
        let refused = gauge(
            "acctd_ship_refused_files",
            "Files that cannot be sent: see the log",
        );
        let differing = gauge(
            "acctd_ship_differing_files",
            "Files that the database had otherwise at the last comparison",
        );
        let mut float = |name, help| {
            let gauge = Float::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let oldest = float(
            "acctd_ship_oldest_waiting_timestamp_seconds",
            "The end of the oldest file that waits; 0 if none does",
        );
        let reconciled = float(
            "acctd_ship_last_reconciled_timestamp_seconds",
            "When all files were last compared with the database; 0 for never",
        );
        let mut counter = |name, help| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let files = counter(
            "acctd_ship_files",
            "Files that are in the database since the start",
        );
        let rows = counter("acctd_ship_rows", "Rows of these files");
        let bytes = counter(
            "acctd_ship_bytes",
            "Bytes of these files, before compression",
        );
        let repeated = counter(
            "acctd_ship_repeated_files",
            "Files that were sent more than once",
        );
        let failures = counter(
            "acctd_ship_failures",
            "Requests that failed, and were tried again",
        );
        Self {
            registry,
            waiting,
            oldest,
            refused,
            differing,
            reconciled,
            files,
            rows,
            bytes,
            repeated,
            failures,
            error: Mutex::default(),
        }
    }

    pub(super) fn set_oldest(&self, end: Option<UnixNanos>) {
        self.oldest.set(end.map_or(0.0, metrics::seconds));
    }

    pub(super) fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(super) fn problems(&self, now: UnixNanos) -> Vec<String> {
        let mut problems = Vec::new();
        let error = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        problems.extend(error.clone());
        let age = metrics::seconds(now) - self.oldest.get();
        if self.oldest.get() > 0.0 && age > LATE.as_secs_f64() {
            problems.push(format!("a file has been waiting for {age:.0} s"));
        }
        for (n, what) in [
            (&self.refused, "cannot be sent"),
            (&self.differing, "differ from the database"),
        ] {
            if n.get() > 0 {
                problems.push(format!("{} files {what}", n.get()));
            }
        }
        problems
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} files with {} rows are sent, {} of them more than once; {} wait, {} cannot be sent",
            self.files.get(),
            self.rows.get(),
            self.repeated.get(),
            self.waiting.get(),
            self.refused.get()
        )
    }
}
