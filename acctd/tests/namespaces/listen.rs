//! What acctd shows of itself while it runs: over HTTP, by `acctd status`, and in the log.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use testkit::group_socket;
use testkit::nft::Count;
use testkit::process::Process;
use testkit::traffic::TrafficArgs;

use crate::errors::{complains, fails, fill, mount_tmpfs};
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
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
        Needs::Namespace,
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
    (
        Needs::Namespace,
        "clients_that_say_nothing_keep_nobody_from_an_answer",
        clients_that_say_nothing,
    ),
    (
        Needs::Namespace,
        "clients_are_answered_behind_the_readers_and_not_in_front_of_other_programs",
        the_nice_value,
    ),
    (
        Needs::Namespace,
        "where_nobody_can_listen_is_said_in_one_line",
        where_nobody_can_listen,
    ),
    (
        Needs::Namespace,
        "a_sockets_file_is_private_and_goes_with_acctd",
        a_sockets_file,
    ),
];

const ONE_SECOND: &[&str] = &["-interval=1s", "-ip4-src-group=5", "-ip6-dst-group=7"];
const ONE_HOUR: &[&str] = &["-interval=1h", "-ip4-src-group=5"];

pub(crate) fn socket(rig: &Rig) -> PathBuf {
    rig.scratch().join("acctd.sock")
}

fn listening(rig: &Rig, args: &[&str]) -> Result<Acctd> {
    let listen = format!("-listen=unix:{}", socket(rig).display());
    let acctd = rig.acctd(&[args, &[&listen]].concat())?;
    acctd.wait_for_line("Listening on unix:")?;
    Ok(acctd)
}

/// The status code and the body.
pub(crate) fn ask(socket: &Path, request: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
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

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so()? {
        ensure!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

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
    const COUNT: u64 = 500_000;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = listening(&rig, ONE_HOUR)?;
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
            count: COUNT,
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
    ensure!(logged.packets == COUNT);
    ensure!(totals(&rig.files()?, true) == (logged, NONE));
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

fn status(rig: &Rig, args: &[&str]) -> Result<Output> {
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
    let acctd = listening(&rig, &[ONE_HOUR, &["-listen=127.0.0.1:9745"]].concat())?;
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
    let acctd = rig.acctd_unready(ONE_HOUR)?;
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
    // Within its flush timeout the kernel hands over the last batch.
    thread::sleep(Duration::from_millis(1_100));
    acctd.signal(Signal::USR1)?;
    acctd.wait_for_line("; 1,000 packets, 100.0 kB, 0 lost")?;
    acctd.finish()?;
    let logged = rig.counter("v4")?;
    ensure!(totals(&rig.files()?, true) == (logged, NONE));
    Ok(())
}

fn a_group_that_is_gone_is_not_healthy() -> Result<()> {
    let rig = Rig::new()?;
    let acctd = listening(&rig, ONE_HOUR)?;
    let socket_of_5 = group_socket::copies_of_sockets(acctd.pid())?;
    let socket_of_5 = socket_of_5.first().context("no socket")?;
    // Another has the group before acctd can bind it again.
    acctd.signal(Signal::STOP)?;
    group_socket::unbind(socket_of_5, 5)?;
    let mut command = rig.router.command(rig.acctd_path());
    let elsewhere = rig.scratch().join("elsewhere");
    command.args(ONE_HOUR).arg("-log-directory").arg(elsewhere);
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
        Ok(seen["acctd_backlog_intervals"] >= 2 && seen["acctd_backlog_rows"] == 100)
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

fn n_sockets(acctd: &Acctd) -> Result<usize> {
    let mut n_sockets = 0;
    for fd in fs::read_dir(format!("/proc/{}/fd", acctd.pid()))? {
        // One may be closed meanwhile.
        let target = fs::read_link(fd?.path()).unwrap_or_default();
        n_sockets += usize::from(target.to_string_lossy().starts_with("socket:"));
    }
    Ok(n_sockets)
}

/// Every place of either address is taken, and many more clients wait for one.
fn clients_that_say_nothing() -> Result<()> {
    /// `listen::MOST_CLIENTS`.
    const PLACES: usize = 16;
    /// Well below the ten seconds that a head may take.
    const SOON: Duration = Duration::from_secs(5);
    let rig = Rig::new()?;
    let acctd = listening(&rig, &[ONE_HOUR, &["-listen=127.0.0.1:9745"]].concat())?;
    let before = n_sockets(&acctd)?;
    // They connect within acctd's network namespace and say nothing until their input ends.
    let script = "for client in {1..48}; do exec {fd}<>/dev/tcp/127.0.0.1/9745; done; echo connected; read -r";
    let mut silent = rig.router.command("bash");
    silent.args(["-c", script]).stdin(Stdio::piped());
    let mut silent = Process::spawn(silent.stdout(Stdio::piped()))?;
    let mut line = String::new();
    let stdout = silent.child().stdout.take().context("a pipe")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "connected\n", "{line:?}");
    wait_until("their places are taken", || {
        Ok(n_sockets(&acctd)? >= before + PLACES)
    })?;
    let begun = Instant::now();
    ensure!(get(&rig, "/healthz")?.0 == 200);
    ensure!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let mut on_unix = Vec::new();
    for _ in 0..48 {
        on_unix.push(UnixStream::connect(socket(&rig))?);
    }
    let mut half = UnixStream::connect(socket(&rig))?;
    half.write_all(b"GET /metrics HT")?;
    let begun = Instant::now();
    ensure!(get(&rig, "/healthz")?.0 == 200);
    ensure!(
        status(&rig, &["--listen", "127.0.0.1:9745"])?
            .status
            .success()
    );
    ensure!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // Those of either address, and one of each that waits for a place.
    let open = n_sockets(&acctd)? - before;
    ensure!(
        (PLACES..=2 * (PLACES + 1)).contains(&open),
        "{open} clients"
    );
    acctd.finish()?;
    Ok(())
}

/// The nice value of each thread by its name.
fn nice_values(acctd: &Acctd) -> Result<Vec<(String, i32)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", acctd.pid()))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (name, fields) = stat.rsplit_once(") ").context("a name")?;
        let (_, name) = name.split_once('(').context("a name")?;
        // The 19th field of proc_pid_stat(5); these begin with the third.
        let nice = fields.split(' ').nth(16).context("a nice value")?;
        threads.push((name.to_owned(), nice.parse()?));
    }
    Ok(threads)
}

