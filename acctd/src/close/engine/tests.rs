//! The engine, the readers' accumulators and the writer are real. The clock is stepped by hand, and datagrams are
//! passed in instead of received.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::cli::commands::Cli;
use crate::count::accumulator::Accumulator;
use crate::count::reader::Request;
use crate::count::slots::{Closed, Settings};
use crate::nflog::binding::Answer;
use crate::nflog::network_namespace::NetworkNamespace;
use crate::testing::{Logged, datagram, ip4};

mod fake_kernel;
mod properties;

use fake_kernel::FakeKernel;

const SECOND: i64 = 1_000_000_000;

struct Rig {
    engine: Engine,
    clock: Arc<AtomicI64>,
    accumulators: Vec<Arc<Mutex<Accumulator>>>,
    /// With a cross-check.
    kernel: Option<Arc<Mutex<FakeKernel>>>,
    directory: TempDir,
    n_sent: u64,
    /// The latest time that the engine has seen since its last restart.
    last_seen: i64,
    /// When it should have restarted.
    restarts: Vec<i64>,
}

impl Rig {
    /// Two groups, source and destination, from `start` (seconds) on.
    fn start(interval: &str, zone: Zone, start: i64) -> Self {
        Self::start_with(false, interval, zone, start)
    }

    fn start_with(is_checked: bool, interval: &str, zone: Zone, start: i64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let args = [
            "acctd",
            "-ip4-src-group=5",
            "-ip4-dst-group=4",
            "-interval",
            interval,
            "-crosscheck=lan0",
        ];
        let args = if is_checked { &args[..] } else { &args[..5] };
        let cli = Cli::parse_args(args.iter().map(OsString::from)).unwrap();
        let config = Config {
            zone,
            log_directory: directory.path().to_owned(),
            ..Config::resolve(cli.flags).unwrap()
        };
        let start = UnixNanos(start * SECOND);
        let clock = Arc::new(AtomicI64::new(start.0));
        let mut readers = Vec::new();
        let mut accumulators = Vec::new();
        for group in &config.groups {
            let accumulator = Accumulator::new(Settings::of(&config, group), start);
            let accumulator = Arc::new(Mutex::new(accumulator));
            let (handle, requests) = ReaderHandle::new();
            tokio::spawn(answer(Arc::clone(&accumulator), requests));
            readers.push(handle);
            accumulators.push(accumulator);
        }
        let bindings = Bindings::new(&config, NetworkNamespace::current(), start);
        let kernel = is_checked.then(|| FakeKernel::begin(config.interval, start));
        let boxed = |kernel| Box::new(kernel) as Box<dyn KernelCount>;
        let now = Arc::clone(&clock);
        let now: Clock = Box::new(move || UnixNanos(now.load(Ordering::Relaxed)));
        Self {
            engine: Engine::start(
                &config,
                readers,
                kernel.clone().map(boxed),
                Recovered::default(),
                bindings,
                start,
                now,
            )
            .unwrap(),
            clock,
            accumulators,
            kernel,
            directory,
            n_sent: 0,
            last_seen: start.0,
            restarts: Vec::new(),
        }
    }

    /// Steps the clock and lets the engine see it.
    async fn at(&mut self, seconds: i64) {
        let now = seconds * SECOND;
        self.clock.store(now, Ordering::Relaxed);
        self.engine.close_what_is_due().await.unwrap();
        if now < self.last_seen - SECOND * 5 / 4 {
            self.restarts.push(now);
            self.last_seen = now;
        }
        self.last_seen = self.last_seen.max(now);
    }

    /// A packet for each group from 10.0.0.`host`, stamped now.
    fn send(&mut self, host: u8) {
        let now = self.clock.load(Ordering::Relaxed);
        self.send_stamped(host, Some(now));
    }

    fn send_stamped(&mut self, host: u8, stamp: Option<i64>) {
        let packet = Logged {
            stamp,
            payload: ip4([10, 0, 0, host], [10, 0, 0, host], 100),
            ..Logged::default()
        };
        let bytes = datagram(&[packet]);
        let now = UnixNanos(self.clock.load(Ordering::Relaxed));
        for accumulator in &self.accumulators {
            accumulator.lock().unwrap().absorb(&bytes, now);
        }
        if let Some(kernel) = &self.kernel {
            let stamp = stamp.map_or(now, UnixNanos);
            kernel.lock().unwrap().count(host, stamp);
        }
        self.n_sent += 1;
    }

