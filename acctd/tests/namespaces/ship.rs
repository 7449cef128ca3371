//! `acctd ship` to a real ClickHouse (Debian's): whatever is killed, cut or lost on the way, the database has the rows of
//! the files, each once.

mod cluster;
mod host;
mod lake;
mod proxy;
mod refused;
mod scale;
mod server;
mod todays;

use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testkit::netns::Privilege;
use testkit::process::{self, Process};
use testkit::traffic::TrafficArgs;

use self::host::{Host, assert_exact, cross_checked, nth_file, reveal, sums_of};
use self::proxy::Proxy;
use self::server::Server;
use crate::errors::complains;
use crate::rig::{LOG_AND_DROP, Rig};
use crate::waiting::{wait_for_files, wait_until};
use crate::world::{self, Random, START, World};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::ClickHouse,
        "ship_sends_each_file_once_and_adds_up_its_days",
        each_file_once,
    ),
    (
        Needs::ClickHouse,
        "ship_of_a_backlog_does_not_delay_new_files",
        a_backlog,
    ),
    (
        Needs::ClickHouse,
        "ship_beside_a_running_acctd_has_what_nft_counted",
        beside_acctd,
    ),
    (
        Needs::ClickHouse,
        "ship_killed_at_each_step_sends_the_rest_and_nothing_twice",
        killed_at_each_step,
    ),
    (
        Needs::ClickHouse,
        "ship_of_ten_hosts_while_servers_shippers_and_the_network_fail",
        everything_fails,
    ),
    (
        Needs::ClickHouse,
        "ship_and_the_report_of_the_database_is_that_of_the_files",
        the_report_is_the_same,
    ),
    (
        Needs::ZooKeeper,
        "ship_to_a_cluster_of_which_a_replica_dies_and_comes_back_empty",
        cluster::to_a_cluster,
    ),
    (
        Needs::Databases,
        "ship_to_todays_clickhouse_and_report_from_it",
        todays::to_todays,
    ),
    (
        Needs::ClickHouse,
        "ship_to_a_server_whose_disk_is_full_waits_for_it",
        refused::the_servers_disk_is_full,
    ),
    (
        Needs::ClickHouse,
        "ship_by_tls_takes_no_certificate_that_has_expired_or_is_of_others",
        refused::certificates,
    ),
    (
        Needs::ClickHouse,
        "ship_says_what_is_wrong_and_loses_nothing",
        refused::what_is_wrong,
    ),
    (
        Needs::Databases,
        "ship_archives_to_a_directory_and_to_s3_each_once",
        lake::each_once,
    ),
    (
        Needs::Databases,
        "ship_archives_to_s3_while_it_and_the_network_fail",
        lake::s3_fails,
    ),
    (
        Needs::Root,
        "ship_archives_to_a_directory_whose_disk_is_full_waits_for_it",
        lake::the_disk_is_full,
    ),
    (
        Needs::Soak,
        "soak_of_ten_thousand_hosts_into_one_clickhouse",
        scale::ten_thousand_hosts,
    ),
];

pub(crate) use self::cluster::zookeeper;
pub(crate) use self::server::clickhouse;

const ACCTD: &str = env!("CARGO_BIN_EXE_acctd");

