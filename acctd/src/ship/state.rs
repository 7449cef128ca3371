//! What a running `acctd ship` counts, and what is wrong.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

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

/// A metric at 0, which is in the registry.
fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl State {
    pub(super) fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = &mut registry;
        let waiting = registered(
            metrics,
            "acctd_ship_waiting_files",
            "Finished files that are not sent yet",
        );
        let refused = registered(
            metrics,
            "acctd_ship_refused_files",
            "Files that cannot be sent; the log says why",
        );
        let differing = registered(
            metrics,
            "acctd_ship_differing_files",
            "Files of which something else was there at the last comparison",
        );
        let oldest = registered(
            metrics,
            "acctd_ship_oldest_waiting_timestamp_seconds",
            "The end of the oldest file that waits; 0 if none does",
        );
        let reconciled = registered(
            metrics,
            "acctd_ship_last_reconciled_timestamp_seconds",
            "When all files were last compared; 0 for never",
        );
        let files = registered(
            metrics,
            "acctd_ship_files",
            "Files that were sent since the start, and are there",
        );
        let rows = registered(metrics, "acctd_ship_rows", "Rows of these files");
        let bytes = registered(
            metrics,
            "acctd_ship_bytes",
            "Bytes of these files, before compression",
        );
        let repeated = registered(
            metrics,
            "acctd_ship_repeated_files",
            "Files that were sent more than once",
        );
        let failures = registered(
            metrics,
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
            (&self.differing, "differ from what is there"),
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