    /// Stops, and returns each file with the hosts in its rows. All packets must be in the files, and the files must
    /// follow each other, except where the clock was set back.
    async fn finish(mut self) -> BTreeMap<String, Vec<u8>> {
        self.engine.stop(ShutdownMode::Unbind).await.unwrap();
        self.engine.finish(std::future::pending()).await.unwrap();
        let files = read_files(self.directory.path());
        let totals = files.values().flatten().fold([0; 4], |mut sum, row| {
            for (sum, number) in sum.iter_mut().zip(&row.numbers) {
                *sum += number;
            }
            sum
        });
        let sent = self.n_sent;
        assert_eq!(totals, [100 * sent, sent, 100 * sent, sent]);
        if let Some(kernel) = self.kernel {
            let counted = sent - kernel.lock().unwrap().n_outside;
            let rows = files.values().flatten();
            let in_rows: u64 = rows.map(|row| row.kernel_packets).sum();
            assert_eq!(in_rows, 2 * counted, "the kernel's packets");
        }
        let spans = read_spans(self.directory.path());
        assert_eq!(spans.len(), files.len(), "a file was replaced");
        assert!(spans.iter().all(|(start, end)| start <= end), "{spans:?}");
        let breaks: Vec<i64> = spans
            .windows(2)
            .filter(|pair| pair[0].1 != pair[1].0)
            .map(|pair| pair[1].0)
            .collect();
        assert_eq!(breaks, self.restarts, "{spans:?}");
        files
            .into_iter()
            .map(|(name, rows)| (name, rows.iter().map(|row| row.host).collect()))
            .collect()
    }
}

async fn answer(
    accumulator: Arc<Mutex<Accumulator>>,
    mut requests: mpsc::UnboundedReceiver<Request>,
) {
    while let Some(request) = requests.recv().await {
        let (command, reply) = match request {
            Request::Command(command, reply) => (command, reply),
            Request::CheckBinding(reply) => {
                reply.send(Answer::Bound).unwrap();
                continue;
            }
            Request::Release(_) | Request::Adopt(..) => unreachable!("all are bound"),
            Request::Copy(_)
            | Request::StartCapture(_)
            | Request::ReadWhatWaits
            | Request::EndCapture(_) => unreachable!("nobody asks"),
        };
        let mut accumulator = accumulator.lock().unwrap();
        let open_loss = accumulator.open_loss();
        let slots = match command {
            Command::CloseBefore(first_open) => accumulator.close_before(first_open),
            Command::Copy => accumulator.copy(),
            Command::Restart(now) => accumulator.restart(now),
            Command::Finish(_) => accumulator.finish(UnixNanos(0)),
        };
        let position = accumulator.position();
        let closed = Closed {
            slots,
            open_loss,
            renumbered: accumulator.take_renumbered(),
            position,
        };
        reply.send(closed).unwrap();
    }
}

struct FileRow {
    host: u8,
    numbers: [u64; 4],
    /// On both sides.
    kernel_packets: u64,
}

fn read_files(directory: &Path) -> BTreeMap<String, Vec<FileRow>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name == crate::model::columns::JOURNAL {
            continue;
        }
        let stem = name.strip_suffix(".csv").expect("nothing but CSV files");
        let mut csv = csv::Reader::from_path(directory.join(&name)).unwrap();
        let rows = csv.records().map(|record| {
            let record = record.unwrap();
            FileRow {
                host: record[1].rsplit('.').next().unwrap().parse().unwrap(),
                numbers: [2, 3, 4, 5].map(|column| record[column].parse().unwrap()),
                kernel_packets: [7, 9]
                    .iter()
                    .filter_map(|&column| record.get(column))
                    .map(|packets| packets.parse::<u64>().unwrap())
                    .sum(),
            }
        });
        files.insert(stem.to_owned(), rows.collect());
    }
    files
}