fn each_file_once() -> Result<()> {
    let scratch = TempDir::new()?;
    let server = Server::start()?;
    // Statements that were run before change nothing.
    for _ in 0..2 {
        server.load_schema(&[])?;
    }
    let hosts = [Host::new(scratch.path(), 1)?, Host::new(scratch.path(), 2)?];
    // The database would delete them.
    let output = hosts[0]
        .ship(server.port, &["--once", "--keep=1d"])
        .output()?;
    let log = String::from_utf8(output.stderr)?;
    ensure!(log.contains(" 0 files with 0 rows are sent"), "{log}");
    for host in &hosts {
        let log = host.once(server.port)?;
        ensure!(log.contains("289 files with"), "{log}");
        let log = host.once(server.port)?;
        ensure!(log.contains(" 0 files with 0 rows are sent"), "{log}");
    }
    assert_exact(&server, &hosts)?;

    // Times are those of the files, in UTC, whatever the zone of the host.
    let times = "SELECT min(Time), max(Time), toUnixTimestamp(min(Time)) FROM acctd.traffic";
    let times = server.query(times)?;
    ensure!(
        times.starts_with(&format!(
            "2026-01-01 00:00:00\t2026-01-02 00:00:00\t{START}"
        )),
        "{times}"
    );

    // Rows that are lost in the database, and others that were added, are found.
    let verify = || -> Result<(bool, String)> {
        let output = hosts[0].ship(server.port, &["--verify"]).output()?;
        Ok((output.status.success(), String::from_utf8(output.stdout)?))
    };
    let (is_same, table) = verify()?;
    ensure!(is_same && table.contains("2026-01-01    288"), "{table}");
    // Their sums are lost too, and that they were made: days cannot be added up as long as rows are missing.
    let lost = "host = 'r1' AND IP = '10.0.1.0'";
    for is_once in [true, false] {
        for (table, rows) in [
            ("traffic", lost),
            ("traffic_hour", lost),
            ("days", "host = 'r1'"),
        ] {
            server.delete(table, rows)?;
        }
        let (is_same, table) = verify()?;
        ensure!(!is_same && table.contains("the database has"), "{table}");
        if is_once {
            hosts[0].once(server.port)?;
            ensure!(verify()?.0);
            assert_exact(&server, &hosts)?;
            continue;
        }
        // A running acctd ship finds it too, and sends these files again.
        let _shipper = Process::spawn(hosts[0].ship(server.port, &[]).stderr(Stdio::null()))?;
        wait_until("what was deleted is there again", || {
            Ok(verify()?.0 && assert_exact(&server, &hosts).is_ok())
        })?;
    }

    // Sums that are lost are found too.
    for table in ["traffic_hour", "traffic_day", "traffic_month"] {
        server.delete(table, "host = 'r1' AND IP = '10.0.1.2'")?;
        let shipper = Process::spawn(hosts[0].ship(server.port, &[]).stderr(Stdio::null()))?;
        wait_until("the sums are right again", || {
            Ok(assert_exact(&server, &hosts).is_ok())
        })?;
        drop(shipper);
    }
    Ok(())
}

/// Of the batches of a backlog, each second has the newest files.
fn a_backlog() -> Result<()> {
    let scratch = TempDir::new()?;
    let server = Server::start()?;
    server.load_schema(&[])?;
    let addresses: Vec<IpAddr> = (0..10_000_u32)
        .map(|it| IpAddr::from((0x0a00_0000 + it).to_be_bytes()))
        .collect();
    // A batch has 16 MiB at most.
    let world = World::random(&mut Random(5), START, 300, 240, &addresses);
    let host = Host::of(scratch.path(), 1, world)?;
    let last = nth_file(&host.directory, 239)?;
    let held_back = scratch.path().join("held back");
    fs::rename(&last, &held_back)?;
    // acctd writes a file's line after the file.
    let journal = host.directory.join("intervals.jsonl");
    let lines = fs::read_to_string(&journal)?;
    let before = lines.trim_end().rfind('\n').context("lines")? + 1;
    fs::write(&journal, &lines[..before])?;
    let name = last.file_name().context("a name")?.to_string_lossy();
    let counts = || -> Result<(u64, bool)> {
        let counts = server.query(&format!(
            "SELECT count(), countIf(file = '{name}') FROM acctd.files FINAL"
        ))?;
        let (n_files, n_newest) = counts.trim().split_once('\t').context("two")?;
        Ok((n_files.parse()?, n_newest == "1"))
    };
    let flags = ["--in-flight=1", "--reconcile=0"];
    let shipper = Process::spawn(host.ship(server.port, &flags).stderr(Stdio::null()))?;
    wait_until("the first batch is there", || Ok(counts()?.0 > 0))?;
    let n_before = counts()?.0;
    fs::rename(&held_back, &last)?;
    fs::OpenOptions::new()
        .append(true)
        .open(&journal)?
        .write_all(&lines.as_bytes()[before..])?;
    let mut n_files = 0;
    wait_until("the newest is there", || {
        let (n, has_newest) = counts()?;
        n_files = n;
        Ok(has_newest)
    })?;
    drop(shipper);
    eprintln!(
        "the newest came after {} of {} others",
        n_files - n_before,
        239 - n_before
    );
    ensure!(n_files < 240, "it came last");
    host.once(server.port)?;
    ensure!(counts()? == (240, true));
    ensure!(sums_of(&server, "traffic")? == host.sums());
    Ok(())
}

