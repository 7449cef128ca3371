//! What ten thousand hosts cost one server: they post, for ten intervals, what `acctd ship` does for each file.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use testkit::usage;

use super::server::Server;
use crate::world::START;

const N_HOSTS: u64 = 10_000;
const N_INTERVALS: u64 = 10;
/// Addresses of a host that have traffic in an interval.
const N_ROWS: u64 = 100;
const INTERVAL: u64 = 300;
/// Hosts that send at the same time.
const N_SENDERS: u64 = 8;

pub(super) fn ten_thousand_hosts() -> Result<()> {
    let server = Server::start()?;
    server.load_schema(&[])?;
    let pid = server.pid()?;
    let parts = "SELECT count() FROM system.parts WHERE active AND database = 'acctd'";
    let mut slowest = Duration::ZERO;
    for interval in 0..N_INTERVALS {
        let (started, before) = (Instant::now(), usage::cpu_time(pid)?);
        let next = AtomicU64::new(0);
        let most_parts = thread::scope(|scope| {
            let senders: Vec<_> = (0..N_SENDERS)
                .map(|_| {
                    scope.spawn(|| {
                        loop {
                            let host = next.fetch_add(1, Ordering::Relaxed);
                            if host >= N_HOSTS {
                                return anyhow::Ok(());
                            }
                            post(&server, host, interval)?;
                        }
                    })
                })
                .collect();
            let mut most = 0_u64;
            while senders.iter().any(|sender| !sender.is_finished()) {
                most = most.max(server.query(parts)?.trim().parse()?);
                thread::sleep(Duration::from_millis(200));
            }
            for sender in senders {
                sender.join().map_err(|_panicked| anyhow!("panicked"))??;
            }
            anyhow::Ok(most)
        })?;
        let elapsed = started.elapsed();
        let cpu = usage::cpu_time(pid)?.since(before);
        slowest = slowest.max(elapsed);
        eprintln!(
            "interval {interval}: {elapsed:.1?}, {:.1?} of CPU time, at most {most_parts} parts",
            Duration::from_nanos(cpu.nanos)
        );
    }
    let size = server.query(
        "SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'acctd' GROUP BY table",
    )?;
    eprintln!("table, rows, bytes:\n{size}");
    let sums = server
        .query("SELECT count(), sum(SourceBytes), uniqExact(host) FROM acctd.traffic FINAL")?;
    let n_rows = N_HOSTS * N_INTERVALS * N_ROWS;
    let expected = format!("{n_rows}\t{}\t{N_HOSTS}", N_HOSTS * N_INTERVALS * bytes());
    ensure!(sums.trim() == expected, "{sums} and not {expected}");
    ensure!(
        slowest < Duration::from_secs(INTERVAL),
        "the files of an interval took {slowest:?}"
    );
    Ok(())
}

/// Of the sources of a file.
fn bytes() -> u64 {
    (0..N_ROWS).map(|row| row * 1_000).sum()
}

/// A file: its rows, the comparison, its line.
fn post(server: &Server, host: u64, interval: u64) -> Result<()> {
    let start = START.unsigned_abs() + interval * INTERVAL;
    let file = format!("{start}.csv");
    let mut rows = "INSERT INTO acctd.traffic (host, file, Time, IP, SourceBytes, SourcePackets, DestBytes, DestPackets) FORMAT CSV\n".to_owned();
    for row in 0..N_ROWS {
        let (net, address) = (host / 256 % 256, host % 256);
        let bytes = row * 1_000;
        writeln!(
            rows,
            "h{host},{file},{start},10.{net}.{address}.{row},{bytes},{row},{},{row}",
            bytes * 7
        )?;
    }
    server.query(&rows)?;
    let sums = server.query(&format!(
        "SELECT count(), sum(SourceBytes) FROM acctd.traffic FINAL WHERE host = 'h{host}' AND file IN ('{file}') \
         AND Time >= {start} AND Time <= {start} GROUP BY file"
    ))?;
    ensure!(sums.trim() == format!("{N_ROWS}\t{}", bytes()), "{sums}");
    server.query(&format!(
        "INSERT INTO acctd.files (host, file, start, end, rows, source_bytes, sha256, machine) VALUES \
         ('h{host}', '{file}', {start}, {}, {N_ROWS}, {}, '{start:064x}', '{host:016x}')",
        start + INTERVAL,
        bytes()
    ))?;
    Ok(())
}
