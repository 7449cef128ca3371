//! What acctd shows of itself while it runs: over HTTP, by `acctd status`, and in the log.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use testkit::group_socket;
use testkit::nft::Count;
use testkit::traffic::TrafficArgs;

use crate::errors::complains;
use crate::kernel::scaled;
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
use crate::unwritable::{fill, mount_tmpfs};
use crate::waiting::{PATIENCE, wait_until, wait_until_all_is_read};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "metrics_say_what_is_in_the_files",
        metrics_say_what_is_in_the_files,
    ),
    (
        Needs::Root,
        "metrics_of_a_cross_check_say_what_its_rows_do",
        metrics_of_a_cross_check,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "scraped_without_a_pause_no_packet_is_lost",
        scraped_without_a_pause,
    ),
    (
        Needs::Namespace,
        "status_is_for_people_and_as_json",
        status_is_for_people_and_as_json,
    ),
    (
        Needs::Namespace,
        "sigusr1_has_the_status_logged_and_sighup_ends_nothing",
        questions_by_signal,
    ),
    (
        Needs::Root,
        "a_group_that_is_gone_is_not_healthy",
        a_group_that_is_gone_is_not_healthy,
    ),
    (
        Needs::Namespace,
        "intervals_that_wait_for_a_full_disk_are_in_the_metrics",
        a_full_disk_in_the_metrics,
    ),
];

const ONE_SECOND: &[&str] = &["-interval=1s", "-ip4-src-group=5", "-ip6-dst-group=7"];
pub(crate) const ONE_INTERVAL: &[&str] = &["-interval=36500d", "-ip4-src-group=5"];

pub(crate) fn socket(rig: &Rig) -> PathBuf {
    rig.scratch().join("acctd.sock")
}

pub(crate) fn listening(rig: &Rig, args: &[&str]) -> Result<Acctd> {
    let listen = format!("-listen=unix:{}", socket(rig).display());
    let acctd = rig.acctd(&[args, &[&listen]].concat())?;
    acctd.wait_for_line("Listening on unix:")?;
    Ok(acctd)
}

/// The status code and the body.
pub(crate) fn ask(socket: &Path, request: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{request}\r\nHost: acctd\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let code = head.split_whitespace().nth(1).context("no status code")?;
    Ok((code.parse()?, body.to_owned()))
}

pub(crate) fn get(rig: &Rig, path: &str) -> Result<(u16, String)> {
    ask(&socket(rig), &format!("GET {path} HTTP/1.1"))
}

/// Each series with its labels as written, and its value where that is a whole number.
pub(crate) fn metrics(rig: &Rig) -> Result<BTreeMap<String, u64>> {
    let (code, text) = get(rig, "/metrics")?;
    ensure!(code == 200, "{code} {text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let whole = value.strip_suffix(".0").unwrap_or(value);
        Some((series.to_owned(), whole.parse().ok()?))
    });
    Ok(samples.collect())
}

const SOURCE_5: &str = r#"{group="5",direction="source",family="ipv4"}"#;
const DEST_7: &str = r#"{group="7",direction="destination",family="ipv6"}"#;

fn metrics_say_what_is_in_the_files() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = listening(&rig, ONE_SECOND)?;
    // There from the start, as 0.
    let before = metrics(&rig)?;
    ensure!(before[&format!("acctd_lost_packets_total{SOURCE_5}")] == 0);
    ensure!(before["acctd_files_written_total"] <= 1, "{before:?}");
    for (source, dest, count) in [
        ("10.1.0.0/16", "10.255.0.1/32", 12_345),
        ("fd00:1::/48", "fd00:2::/48", 6_789),
    ] {
        rig.send(&TrafficArgs {
            sources: 100,
            count,
            ..rig.traffic(source, dest)?
        })?;
    }
    // A line may be half there.
    let is_in_files = |field, count| rig.summed(field).is_ok_and(|sum| sum == count);
    wait_until("all is in files", || {
        Ok(is_in_files("source_packets", 12_345) && is_in_files("dest_packets", 6_789))
    })?;
    let seen = metrics(&rig)?;
    let (ip4, ip6) = (rig.counter("v4")?, rig.counter("v6")?);
    for (labels, Count { packets, bytes }) in [(SOURCE_5, ip4), (DEST_7, ip6)] {
        ensure!(seen[&format!("acctd_packets_total{labels}")] == packets);
        ensure!(seen[&format!("acctd_bytes_total{labels}")] == bytes);
        ensure!(seen[&format!("acctd_group_bound{labels}")] == 1);
    }
    ensure!(seen["acctd_file_write_seconds_count"] == seen["acctd_files_written_total"]);
    ensure!(seen["acctd_backlog_intervals"] == 0 && seen["acctd_disk_failing"] == 0);
    let (code, text) = get(&rig, "/healthz")?;
    ensure!((code, text.as_str()) == (200, "ok\n"), "{code} {text}");
    ensure!(get(&rig, "/nothing")?.0 == 404);
    ensure!(ask(&socket(&rig), "POST /metrics HTTP/1.1")?.0 == 405);
    let (code, body) = ask(&socket(&rig), "HEAD /metrics HTTP/1.1")?;
    ensure!((code, body.as_str()) == (200, ""));
    let open_metrics =
        "GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text;version=1.0.0";
    ensure!(ask(&socket(&rig), open_metrics)?.1.ends_with("# EOF\n"));
    acctd.finish()?;
    let files = rig.files()?;
    ensure!(totals(&files, true) == (ip4, NONE), "{files:?}");
    ensure!(totals(&files, false) == (NONE, ip6), "{files:?}");
    let rows: usize = files.iter().map(|file| file.rows.len()).sum();
    ensure!(seen["acctd_rows_written_total"] == rows as u64);
    Ok(())
}