/// It sends each file as soon as it is there.
fn beside_acctd() -> Result<()> {
    let server = Server::start()?;
    server.load_schema(&[])?;
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&[
        "-interval=1s",
        "-ip4-src-group=5",
        "-ip6-src-group=7",
        "-crosscheck=lan0",
    ])?;
    let directory = rig.log_directory().display().to_string();
    let ship = |more: &[&str]| {
        let mut command = Command::new(ACCTD);
        let to = format!("--to=http://127.0.0.1:{}", server.port);
        command
            .args(["ship", &directory, &to, "--user=default", "--host=gate"])
            .args(more);
        command
    };
    let shipper = Process::spawn(ship(&[]).stderr(Stdio::null()))?;
    for _ in 0..3 {
        for source in ["10.0.0.0/24", "2001:db8::/48"] {
            let dest = if source.contains(':') {
                "2001:db8:1::1/128"
            } else {
                "172.16.0.1/32"
            };
            rig.send(&TrafficArgs {
                sources: 50,
                count: 2_000,
                rate: 20_000,
                ..rig.traffic(source, dest)?
            })?;
        }
        wait_for_files(&acctd, 1)?;
    }
    acctd.finish()?;
    wait_until("all files are there", || {
        Ok(ship(&["--verify"]).output()?.status.success())
    })?;
    drop(shipper);
    for (counter, is_ip6) in [("v4", 0), ("v6", 1)] {
        let sums = server.query(&format!(
            "SELECT sum(SourcePackets), sum(SourceBytes), sum(TcSourcePackets) FROM acctd.traffic FINAL \
             WHERE (position(IP, ':') > 0) = {is_ip6}"
        ))?;
        let truth = rig.counter(counter)?;
        let expected = format!("{}\t{}\t{}", truth.packets, truth.bytes, truth.packets);
        ensure!(sums.trim() == expected, "{sums} and not {expected}");
    }
    let lines =
        "SELECT count(), countIf(missing_source_bytes = 0 AND line != '') FROM acctd.files FINAL";
    let n_files = rig.summaries()?.len();
    ensure!(server.query(lines)?.trim() == format!("{n_files}\t{n_files}"));
    Ok(())
}

fn killed_at_each_step() -> Result<()> {
    let scratch = TempDir::new()?;
    let server = Server::start()?;
    server.load_schema(&[])?;
    let hosts = [Host::new(scratch.path(), 1)?];
    for point in ["ship-send", "ship-compare", "ship-mark", "ship-marked"] {
        for nth in ["1", "2"] {
            let mut command = hosts[0].ship(server.port, &["--once", "--in-flight=1"]);
            let killed = command
                .env("ACCTD_KILL_AT", format!("{point}#{nth}"))
                .output()?;
            ensure!(killed.status.code() != Some(1), "{killed:?}");
        }
    }
    hosts[0].once(server.port)?;
    assert_exact(&server, &hosts)
}

/// Files come while twenty servers and twenty acctd ships are killed, connections are cut, and answers are lost.
fn everything_fails() -> Result<()> {
    const N_FAULTS: u64 = 20;
    let scratch = TempDir::new()?;
    let staged = TempDir::new()?;
    let mut server = Server::start()?;
    server.load_schema(&[])?;
    let proxy = Proxy::start(server.port)?;
    let hosts: Vec<Host> = (0..10)
        .map(|number| Host::staged(staged.path(), scratch.path(), number))
        .collect::<Result<_>>()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for host in &hosts {
            let from = staged.path().join(&host.name);
            scope.spawn(move || reveal(&from, &host.directory));
        }
        let shippers: Vec<_> = hosts
            .iter()
            .map(|host| scope.spawn(|| ship_until(host, proxy.port, &is_over)))
            .collect();
        let mut n_servers = 0;
        let killed = wait_until("twenty of each fault have happened", || {
            thread::sleep(Duration::from_millis(700));
            server.kill();
            thread::sleep(Duration::from_millis(300));
            server.restart()?;
            n_servers += 1;
            let n_least = proxy.n_lost().min(proxy.n_cut()).min(n_servers);
            Ok(n_least >= N_FAULTS)
        });
        is_over.store(true, Ordering::Relaxed);
        let mut n_killed = 0;
        for shipper in shippers {
            n_killed += shipper
                .join()
                .map_err(|_panicked| anyhow::anyhow!("panicked"))??;
        }
        killed.and_then(|()| {
            ensure!(n_killed as u64 >= N_FAULTS, "{n_killed} were killed");
            Ok(())
        })
    })?;
    for host in &hosts {
        host.once(server.port)?;
    }
    let sent = server.query("SELECT count() FROM acctd.traffic")?;
    eprintln!(
        "{} answers lost, {} connections cut; {} rows in {} of the files",
        proxy.n_lost(),
        proxy.n_cut(),
        sent.trim(),
        hosts.iter().map(Host::n_rows).sum::<usize>()
    );
    assert_exact(&server, &hosts)
}

