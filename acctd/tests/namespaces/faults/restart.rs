//! acctd is restarted by a service manager that keeps its sockets: no packet is lost.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::thread;
use std::time::{Duration, Instant};

use acctd::nflog::table::{self, Instance};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::Mode;
use rustix::process::Signal;
use serde_json::Value;
use testkit::netns::Privilege;
use testkit::traffic::TrafficArgs;

use super::manager::Manager;
use crate::kernel::scaled;
use crate::rig::{Acctd, LATE_LOG_AND_DROP, LOG_AND_DROP, Rig, totals};
use crate::stopping::AT_ONCE;
use crate::waiting::wait_for_files;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Alone(&Needs::Namespace),
        "restarted_ten_times_under_traffic_no_packet_is_lost",
        restarted_ten_times,
    ),
    (
        Needs::Alone(&Needs::Root),
        "restarted_too_slowly_for_the_traffic_the_loss_is_exact",
        restarted_too_slowly,
    ),
    (
        Needs::Alone(&Needs::Root),
        "restarted_without_the_right_to_read_the_kernels_table_no_packet_is_lost",
        restarted_without_the_table,
    ),
    (
        Needs::Alone(&Needs::Root),
        "restarted_with_a_cross_check_there_is_no_false_verdict",
        restarted_with_a_cross_check,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "restarted_without_a_group_its_socket_is_let_go",
        restarted_without_a_group,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "restarted_after_a_start_that_was_refused_nothing_is_lost",
        restarted_after_a_refusal,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "restarted_without_a_service_manager_is_a_stop",
        restarted_without_a_manager,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "restarted_after_an_overrun_what_is_lost_is_complete_only_if_a_packet_shows_it",
        restarted_after_an_overrun,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "stopped_for_good_nothing_is_kept_and_nothing_lost",
        stopped_for_good,
    ),
];

pub(super) const NOTE: &str = "acctd-state";

pub(super) const ONE_SECOND: &[&str] = &["-interval=1s", "-utc", "-ip4-src-group=5"];
pub(super) const ONE_INTERVAL: &[&str] = &["-interval=36500d", "-utc", "-ip4-src-group=5"];

pub(super) fn send(rig: &Rig, count: u64, rate: u32) -> Result<()> {
    rig.send(&TrafficArgs {
        sources: 10,
        count,
        rate,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    Ok(())
}

/// Each packet that was logged is in a row, and each moment in one file.
fn ensure_all_is_counted(rig: &Rig, packets: u64) -> Result<()> {
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == packets, "{ip4:?}");
    let files = rig.files()?;
    let (counted, _) = totals(&files, true);
    ensure!(
        counted == ip4,
        "{counted:?} of {ip4:?}, {} lost",
        rig.summed("lost")?
    );
    ensure!(rig.summed("lost")? == 0 && rig.summed("overruns")? == 0);
    ensure_exactly_contiguous(rig)
}

/// To the nanosecond: file names have whole seconds, and one second may see several starts.
fn ensure_exactly_contiguous(rig: &Rig) -> Result<()> {
    let summaries = rig.summaries()?;
    for pair in summaries.windows(2) {
        ensure!(pair[0]["end"] == pair[1]["start"], "{pair:?}");
    }
    ensure!(
        summaries.iter().all(|line| line["gaps"] == Value::Null),
        "{summaries:?}"
    );
    Ok(())
}

fn restarted_ten_times() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let mut acctd = manager.start(&rig, ONE_SECOND)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 1_000,
        count: u64::MAX,
        rate: scaled(20_000),
        ..rig.traffic("10.0.0.0/16", "172.16.0.1/32")?
    })?;
    let mut longest = Duration::ZERO;
    for round in 0..10 {
        // Not always at the same moment of an interval.
        thread::sleep(Duration::from_millis(650 + 37 * round));
        let begun = Instant::now();
        manager.end_for_restart(acctd)?;
        ensure!(manager.names()? == [NOTE, "nflog-5"]);
        acctd = manager.start(&rig, ONE_SECOND)?;
        longest = longest.max(begun.elapsed());
        ensure!(manager.names()? == ["nflog-5"], "the note is there");
    }
    drop(traffic);
    manager.end(acctd, Signal::TERM)?;
    let packets = rig.counter("v4")?.packets;
    ensure!(packets > scaled(100_000), "{packets}");
    ensure_all_is_counted(&rig, packets)?;
    let late = rig.summed("late")?;
    eprintln!(
        "restarted ten times in {} files: 0 of {packets} packets lost, {late} late; {longest:?} from a signal to the next start at most",
        rig.files()?.len()
    );
    // What the kernel still held of the interval before: no more than the rule's threshold.
    ensure!(late <= 10 * 50, "{late} late");
    Ok(())
}

