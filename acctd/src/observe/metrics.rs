//! `/metrics`, in the text formats of `OpenMetrics` and Prometheus.
//!
//! There is no series per address. All series exist from the start, as 0, so that alerts need no special case.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeMetric as _, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::model::counts::Counts;
use crate::model::crosscheck_state::InterfaceState;
use crate::model::group::GroupConfig;
use crate::model::interval::UnixNanos;
use crate::model::kernel_counts::REASONS;
use crate::model::prefix::Side;
use crate::model::verdict::{SideSummary, Tally, Verdict};
use crate::observe::process_usage::ProcessUsage;
use crate::observe::state::{RuntimeState, Snapshot};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
    OpenMetrics,
    /// <https://prometheus.io/docs/instrumenting/exposition_formats/>, the default.
    Prometheus,
}

impl Format {
    /// By a request's `Accept` header.
    pub(crate) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }

    pub(crate) fn encode(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        match self {
            Self::OpenMetrics => text::encode(&mut text, registry)?,
            Self::Prometheus => prometheus_text::encode(&mut text, registry)?,
        }
        Ok(text)
    }
}

/// All metrics of the daemon, read from the state at each request.
pub(crate) fn registry(state: Arc<RuntimeState>) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(StateCollector(state)));
    registry
}

#[derive(Debug)]
struct StateCollector(Arc<RuntimeState>);

impl Collector for StateCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.0.snapshot();
        let mut page = Page(encoder);
        page.build(&self.0)?;
        page.groups(&self.0, &snapshot)?;
        page.files(&self.0, &snapshot)?;
        if !self.0.watched.is_empty() {
            page.crosscheck(&self.0, &snapshot)?;
        }
        page.process(&self.0)
    }
}

/// Name, help text and value of a group's counter.
type GroupCounter = (&'static str, &'static str, fn(&Counts) -> u64);

const GROUP_COUNTERS: [GroupCounter; 9] = [
    ("acctd_packets", "Packets counted in rows", |it| it.packets),
    (
        "acctd_bytes",
        "Bytes of the packets counted in rows, IP headers included",
        |it| it.bytes,
    ),
    (
        "acctd_lost_packets",
        "Packets that the rules logged and the kernel could not deliver",
        |it| it.lost,
    ),
    (
        "acctd_late_packets",
        "Packets counted in a later interval than that of their time stamp",
        |it| it.late,
    ),
    (
        "acctd_unstamped_packets",
        "Packets without a time stamp of the kernel, counted when they were received",
        |it| it.unstamped,
    ),
    (
        "acctd_without_length_packets",
        "Packets counted with 0 bytes, as their header has no length",
        |it| it.without_length,
    ),
    (
        "acctd_overflow_packets",
        "Packets counted in the row of the zero address, as the ledger was full",
        |it| it.overflow,
    ),
    ("acctd_overruns", "Times that the socket was full", |it| {
        it.overruns
    }),
    (
        "acctd_datagrams",
        "Netlink datagrams that brought the packets",
        |it| it.datagrams,
    ),
];

