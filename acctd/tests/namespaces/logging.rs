//! What acctd says: to stderr, to syslog, of each packet, and into a CPU profile.

use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result, ensure};
use pprof::protos::{Message as _, Profile};
use testkit::traffic::TrafficArgs;

use crate::rig::{Acctd, Rig};
use crate::waiting::{PATIENCE, wait_for_files};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "an_interval_is_one_line_in_gos_format",
        an_interval_is_one_line,
    ),
    (
        Needs::Namespace,
        "verbose_names_the_end_of_each_interval_before_it_comes",
        verbose_names_the_end,
    ),
    (
        Needs::Namespace,
        "debug_prints_each_packet",
        debug_prints_each_packet,
    ),
    (
        Needs::Namespace,
        "syslog_gets_the_lines_without_a_time_stamp_of_our_own",
        syslog_gets_the_lines,
    ),
    (
        Needs::RealProcessor,
        "a_cpu_profile_is_one_that_pprof_reads",
        a_cpu_profile,
    ),
    (
        Needs::Root,
        "threads_have_the_priority_asked_for",
        threads_have_the_priority_asked_for,
    ),
    (
        Needs::Namespace,
        "flags_come_from_the_environment_too",
        flags_come_from_the_environment_too,
    ),
];

const RULES: &str = "
    table inet rig { chain prerouting { type filter hook prerouting priority raw
        ip protocol udp log group 5 snaplen 20 queue-threshold 50
        drop; }; }";

fn three_packets(rig: &Rig) -> Result<TrafficArgs> {
    Ok(TrafficArgs {
        sources: 3,
        count: 3,
        ..rig.traffic("10.1.0.1/16", "10.255.0.1/32")?
    })
}

fn an_interval_is_one_line() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    let acctd = rig.acctd(&["-interval=36500d", "-ip4-src-group=5"])?;
    rig.send(&three_packets(&rig)?)?;
    let ended = acctd.finish()?;
    let line = ended.line("Stats file")?;
    let (time, text) = line.split_at(20);
    chrono::NaiveDateTime::parse_from_str(time, "%Y/%m/%d %H:%M:%S ").context(time.to_owned())?;
    ensure!(
        text.contains(
            ".csv\" written: 3 rows, 3 packets, 300 bytes, 0 lost, 0 late, 0 undecodable, in 0."
        ),
        "{text}"
    );
    ended.line("Monitoring NFLog multicast group 5 for IPv4 Source mask /32")?;
    ended.line("terminated received - shutting down")?;
    Ok(())
}

fn verbose_names_the_end() -> Result<()> {
    let rig = Rig::new()?;
    let acctd = rig.acctd(&["-verbose", "-interval=1s", "-ip4-src-group=5"])?;
    wait_for_files(&acctd, 3)?;
    let ended = acctd.finish()?;
    let position = |part: &str| ended.log.iter().position(|line| line.contains(part));
    ensure!(
        position("Next stats dump at") < position("Stats file"),
        "{:?}",
        ended.log
    );
    let second = chrono::TimeDelta::seconds(1);
    let mut named: Vec<chrono::NaiveDateTime> = Vec::new();
    for line in &ended.log {
        let Some((said, end)) = line.split_once(" Next stats dump at ") else {
            continue;
        };
        let said = chrono::NaiveDateTime::parse_from_str(said, "%Y/%m/%d %H:%M:%S")?;
        let end = chrono::NaiveDateTime::parse_from_str(end, "%Y-%m-%d %H:%M:%S")?;
        ensure!(said <= end && end - said <= second, "{line}");
        named.push(end);
    }
    ensure!(named.windows(2).all(|pair| pair[0] < pair[1]), "{named:?}");
    // At the start, and after each file but those that the stop has written.
    ensure!(named.len() >= 3, "{:?}", ended.log);
    Ok(())
}

fn debug_prints_each_packet() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    let acctd = rig.acctd(&[
        "-debug",
        "-interval=36500d",
        "-ip4-src-group=5",
        "-ip4-prefix-length=31",
    ])?;
    rig.send(&three_packets(&rig)?)?;
    let ended = acctd.finish()?;
    let printed: Vec<&str> = ended
        .log
        .iter()
        .filter_map(|line| line.split_once("IP message ").map(|(_, text)| text))
        .collect();
    ensure!(
        printed
            == [
                "Source Addr 10.1.0.0 Size 100",
                "Source Addr 10.1.0.2 Size 100",
                "Source Addr 10.1.0.2 Size 100"
            ],
        "{printed:?}"
    );
    Ok(())
}