/// The exact start and end of each file, in the order in which they were written.
fn read_spans(directory: &Path) -> Vec<(i64, i64)> {
    let lines = std::fs::read_to_string(directory.join(crate::model::columns::JOURNAL)).unwrap();
    let nanos = |time: &serde_json::Value| {
        let time = chrono::DateTime::parse_from_rfc3339(time.as_str().unwrap()).unwrap();
        time.timestamp_nanos_opt().unwrap()
    };
    lines
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (nanos(&line["start"]), nanos(&line["end"]))
        })
        .collect()
}

fn names(files: &BTreeMap<String, Vec<u8>>) -> Vec<(&str, &[u8])> {
    files
        .iter()
        .map(|(name, hosts)| (name.as_str(), hosts.as_slice()))
        .collect()
}

/// 2026-10-25 00:00 UTC.
const DAY: i64 = 1_792_886_400;

#[tokio::test]
async fn intervals_follow_each_other_from_the_start_to_the_stop() {
    for is_checked in [false, true] {
        let mut rig = Rig::start_with(is_checked, "10s", Zone::Utc, DAY + 3);
        rig.send(1);
        rig.at(DAY + 11).await;
        rig.send(2);
        // Logged before the boundary, delivered after it.
        rig.send_stamped(3, Some((DAY + 9) * SECOND));
        rig.at(DAY + 12).await;
        rig.at(DAY + 22).await;
        rig.at(DAY + 24).await;
        rig.send_stamped(4, None);
        assert_eq!(
            names(&rig.finish().await),
            [
                ("2026-10-25-000003_2026-10-25-000010", [1, 3].as_slice()),
                ("2026-10-25-000010_2026-10-25-000020", &[2]),
                ("2026-10-25-000020_2026-10-25-000024", &[4]),
            ]
        );
    }
}

/// Else a kill before it is closed would leave a gap between the files.
#[tokio::test]
async fn an_open_interval_without_packets_before_one_with_packets_is_saved_too() {
    let mut rig = Rig::start("10s", Zone::Utc, DAY + 3);
    rig.at(DAY + 11).await;
    rig.send(1);
    let saving = &mut rig.engine.saving;
    (saving.pause, saving.due_at) = (Some(Duration::ZERO), Instant::now());
    // Other than what has been read.
    saving.n_datagrams = 1;
    rig.engine.save_if_due().await;
    let starts: Vec<UnixNanos> = rig
        .engine
        .saving
        .files
        .keys()
        .map(|index| rig.engine.timeline.start_of(*index))
        .collect();
    assert_eq!(
        starts,
        [
            UnixNanos((DAY + 3) * SECOND),
            UnixNanos((DAY + 10) * SECOND)
        ]
    );
    assert_eq!(
        names(&rig.finish().await),
        [
            ("2026-10-25-000003_2026-10-25-000010", [].as_slice()),
            ("2026-10-25-000010_2026-10-25-000011", &[1]),
        ]
    );
}

#[tokio::test]
async fn a_clock_set_back_replaces_no_file_and_loses_no_packet() {
    for is_checked in [false, true] {
        let mut rig = Rig::start_with(is_checked, "10s", Zone::Utc, DAY);
        rig.send(1);
        rig.at(DAY + 12).await;
        rig.at(DAY + 15).await;
        rig.send(2);
        // Back to before everything. A packet with a stamp of the old clock arrives after the step.
        rig.clock.store(DAY * SECOND, Ordering::Relaxed);
        rig.send_stamped(3, Some((DAY + 16) * SECOND));
        rig.at(DAY).await;
        rig.send(4);
        rig.at(DAY + 12).await;
        rig.send(5);
        assert_eq!(
            names(&rig.finish().await),
            [
                ("2026-10-25-000000_2026-10-25-000010", [1].as_slice()),
                ("2026-10-25-000000_2026-10-25-000010-1", &[4]),
                ("2026-10-25-000010_2026-10-25-000012", &[5]),
                ("2026-10-25-000010_2026-10-25-000015", &[2, 3]),
            ]
        );
    }
}