/// Starts it again each time that it was killed, at a random time. Returns how often it was.
fn ship_until(host: &Host, port: u16, is_over: &AtomicBool) -> Result<usize> {
    let random = &mut Random(host.name.len() as u64);
    let mut n_killed = 0;
    while !is_over.load(Ordering::Relaxed) {
        let shipper = Process::spawn(host.ship(port, &["--reconcile=0"]).stderr(Stdio::null()))?;
        thread::sleep(Duration::from_millis(500 + random.below(8_000)));
        drop(shipper);
        n_killed += 1;
    }
    Ok(n_killed)
}

/// Of two hosts, with files that are gone, losses, gaps and rows of overflow, in zones that change their clock or not.
fn the_report_is_the_same() -> Result<()> {
    let scratch = TempDir::new()?;
    let server = Server::start()?;
    server.load_schema(&[])?;
    let addresses = world::addresses(12);
    let mut hosts = Vec::new();
    for number in 1..=2 {
        let random = &mut Random(number + 70);
        // The month in which the clock of Berlin is set forward.
        let mut world = World::random(random, 1_774_389_600, 900, 700, &addresses);
        for at in [3, 40, 41, 200] {
            world::lose(&mut world.intervals[at], &addresses, random);
        }
        world::overflow(&mut world.intervals[100], &addresses, random);
        world.intervals[150].is_killed = true;
        world.intervals[151].is_removed = number == 1;
        let host = Host::of(scratch.path(), number, world)?;
        for at in [300, 301] {
            cross_checked(&host.directory, at)?;
        }
        hosts.push(host);
    }
    for host in &hosts {
        host.once(server.port)?;
    }
    let customers = scratch.path().join("customers.csv");
    fs::write(
        &customers,
        "prefix,customer,commit_mbit\n10.0.0.0/29,red,1\n2001:db8::/32,blue,\n",
    )?;
    let customers = format!("--customers={}", customers.display());
    let url = format!("--from-clickhouse=http://127.0.0.1:{}", server.port);
    let report = |flags: &[&str], more: &[&str]| -> Result<serde_json::Value> {
        let mut command = Command::new(ACCTD);
        command.args(["report", "--zone=Europe/Berlin", "--format=json"]);
        let text = process::output(command.args(flags).args(more))?;
        let mut report: serde_json::Value = serde_json::from_str(&text)?;
        report
            .as_object_mut()
            .context("an object")?
            .remove("command");
        Ok(report)
    };
    let directories: Vec<&str> = hosts
        .iter()
        .filter_map(|it| it.directory.to_str())
        .collect();
    for flags in [
        &["--form=max"][..],
        &["--form=sample-max", "--by=day"],
        &["--form=in", "--group-by=host", "--by=week"],
        &["--form=sum", "--missing=skip", &customers],
        &[
            "--form=out",
            "--missing=zero",
            "--sample=1h",
            "--from=2026-03-29 01:00",
            "--to=2026-03-30 05:30",
        ],
    ] {
        let of_files = report(flags, &directories)?;
        let of_database = report(flags, &["--user=default", &url])?;
        ensure!(
            of_files == of_database,
            "{flags:?}: {of_files:#} and {of_database:#}"
        );
        let lines = of_files["parts"][0]["lines"].as_array().context("lines")?;
        ensure!(lines.len() >= 2, "{flags:?}");
    }
    let of_one = report(&["--group-by=host"], &["--user=default", &url, "r2"])?;
    ensure!(of_one == report(&["--group-by=host"], &directories[1..])?);
    let mut command = Command::new(ACCTD);
    command.args(["report", "--user=default", &url, "nobody"]);
    complains(&command.output()?, 1, "has no files of these hosts")
}