fn the_nice_value() -> Result<()> {
    let rig = Rig::new()?;
    for (of_readers, of_listener) in [(-19, 0), (-7, 0), (-2, 3), (7, 12), (19, 19)] {
        let priority = format!("-priority={of_readers}");
        let acctd = listening(&rig, &[ONE_HOUR, &[&priority]].concat())?;
        let listener = || -> Result<Option<i32>> {
            let threads = nice_values(&acctd)?;
            let listener = threads.iter().find(|(name, _)| name == "listen");
            Ok(listener.map(|(_, nice)| *nice))
        };
        // It has its value when it answers.
        ensure!(get(&rig, "/healthz")?.0 == 200);
        ensure!(
            listener()? == Some(of_listener),
            "{priority}: {:?}",
            listener()?
        );
        for (name, nice) in nice_values(&acctd)? {
            let expected = match name.as_str() {
                // It comes and goes, and may not have set its own yet.
                "disk" => continue,
                "listen" => of_listener,
                // Behind the readers, but in front of other programs where they are.
                "rules" => of_readers.max((of_readers + 5).min(0)),
                _ => of_readers,
            };
            ensure!(nice == expected, "{priority}: {name} has {nice}");
        }
        acctd.finish()?;
    }
    Ok(())
}

fn where_nobody_can_listen() -> Result<()> {
    let rig = Rig::new()?;
    let fails_with = |listen: &str, code, part: &str| {
        let listen = format!("-listen={listen}");
        fails(&rig, &[ONE_HOUR, &[&listen]].concat(), code, part)
    };
    fails_with("nowhere", 2, "is neither ADDRESS:PORT")?;
    fails_with(
        "192.0.2.77:9745",
        1,
        "this machine does not have the address",
    )?;
    fails_with("unix:/nowhere/acctd.sock", 1, "its directory is not there")?;
    let plain = rig.scratch().join("plain");
    fs::write(&plain, "")?;
    let plain = format!("unix:{}", plain.display());
    fails_with(&plain, 1, "a file that is no socket stands there")?;
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    let acctd = listening(&rig, &[ONE_HOUR, &["-listen=127.0.0.1:9745"]].concat())?;
    let unix = format!("unix:{}", socket(&rig).display());
    for taken in ["127.0.0.1:9745", &unix] {
        let listen = format!("-listen={taken}");
        let elsewhere = rig.scratch().join("elsewhere");
        let mut command = rig.router.command(rig.acctd_path());
        command.args(["-ip4-src-group=6", &listen, "-log-directory"]);
        complains(
            &command.arg(elsewhere).output()?,
            1,
            "another program listens there",
        )?;
    }
    acctd.finish()?;
    Ok(())
}

fn a_sockets_file() -> Result<()> {
    let rig = Rig::new()?;
    // As one that was killed leaves it.
    drop(UnixListener::bind(socket(&rig))?);
    let acctd = listening(&rig, ONE_HOUR)?;
    let mode = fs::metadata(socket(&rig))?.permissions().mode();
    ensure!(mode & 0o777 == 0o660, "{mode:o}");
    ensure!(get(&rig, "/healthz")?.0 == 200);
    acctd.finish()?;
    ensure!(!socket(&rig).exists());
    Ok(())
}