#[tokio::test]
async fn a_clock_set_back_within_the_open_interval_ends_it_and_begins_a_new_one() {
    for is_checked in [false, true] {
        let mut rig = Rig::start_with(is_checked, "10s", Zone::Utc, DAY);
        rig.send(1);
        rig.at(DAY + 12).await;
        rig.send(2);
        rig.at(DAY + 18).await;
        // Before the engine sees the step: stamped under the old clock, and under the new one.
        rig.clock.store((DAY + 14) * SECOND, Ordering::Relaxed);
        rig.send_stamped(3, Some((DAY + 19) * SECOND));
        rig.send(4);
        rig.at(DAY + 14).await;
        rig.send(5);
        rig.at(DAY + 22).await;
        // Back once more, to where both files of that interval are written.
        rig.at(DAY + 10).await;
        rig.send(6);
        // And a last time, which is only found at the stop.
        rig.at(DAY + 18).await;
        rig.clock.store((DAY + 11) * SECOND, Ordering::Relaxed);
        rig.send(7);
        assert_eq!(
            names(&rig.finish().await),
            [
                ("2026-10-25-000000_2026-10-25-000010", [1].as_slice()),
                ("2026-10-25-000010_2026-10-25-000018", &[2, 3, 4]),
                ("2026-10-25-000010_2026-10-25-000018-1", &[6, 7]),
                ("2026-10-25-000014_2026-10-25-000020", &[5]),
                ("2026-10-25-000020_2026-10-25-000022", &[]),
            ]
        );
    }
}

#[tokio::test]
async fn a_clock_set_forward_over_intervals_leaves_their_files_empty() {
    for is_checked in [false, true] {
        let mut rig = Rig::start_with(is_checked, "10s", Zone::Utc, DAY);
        rig.send(1);
        rig.at(DAY + 42).await;
        rig.send(2);
        assert_eq!(
            names(&rig.finish().await),
            [
                ("2026-10-25-000000_2026-10-25-000010", [1].as_slice()),
                ("2026-10-25-000010_2026-10-25-000020", &[]),
                ("2026-10-25-000020_2026-10-25-000030", &[]),
                ("2026-10-25-000030_2026-10-25-000040", &[]),
                ("2026-10-25-000040_2026-10-25-000042", &[2]),
            ]
        );
    }
}

#[tokio::test]
async fn a_router_that_boots_in_1970_does_not_fill_the_disk_with_empty_files() {
    let mut rig = Rig::start("1s", Zone::Utc, 20);
    rig.send(1);
    rig.at(DAY).await;
    rig.send(2);
    assert_eq!(
        names(&rig.finish().await),
        [
            ("1970-01-01-000020_1970-01-01-000021", [1].as_slice()),
            ("1970-01-01-000021_2026-10-24-235958", &[]),
            ("2026-10-24-235958_2026-10-24-235959", &[]),
            ("2026-10-24-235959_2026-10-25-000000", &[]),
            ("2026-10-25-000000_2026-10-25-000000", &[2]),
        ]
    );
}

#[tokio::test]
async fn the_hour_that_comes_twice_has_all_its_files() {
    let berlin = Zone::Named(chrono_tz::Europe::Berlin);
    let mut rig = Rig::start("30m", berlin, DAY);
    for half_hour in 0..4_u8 {
        rig.send(half_hour);
        rig.at(DAY + (i64::from(half_hour) + 1) * 1_800 + 2).await;
    }
    let files = rig.finish().await;
    assert_eq!(
        names(&files),
        [
            ("2026-10-25-020000_2026-10-25-023000", [0].as_slice()),
            ("2026-10-25-020000_2026-10-25-023000-1", &[2]),
            ("2026-10-25-023000_2026-10-25-020000", &[1]),
            ("2026-10-25-023000_2026-10-25-030000", &[3]),
            ("2026-10-25-030000_2026-10-25-030002", &[]),
        ]
    );
}

#[tokio::test]
async fn the_hour_that_is_left_out_is_left_out_of_the_names_only() {
    // 2026-03-29, 01:00 UTC: 02:00 becomes 03:00.
    let berlin = Zone::Named(chrono_tz::Europe::Berlin);
    let start = 1_774_744_200;
    let mut rig = Rig::start("30m", berlin, start);
    rig.send(1);
    rig.at(start + 1_802).await;
    rig.send(2);
    assert_eq!(
        names(&rig.finish().await),
        [
            ("2026-03-29-013000_2026-03-29-030000", [1].as_slice()),
            ("2026-03-29-030000_2026-03-29-030002", &[2]),
        ]
    );
}