fn metrics_of_a_cross_check() -> Result<()> {
    let rig = Rig::new()?;
    // One packet in ten is not logged.
    rig.rules(
        "table inet rig {
            counter v4 {}
            chain prerouting {
                type filter hook prerouting priority raw
                meta nfproto ipv4 numgen inc mod 10 0 drop
                meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 50
                drop
            }
        }",
    )?;
    let crosscheck = format!("-crosscheck={}", rig.veth.near);
    let acctd = listening(&rig, &["-interval=1s", "-ip4-src-group=5", &crosscheck])?;
    let uncovered = r#"acctd_crosscheck_difference_packets_total{verdict="uncovered"}"#;
    let counted = r#"acctd_crosscheck_packets_total{direction="source"}"#;
    ensure!(metrics(&rig)?[uncovered] == 0);
    rig.send(&TrafficArgs {
        sources: 10,
        count: 10_000,
        ..rig.traffic("10.1.0.0/24", "10.255.0.1/32")?
    })?;
    wait_until("all is in files", || Ok(metrics(&rig)?[counted] >= 10_000))?;
    let seen = metrics(&rig)?;
    ensure!(rig.counter("v4")?.packets == 9_000);
    ensure!(seen[counted] == 10_000, "{seen:?}");
    ensure!(seen[uncovered] == 1_000, "{seen:?}");
    ensure!(seen["acctd_crosscheck_active"] == 1);
    let (_, status) = get(&rig, "/status")?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    ensure!(status["crosscheck"]["total"]["uncovered"] != 0, "{status}");
    acctd.finish()?;
    Ok(())
}

fn scraped_without_a_pause() -> Result<()> {
    let count = scaled(500_000);
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = listening(&rig, ONE_INTERVAL)?;
    let is_over = AtomicBool::new(false);
    let n_answers = thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut n_answers = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                metrics(&rig)?;
                get(&rig, "/status")?;
                n_answers += 2;
            }
            Ok::<_, anyhow::Error>(n_answers)
        });
        let sent = rig.send(&TrafficArgs {
            sources: 10_000,
            count,
            rate: Rig::fastest_rate(),
            ..rig.traffic("10.0.0.0/8", "192.0.2.1/32")?
        });
        is_over.store(true, Ordering::Relaxed);
        let joined = scraper.join();
        sent?;
        joined.unwrap_or_else(|_panicked| bail!("the scraper has panicked"))
    })?;
    ensure!(n_answers >= 20, "{n_answers} answers");
    acctd.finish()?;
    let logged = rig.counter("v4")?;
    ensure!(logged.packets == count);
    ensure!(totals(&rig.files()?, true) == (logged, NONE));
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

pub(crate) fn status(rig: &Rig, args: &[&str]) -> Result<Output> {
    let mut command = rig.router.command(rig.acctd_path());
    Ok(command.arg("status").args(args).output()?)
}

fn status_is_for_people_and_as_json() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            chain prerouting {
                type filter hook prerouting priority raw
                iifname lo accept
                meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
                drop
            }
        }",
    )?;
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    let listen = format!("unix:{}", socket(&rig).display());
    complains(
        &status(&rig, &["--listen", &listen])?,
        1,
        "is acctd running",
    )?;
    let acctd = listening(&rig, &[ONE_INTERVAL, &["-listen=127.0.0.1:9745"]].concat())?;
    rig.send(&TrafficArgs {
        sources: 10,
        count: 1_234,
        ..rig.traffic("10.1.0.0/24", "10.255.0.1/32")?
    })?;
    let is_counted = || Ok(metrics(&rig)?[&format!("acctd_packets_total{SOURCE_5}")] == 1_234);
    wait_until("all is counted", is_counted)?;
    for listen in [listen.as_str(), "127.0.0.1:9745"] {
        let text = String::from_utf8(status(&rig, &["-listen", listen])?.stdout)?;
        let expected = format!("pid {}, up ", acctd.pid());
        ensure!(text.contains(&expected), "{text}");
        ensure!(
            text.contains("; 1,234 packets, 123.4 kB, 0 lost\n"),
            "{text}"
        );
    }
    let json = status(&rig, &["--listen", &listen, "--json"])?.stdout;
    let json: serde_json::Value = serde_json::from_slice(&json)?;
    ensure!(json["groups"][0]["packets"] == 1_234, "{json}");
    ensure!(json["problems"] == serde_json::json!([]), "{json}");
    ensure!(json["files"]["waiting_intervals"] == 0, "{json}");
    acctd.finish()?;
    Ok(())
}