fn syslog_gets_the_lines() -> Result<()> {
    let rig = Rig::new()?;
    // A syslog daemon of our own, seen in the router's mount namespace alone. /dev/log may be
    // missing, or point to where a daemon of the machine listens.
    let socket_path = rig.scratch().join("syslog");
    let socket = UnixDatagram::bind(&socket_path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let path = socket_path.to_str().context("a path of ASCII")?;
    rig.router.run(&["mount", "-t", "tmpfs", "none", "/run"])?;
    rig.router.run(&[
        "sh",
        "-c",
        &format!("ln -s {path} /run/syslog; test -S /var/run/syslog"),
    ])?;
    if std::path::Path::new("/dev/log").exists() {
        rig.router.run(&["mount", "--bind", path, "/dev/log"])?;
    }
    let acctd = rig.acctd_unready(&["-syslog", "-interval=36500d", "-ip4-src-group=5"])?;
    let pid = acctd.pid();
    let line = read_until(&socket, "Started accounting")?;
    // Facility kern, severity info.
    let expected = format!(" acctd[{pid}]: Started accounting");
    ensure!(
        line.starts_with("<6>") && line.ends_with(&expected),
        "{line}"
    );
    // The daemon is restarted. A process that another test starts at this moment may still have a copy of the socket.
    socket.shutdown(Shutdown::Both)?;
    drop(socket);
    std::fs::remove_file(&socket_path)?;
    let socket = UnixDatagram::bind(&socket_path)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let ended = acctd.finish()?;
    ensure!(ended.log.is_empty(), "on stderr: {:?}", ended.log);
    read_until(&socket, "terminated received - shutting down")?;
    read_until(&socket, "Exit")?;
    Ok(())
}

fn read_until(socket: &UnixDatagram, end: &str) -> Result<String> {
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).context("no more lines")?;
        let line = String::from_utf8_lossy(&buffer[..length]);
        if line.ends_with(end) {
            return Ok(line.into_owned());
        }
    }
}

fn threads_have_the_priority_asked_for() -> Result<()> {
    let rig = Rig::new()?;
    for (flag, nice) in [("-verbose", "-19"), ("-priority=-7", "-7")] {
        let acctd = rig.acctd(&[flag, "-interval=36500d", "-ip4-src-group=5"])?;
        let mut n_threads = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", acctd.pid()))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            // The name, in parentheses, is the second field; nice is the nineteenth.
            let (name, rest) = stat.rsplit_once(')').context("a name")?;
            // It only looks whether the rules are there, and yields to the readers.
            if name.ends_with("(rules") {
                continue;
            }
            let found = rest.split_whitespace().nth(16);
            ensure!(found == Some(nice), "{flag}: {stat}");
            n_threads += 1;
        }
        ensure!(n_threads >= 2);
        acctd.finish()?;
    }
    Ok(())
}

fn a_cpu_profile() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    let path = rig.scratch().join("cpu.pprof");
    let flag = format!("-cpuprofile={}", path.display());
    let temporary = rig.scratch().join("tmp");
    std::fs::create_dir(&temporary)?;
    let mut command = rig.acctd_command();
    command
        .env("TMPDIR", &temporary)
        .args([&flag, "-interval=36500d", "-ip4-src-group=5"]);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    rig.send(&TrafficArgs {
        sources: 65_536,
        count: 600_000,
        ..rig.traffic("10.1.0.0/8", "10.255.0.1/32")?
    })?;
    acctd.finish()?;
    let profile = Profile::decode(std::fs::read(path)?.as_slice())?;
    ensure!(!profile.sample.is_empty() && !profile.sample_type.is_empty());
    let names = profile.string_table.join("\n");
    ensure!(names.contains("acctd::"), "no function of acctd's in it");
    // A start that fails leaves no more behind than a run.
    command.arg("-ip6-src-group=6");
    let first = rig.acctd(&["-interval=36500d", "-ip6-src-group=6"])?;
    ensure!(Acctd::spawn(&mut command)?.wait()?.code == Some(1));
    first.finish()?;
    let left: Vec<_> = std::fs::read_dir(&temporary)?.collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn flags_come_from_the_environment_too() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    let mut command = rig.router.command(rig.acctd_path());
    command
        .env("ACCTD_LOG_DIRECTORY", rig.log_directory())
        .env("ACCTD_IP4_SRC_GROUP", "5")
        .env("ACCTD_INTERVAL", "36500d")
        .env("ACCTD_UTC", "true")
        .env("ACCTD_IP6_SRC_GROUP", "")
        .env("ACCTD_CPUS", "")
        .env("TZ", "Asia/Kathmandu");
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    rig.send(&three_packets(&rig)?)?;
    acctd.finish()?;
    let start = rig.summaries()?[0]["start"]
        .as_str()
        .context("a time")?
        .to_owned();
    ensure!(start.ends_with("+00:00"), "{start}");
    ensure!(
        rig.files()?
            .iter()
            .map(|file| file.rows.len())
            .sum::<usize>()
            == 3
    );
    Ok(())
}