fn restarted_too_slowly() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    send(&rig, 10_000, 0)?;
    manager.end_for_restart(acctd)?;
    // More than the socket holds, at full speed.
    send(&rig, 400_000, 0)?;
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    // The loss shows with the next packet: here, to yet another process.
    manager.end_for_restart(acctd)?;
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    send(&rig, 10_000, 0)?;
    manager.end(acctd, Signal::TERM)?;
    let sent = rig.counter("v4")?.packets;
    ensure!(sent == 420_000);
    let (counted, _) = totals(&rig.files()?, true);
    let lost = rig.summed("lost")?;
    eprintln!(
        "while nobody read, {} packets waited and {lost} were lost",
        counted.packets
    );
    ensure!(lost > 0 && rig.summed("overruns")? > 0);
    ensure!(
        counted.packets + lost == sent,
        "{counted:?} + {lost} of {sent}"
    );
    ensure_exactly_contiguous(&rig)
}

/// As any user with the capability alone.
fn restarted_without_the_table() -> Result<()> {
    const WITH_THE_CAPABILITY_ALONE: &[&str] = &[
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=+net_admin",
        "--ambient-caps=+net_admin",
        "--bounding-set=-all,+net_admin",
        "--",
    ];
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    fs::set_permissions(rig.scratch(), fs::Permissions::from_mode(0o777))?;
    let manager = Manager::new(&rig)?;
    let start = |manager: &Manager| {
        let acctd = manager.start_under(&rig, WITH_THE_CAPABILITY_ALONE, ONE_INTERVAL)?;
        let pid = acctd.pid();
        let table = fs::metadata(format!("/proc/{pid}/net/netfilter/nfnetlink_log"))?;
        ensure!(
            !Mode::from_raw_mode(table.mode()).intersects(Mode::RWXO),
            "the table is for everybody"
        );
        Ok(acctd)
    };
    let mut acctd = start(&manager)?;
    for _ in 0..3 {
        send(&rig, 1_000, 0)?;
        manager.end_for_restart(acctd)?;
        send(&rig, 1_000, 0)?;
        acctd = start(&manager)?;
        acctd.wait_for_line("Group 5 continues")?;
    }
    manager.end(acctd, Signal::TERM)?;
    ensure_all_is_counted(&rig, 6_000)
}

fn instance(rig: &Rig, group: u16) -> Result<Option<Instance>> {
    let table = rig
        .router
        .run(&["cat", "/proc/net/netfilter/nfnetlink_log"])?;
    let mut instances = table::parse(&table).into_iter();
    Ok(instances.find(|instance| instance.group.0 == group))
}

fn restarted_with_a_cross_check() -> Result<()> {
    let rig = Rig::new()?;
    // The kernel holds packets back for the next process.
    rig.rules(LATE_LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let flush_timeout = || -> Result<_> {
        let instance = instance(&rig, 5)?;
        Ok(instance.context("group 5 is not bound")?.flush_timeout)
    };
    // The first one without it: its socket is set for the second.
    let mut acctd = manager.start(&rig, ONE_SECOND)?;
    ensure!(flush_timeout()? == 100);
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 100,
        count: scaled(100_000),
        rate: scaled(10_000),
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    let with_cross_check = [ONE_SECOND, &["-crosscheck=lan0"]].concat();
    let mut n_not_checked = 0;
    for _ in 0..3 {
        manager.end_for_restart(acctd)?;
        thread::sleep(Duration::from_millis(300));
        acctd = manager.start(&rig, &with_cross_check)?;
        ensure!(flush_timeout()? == 10);
        // One of them at least was whole.
        wait_for_files(&acctd, 2)?;
        n_not_checked += 1;
    }
    traffic.finish()?;
    let ended = manager.end(acctd, Signal::TERM)?;
    for alarm in ["uncovered", "extra"] {
        ensure!(ended.line(alarm).is_err(), "{:?}", ended.log);
    }
    ensure_checked_counted(&rig, scaled(100_000))?;
    let summaries = rig.summaries()?;
    let mut n_compared = 0;
    for summary in &summaries {
        let verdicts = &summary["crosscheck"]["verdicts"];
        for alarm in ["uncovered", "extra", "lost"] {
            ensure!(
                *verdicts == Value::Null || verdicts[alarm]["prefixes"] == 0,
                "{summary}"
            );
        }
        n_compared += u64::from(summary["crosscheck"]["comparable"] == true);
    }
    // What lies between two restarts is compared.
    ensure!(n_compared >= n_not_checked, "{summaries:?}");
    Ok(())
}

/// The files have more columns here.
fn ensure_checked_counted(rig: &Rig, packets: u64) -> Result<()> {
    ensure!(rig.counter("v4")?.packets == packets);
    ensure!(rig.summed("source_packets")? == packets && rig.summed("lost")? == 0);
    Ok(())
}

fn restarted_without_a_group() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let both = [ONE_INTERVAL, &["-ip6-src-group=7"]].concat();
    let acctd = manager.start(&rig, &both)?;
    ensure!(manager.names()? == ["nflog-5", "nflog-7"]);
    send(&rig, 500, 0)?;
    manager.end_for_restart(acctd)?;
    send(&rig, 500, 0)?;
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    acctd.wait_for_line("Closed nflog-7, which the service manager had stored")?;
    ensure!(manager.names()? == ["nflog-5"]);
    ensure!(instance(&rig, 7)?.is_none(), "group 7 is bound");
    // And back.
    manager.end_for_restart(acctd)?;
    let acctd = manager.start(&rig, &both)?;
    ensure!(manager.names()? == ["nflog-5", "nflog-7"]);
    manager.end(acctd, Signal::TERM)?;
    ensure!(manager.names()?.is_empty());
    ensure_all_is_counted(&rig, 1_000)
}