fn questions_by_signal() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd_unready(ONE_INTERVAL)?;
    // It may be anywhere between its first instruction and its first packet. Before main, any signal kills.
    wait_until("it has begun", || {
        let status = fs::read_to_string(format!("/proc/{}/status", acctd.pid()))?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.context("no mask")?.trim(), 16)?;
        Ok(caught & 1 << 9 != 0)
    })?;
    acctd.signal(Signal::USR1)?;
    acctd.wait_for_line("Started accounting")?;
    rig.send(&TrafficArgs {
        sources: 10,
        count: 1_000,
        ..rig.traffic("10.1.0.0/24", "10.255.0.1/32")?
    })?;
    acctd.signal(Signal::HUP)?;
    acctd.wait_for_line("acctd does not read its flags again")?;
    wait_until_all_is_read(&acctd)?;
    acctd.signal(Signal::USR1)?;
    acctd.wait_for_line("; 1,000 packets, 100.0 kB, 0 lost")?;
    acctd.finish()?;
    let logged = rig.counter("v4")?;
    ensure!(totals(&rig.files()?, true) == (logged, NONE));
    Ok(())
}

fn a_group_that_is_gone_is_not_healthy() -> Result<()> {
    let rig = Rig::new()?;
    let acctd = listening(&rig, ONE_INTERVAL)?;
    let socket_of_5 = group_socket::copies_of_sockets(acctd.pid())?;
    let socket_of_5 = socket_of_5.first().context("no socket")?;
    // Another has the group before acctd can bind it again.
    acctd.signal(Signal::STOP)?;
    group_socket::unbind(socket_of_5, 5)?;
    let mut command = rig.router.command(rig.acctd_path());
    let elsewhere = rig.scratch().join("elsewhere");
    command
        .args(ONE_INTERVAL)
        .arg("-log-directory")
        .arg(elsewhere);
    let thief = Acctd::spawn(&mut command)?;
    thief.wait_for_line("Started accounting")?;
    acctd.signal(Signal::CONT)?;
    wait_until("it is not healthy", || Ok(get(&rig, "/healthz")?.0 == 503))?;
    let problem = "group 5 is not bound: what it logs is not counted";
    ensure!(get(&rig, "/healthz")?.1 == format!("{problem}\n"));
    ensure!(metrics(&rig)?[&format!("acctd_group_bound{SOURCE_5}")] == 0);
    let listen = format!("unix:{}", socket(&rig).display());
    let text = String::from_utf8(status(&rig, &["--listen", &listen])?.stdout)?;
    ensure!(text.contains(&format!("problem: {problem}\n")), "{text}");
    thief.finish()?;
    wait_until("it is well again", || Ok(get(&rig, "/healthz")?.0 == 200))?;
    acctd.finish()?;
    Ok(())
}

fn a_full_disk_in_the_metrics() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    fill(&rig)?;
    let acctd = listening(&rig, &["-interval=1s", "-checkpoint=0", "-ip4-src-group=5"])?;
    rig.send(&TrafficArgs {
        sources: 100,
        count: 1_000,
        ..rig.traffic("10.1.0.0/16", "10.255.0.1/32")?
    })?;
    wait_until("two intervals wait", || {
        let seen = metrics(&rig)?;
        // Once, or twice if the packets came around a full second.
        let is_there = [100, 200].contains(&seen["acctd_backlog_rows"]);
        Ok(seen["acctd_backlog_intervals"] >= 2 && is_there)
    })?;
    ensure!(metrics(&rig)?["acctd_disk_failing"] == 1);
    let (_, status) = get(&rig, "/status")?;
    let status: serde_json::Value = serde_json::from_str(&status)?;
    let error = status["files"]["error"].as_str().context("no error")?;
    ensure!(error.contains("No space left on device"), "{error}");
    let filler = rig.log_directory().join("filler");
    rig.router.run(&["rm", &filler.display().to_string()])?;
    wait_until("nothing waits", || {
        Ok(metrics(&rig)?["acctd_backlog_intervals"] == 0)
    })?;
    ensure!(metrics(&rig)?["acctd_disk_failing"] == 0);
    acctd.finish()?;
    Ok(())
}