/// The label of a reason, and its counter.
type Reason = (&'static str, fn(&Counts) -> u64);

/// Why packets are in no row.
const UNDECODABLE: [Reason; 4] = [
    ("truncated", |it| it.truncated),
    ("not_ip", |it| it.not_ip),
    ("other_family", |it| it.other_family),
    ("malformed", |it| it.malformed),
];

type Labels = Vec<(&'static str, String)>;

struct Page<'e>(DescriptorEncoder<'e>);

impl Page<'_> {
    fn build(&mut self, state: &RuntimeState) -> fmt::Result {
        let version = label("version", env!("CARGO_PKG_VERSION"));
        self.gauges(
            "acctd_build_info",
            "Always 1; the version is a label",
            [(version, 1.0)],
        )?;
        self.gauge(
            "acctd_interval_seconds",
            "Length of the period that one file covers",
            state.interval.as_secs_f64(),
        )
    }

    fn groups(&mut self, state: &RuntimeState, snapshot: &Snapshot) -> fmt::Result {
        let groups = state.groups.iter();
        let groups: Vec<(Labels, Counts)> = groups
            .map(|(config, counts)| (labels(config), counts.load()))
            .collect();
        for (name, help, count) in GROUP_COUNTERS {
            let values = groups
                .iter()
                .map(|(labels, counts)| (labels.clone(), count(counts)));
            self.counters(name, help, values)?;
        }
        let undecodable = groups.iter().flat_map(|(labels, counts)| {
            UNDECODABLE.iter().map(|(reason, count)| {
                let mut labels = labels.clone();
                labels.push(("reason", (*reason).to_owned()));
                (labels, count(counts))
            })
        });
        self.counters(
            "acctd_undecodable_packets",
            "Packets that are in no row, by the reason",
            undecodable,
        )?;
        let bound = groups
            .iter()
            .zip(&snapshot.bound)
            .map(|((labels, _), is_bound)| (labels.clone(), flag(*is_bound)));
        self.gauges(
            "acctd_group_bound",
            "Whether the kernel delivers the group's packets to acctd",
            bound,
        )?;
        let gone = groups
            .iter()
            .zip(&snapshot.rules_gone)
            .map(|((labels, _), is_gone)| (labels.clone(), flag(*is_gone)));
        self.gauges(
            "acctd_group_rules_gone",
            "Whether the nf_tables rules that logged to the group are gone",
            gone,
        )
    }

    fn files(&mut self, state: &RuntimeState, snapshot: &Snapshot) -> fmt::Result {
        let files = &snapshot.files;
        self.counter(
            "acctd_files_written",
            "Files of intervals written",
            files.n_written,
        )?;
        self.counter("acctd_rows_written", "Rows in these files", files.rows)?;
        let last = files.last.as_ref();
        self.gauge(
            "acctd_prefixes",
            "Rows of the last file: prefixes seen in its interval",
            last.map_or(0.0, |last| number(last.rows)),
        )?;
        // Before the first file, the time of the start: an alert on the age needs no special case.
        self.gauge(
            "acctd_last_file_timestamp_seconds",
            "When the last file was written; at first, when acctd was started",
            seconds(last.map_or(state.started, |last| last.written)),
        )?;
        self.gauge(
            "acctd_backlog_intervals",
            "Intervals that wait for the disk",
            number(files.waiting_intervals as u64),
        )?;
        self.gauge(
            "acctd_backlog_rows",
            "Rows of the intervals that wait for the disk",
            number(files.waiting_rows as u64),
        )?;
        self.gauge(
            "acctd_disk_failing",
            "Whether writes to the log directory fail",
            flag(files.error.is_some() || snapshot.save_error.is_some()),
        )?;
        self.gauge(
            "acctd_last_checkpoint_timestamp_seconds",
            "When the open interval was last saved; 0 for never",
            snapshot.saved.map_or(0.0, seconds),
        )?;
        self.histogram(
            "acctd_interval_close_seconds",
            "From when an interval is found to be over until its counts are with the writer",
            &state.close_seconds,
        )?;
        self.histogram(
            "acctd_file_write_seconds",
            "To sort, write and sync a file",
            &state.write_seconds,
        )
    }

    fn crosscheck(&mut self, state: &RuntimeState, snapshot: &Snapshot) -> fmt::Result {
        let crosscheck = &snapshot.crosscheck;
        self.gauge(
            "acctd_crosscheck_active",
            "Whether the cross-check is running; 0 if it has failed",
            flag(crosscheck.is_active),
        )?;
        self.interfaces(&crosscheck.interfaces)?;
        let tallies = Verdict::ALL.map(|verdict| {
            let tally = crosscheck.total.tallies[verdict as usize];
            (label("verdict", Verdict::field_name(verdict)), tally)
        });
        let prefixes = tallies
            .iter()
            .map(|(labels, tally)| (labels.clone(), tally.prefixes));
        self.counters(
            "acctd_crosscheck_prefixes",
            "Prefixes and sides in files, by verdict",
            prefixes,
        )?;
        let differing = |amount: fn(&Tally) -> u64| {
            let differing = tallies
                .iter()
                .filter(|(labels, _)| labels[0].1 != Verdict::Match.text());
            differing.map(move |(labels, tally)| (labels.clone(), amount(tally)))
        };
        self.counters(
            "acctd_crosscheck_difference_packets",
            "Packets by which both counts differ, by verdict",
            differing(|tally| tally.amount.packets),
        )?;
        self.counters(
            "acctd_crosscheck_difference_bytes",
            "Bytes by which both counts differ, by verdict",
            differing(|tally| tally.amount.bytes),
        )?;
        let sides = [Side::Source, Side::Dest].map(|side| {
            let summary = &crosscheck.total.sides[side as usize];
            (label("direction", direction(side)), summary)
        });
        let of_sides = |of: fn(&SideSummary) -> Option<u64>| {
            let known = |(labels, side): &(Labels, &SideSummary)| Some((labels.clone(), of(side)?));
            sides.iter().filter_map(known).collect::<Vec<_>>()
        };
        self.counters(
            "acctd_crosscheck_packets",
            "Packets that the TC programs counted for prefixes, in files",
            of_sides(|side| Some(side.kernel.packets)),
        )?;
        self.counters(
            "acctd_crosscheck_bytes",
            "Bytes that the TC programs counted for prefixes, in files",
            of_sides(|side| Some(side.kernel.bytes)),
        )?;
        self.counters(
            "acctd_crosscheck_wire_packets",
            "The same packets as they are on the wire, in segments",
            of_sides(|side| Some(side.wire()?.packets)),
        )?;
        self.counters(
            "acctd_crosscheck_wire_bytes",
            "The bytes of these packets, with the headers of each segment",
            of_sides(|side| Some(side.wire()?.bytes)),
        )?;
        self.counters(
            "acctd_crosscheck_missing_bytes",
            "Bytes of frames whose packets are counted with 0 bytes, as their header has no length",
            of_sides(|side| Some(side.without_length.bytes)),
        )?;
        let uncounted = REASONS.iter().map(|(_, reason)| {
            let packets = crosscheck.uncounted.get(reason).copied();
            (label("reason", reason), packets.unwrap_or(0))
        });
        self.counters(
            "acctd_crosscheck_uncounted_packets",
            "Packets that the TC programs counted for no prefix, by the reason",
            uncounted,
        )?;
        self.histogram(
            "acctd_crosscheck_drain_seconds",
            "To read the kernel's map of an interval",
            &state.drain_seconds,
        )?;
        let programs = &crosscheck.programs;
        self.counters(
            "acctd_crosscheck_program_runs",
            "Runs of each TC program while kernel.bpf_stats_enabled is set",
            programs
                .iter()
                .map(|run| (label("program", run.program), run.n_runs)),
        )?;
        self.counters(
            "acctd_crosscheck_program_run_seconds",
            "Time in each TC program while kernel.bpf_stats_enabled is set",
            programs
                .iter()
                .map(|run| (label("program", run.program), run.time.as_secs_f64())),
        )
    }

    fn interfaces(&mut self, interfaces: &[InterfaceState]) -> fmt::Result {
        let interfaces = interfaces.iter();
        self.gauges(
            "acctd_crosscheck_interface_attached",
            "Whether the TC programs are on the interface; 0 while acctd waits for it",
            interfaces
                .clone()
                .map(|one| (label("interface", &one.interface), flag(one.is_attached))),
        )?;
        self.gauges(
            "acctd_crosscheck_interface_complete",
            "Whether the TC programs see all packets of the interface; 0 if differences are not checked",
            interfaces.map(|one| {
                (
                    label("interface", &one.interface),
                    flag(one.is_attached && one.problem.is_none()),
                )
            }),
        )
    }

    /// With the names that all Prometheus clients use.
    fn process(&mut self, state: &RuntimeState) -> fmt::Result {
        self.gauge(
            "process_start_time_seconds",
            "When accounting was started",
            seconds(state.started),
        )?;
        let Ok(usage) = ProcessUsage::now() else {
            return Ok(());
        };
        self.counters(
            "process_cpu_seconds",
            "CPU time, user and system",
            [(Vec::new(), usage.cpu_time.as_secs_f64())],
        )?;
        self.gauge(
            "process_resident_memory_bytes",
            "Memory in use",
            number(usage.resident_bytes),
        )?;
        self.gauge(
            "process_open_fds",
            "Open descriptors",
            number(usage.n_descriptors),
        )
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    fn counters<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let encoder = &mut self.0;
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }

    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) -> fmt::Result {
        let encoder = &mut self.0;
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) -> fmt::Result {
        let encoder = &mut self.0;
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        histogram.encode(metric)
    }
}

fn labels(config: &GroupConfig) -> Labels {
    let version = config.prefix_length.family().version();
    vec![
        ("group", config.group.to_string()),
        ("direction", direction(config.side).to_owned()),
        ("family", format!("ipv{version}")),
    ]
}

fn direction(side: Side) -> &'static str {
    match side {
        Side::Source => "source",
        Side::Dest => "destination",
    }
}

fn label(name: &'static str, value: &str) -> Labels {
    vec![(name, value.to_owned())]
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floats, and no disk holds 2^53 rows"
)]
fn number(number: u64) -> f64 {
    number as f64
}

/// Seconds of Unix time.
#[expect(
    clippy::cast_precision_loss,
    reason = "gauges are floats; what is lost is below a microsecond"
)]
pub(crate) fn seconds(time: UnixNanos) -> f64 {
    time.0 as f64 / 1e9
}