fn restarted_after_a_refusal() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    send(&rig, 500, 0)?;
    manager.end_for_restart(acctd)?;
    send(&rig, 500, 0)?;
    // Another process has a group that is new.
    let other = rig.router.peer()?;
    let in_the_way = Acctd::spawn(
        rig.acctd_command()
            .arg("-log-directory")
            .arg(rig.scratch().join("other"))
            .arg("-ip6-src-group=7"),
    )?;
    in_the_way.wait_for_line("Started accounting")?;
    let both = [ONE_INTERVAL, &["-ip6-src-group=7"]].concat();
    let refused = manager.start_unready(&rig, &[], &both)?.wait()?;
    ensure!(refused.code == Some(1));
    refused.line("group 7 is taken by")?;
    ensure!(manager.names()? == [NOTE, "nflog-5"]);
    in_the_way.finish()?;
    drop(other);
    send(&rig, 500, 0)?;
    let acctd = manager.start(&rig, &both)?;
    manager.end(acctd, Signal::TERM)?;
    ensure_all_is_counted(&rig, 1_500)
}

fn restarted_without_a_manager() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LATE_LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(&rig, 10, 0)?;
    let ended = acctd.stop(Signal::USR2)?;
    ensure!(ended.code == Some(0), "{:?}", ended.log);
    ended.line("no service manager keeps the groups for a restart")?;
    ensure_all_is_counted(&rig, 10)
}

/// The old process has read that the socket was full, and all that waited; the gap in the numbers comes to
/// the new one, if a packet does.
fn restarted_after_an_overrun() -> Result<()> {
    for n_more in [0, 100] {
        let rig = Rig::new()?;
        rig.rules(LOG_AND_DROP)?;
        let manager = Manager::new(&rig)?;
        let acctd = manager.start(&rig, ONE_INTERVAL)?;
        acctd.signal(Signal::STOP)?;
        // In whole batches, so that none follows by itself.
        send(&rig, 400_000, 0)?;
        acctd.signal(Signal::CONT)?;
        acctd.wait_for_line("the socket has overflowed")?;
        manager.end_for_restart(acctd)?;
        let acctd = manager.start(&rig, ONE_INTERVAL)?;
        if n_more > 0 {
            send(&rig, n_more, 0)?;
        }
        manager.end(acctd, Signal::TERM)?;
        let summaries = rig.summaries()?;
        let newest = summaries.last().context("two lines")?;
        ensure!(
            summaries.len() == 2 && newest["lost_is_complete"] == (n_more > 0),
            "{summaries:?}"
        );
        let (counted, _) = totals(&rig.files()?, true);
        let lost = rig.summed("lost")?;
        let logged = rig.counter("v4")?.packets;
        ensure!(
            (lost > 0) == (n_more > 0) && (lost == 0 || counted.packets + lost == logged),
            "{counted:?} + {lost} of {logged}"
        );
    }
    Ok(())
}

fn stopped_for_good() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LATE_LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    for (round, signal) in (1..).zip([Signal::TERM, Signal::INT, Signal::QUIT]) {
        let acctd = manager.start(&rig, ONE_INTERVAL)?;
        send(&rig, 10, 0)?;
        let ended = manager.end(acctd, signal)?;
        ensure!(ended.took < AT_ONCE, "took {:?}", ended.took);
        ensure!(manager.names()?.is_empty());
        let (counted, _) = totals(&rig.files()?, true);
        ensure!(counted.packets == 10 * round, "{counted:?}");
    }
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}
