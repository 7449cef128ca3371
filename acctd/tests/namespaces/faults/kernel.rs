//! The kernel's side of a group goes away, or somebody else has taken it.

use std::fs;
use std::os::fd::OwnedFd;

use acctd::nflog::table;
use anyhow::{Context as _, Result, anyhow, ensure};
use chrono::{DateTime, Utc};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect};
use rustix::process::Signal;
use testkit::group_socket;
use testkit::netns::Privilege;
use testkit::nft::Count;
use testkit::traffic::TrafficArgs;

use super::manager::Manager;
use crate::errors::{as_nobody_with, fails, set_mode};
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, read_files, totals, within};
use crate::waiting::{wait_for_files, wait_for_lines, wait_until, wait_until_saved};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "a_group_that_is_unbound_and_bound_again_at_once_has_a_gap",
        the_group_is_unbound_and_bound_again,
    ),
    (
        Needs::Root,
        "the_groups_instance_is_taken_away_and_bound_again",
        the_instance_is_taken_away,
    ),
    (
        Needs::Root,
        "the_group_is_taken_by_another_process_and_given_back",
        the_group_is_taken_and_given_back,
    ),
    (
        Needs::Root,
        "the_group_is_taken_for_several_intervals",
        the_group_is_taken_for_several_intervals,
    ),
    (
        Needs::Root,
        "the_group_is_taken_away_in_the_moment_of_the_stop",
        the_group_is_taken_away_at_the_stop,
    ),
    (
        Needs::Root,
        "the_groups_instance_is_taken_away_and_acctd_may_not_read_the_table",
        acctd_may_not_read_the_table,
    ),
    (
        Needs::Alone(&Needs::Root),
        "the_groups_socket_fails_and_another_takes_its_place",
        the_socket_fails,
    ),
    (
        Needs::Namespace,
        "the_group_was_taken_over_while_acctd_was_down",
        the_group_was_taken_over,
    ),
    (
        Needs::Root,
        "nobody_but_the_kernel_can_send_to_a_groups_socket",
        nobody_but_the_kernel_can_send,
    ),
    (
        Needs::Root,
        "with_a_cross_check_what_passed_while_the_group_was_gone_is_not_checked",
        with_a_cross_check,
    ),
];

pub(super) const ONE_INTERVAL: &[&str] = &["-interval=36500d", "-utc", "-ip4-src-group=5"];

fn send(rig: &Rig, count: u64) -> Result<()> {
    ensure!(count.is_multiple_of(50), "the kernel would hold some back");
    let before = rig.counter("v4")?.packets;
    rig.send(&TrafficArgs {
        sources: 10,
        count,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    wait_until("all is logged", || {
        Ok(rig.counter("v4")?.packets == before + count)
    })
}

/// A copy of acctd's socket of the group: only the owner's socket may unbind it.
pub(super) fn copy_of_socket(acctd: &Acctd) -> Result<OwnedFd> {
    let copies = group_socket::copies_of_sockets(acctd.pid())?;
    copies
        .into_iter()
        .next()
        .context("acctd has no socket of a group")
}

/// From when to when.
type Span = (DateTime<Utc>, DateTime<Utc>);

/// Unbinds acctd's group behind its back. It does not run meanwhile, so that `work` is done while
/// the group is gone.
fn while_unbound(acctd: &Acctd, work: impl FnOnce() -> Result<()>) -> Result<Span> {
    let socket = copy_of_socket(acctd)?;
    while_stopped(acctd, || {
        group_socket::unbind(&socket, 5).and_then(|()| work())
    })
}

fn while_stopped(acctd: &Acctd, work: impl FnOnce() -> Result<()>) -> Result<Span> {
    acctd.signal(Signal::STOP)?;
    let start = Utc::now();
    let done = work();
    let end = Utc::now();
    acctd.signal(Signal::CONT)?;
    done.map(|()| (start, end))
}

/// Of a line of `intervals.jsonl`, or of a gap in it.
pub(super) fn span(of: &serde_json::Value) -> Result<Span> {
    let time = |name| -> Result<DateTime<Utc>> {
        let text = of[name].as_str().with_context(|| format!("no {name}"))?;
        Ok(DateTime::parse_from_rfc3339(text)?.to_utc())
    };
    Ok((time("start")?, time("end")?))
}

/// The gaps of group 5, each of which must lie in its interval.
pub(super) fn gaps(rig: &Rig, cause: &str) -> Result<Vec<Span>> {
    let mut spans = Vec::new();
    for summary in rig.summaries()? {
        let (start, end) = span(&summary)?;
        for gap in summary["gaps"].as_array().into_iter().flatten() {
            ensure!(
                gap["cause"] == cause && gap["groups"] == serde_json::json!([5]),
                "{summary}"
            );
            let gap = span(gap)?;
            ensure!(start <= gap.0 && gap.0 < gap.1 && gap.1 <= end, "{summary}");
            spans.push(gap);
        }
    }
    Ok(spans)
}

/// Whatever was missed was missed in it.
fn ensure_one_gap(rig: &Rig, cause: &str, missed: Span) -> Result<()> {
    let gaps = gaps(rig, cause)?;
    let [gap] = gaps[..] else {
        return Err(anyhow!("{gaps:?}"));
    };
    ensure!(gap.0 <= missed.0 && missed.1 <= gap.1, "{gap:?} {missed:?}");
    // No number is made up for it.
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

fn ensure_counted(rig: &Rig, counted: u64, logged: u64) -> Result<()> {
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == logged, "{ip4:?}");
    let expected = Count {
        packets: counted,
        bytes: 100 * counted,
    };
    let files = rig.files()?;
    ensure!(totals(&files, true) == (expected, NONE), "{files:?}");
    Ok(())
}

fn the_instance_is_taken_away() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(&rig, 1_000)?;
    let missed = while_unbound(&acctd, || send(&rig, 500))?;
    acctd.wait_for_line("group 5 is not bound any more: somebody has unbound it")?;
    acctd.wait_for_line("Group 5 is bound again")?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_500)?;
    ensure_one_gap(&rig, "unbound", missed)
}

/// So fast that acctd asks the kernel only afterwards, when all is well: the numbers tell, and are no loss.
fn the_group_is_unbound_and_bound_again() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(&rig, 1_000)?;
    let socket = copy_of_socket(&acctd)?;
    let missed = while_stopped(&acctd, || {
        group_socket::unbind(&socket, 5)?;
        send(&rig, 500)?;
        group_socket::bind(&socket, 5)
    })?;
    send(&rig, 2_000)?;
    let log = acctd.finish()?.log;
    ensure_counted(&rig, 3_000, 3_500)?;
    let told = "group 5: the kernel has restarted its packet numbers";
    ensure!(log.iter().any(|line| line.contains(told)), "{log:?}");
    ensure_one_gap(&rig, "unbound", missed)
}

/// Another acctd, which writes to a directory of its own.
fn start_elsewhere(rig: &Rig) -> Result<Acctd> {
    let elsewhere = rig.scratch().join("elsewhere");
    let mut command = rig.router.command(rig.acctd_path());
    command
        .args(ONE_INTERVAL)
        .arg("-log-directory")
        .arg(&elsewhere);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    Ok(acctd)
}

/// Another acctd has the group while 500 packets are logged in two halves.
fn take_for_a_while(rig: &Rig, acctd: &Acctd) -> Result<Span> {
    let mut thief = None;
    let (start, _) = while_unbound(acctd, || {
        thief = Some(start_elsewhere(rig)?);
        Ok(())
    })?;
    let thief = thief.context("it was started")?;
    acctd.wait_for_line("group 5 is not bound any more: another process has taken it")?;
    let owner = format!("group 5 is taken by pid {} (acctd)", thief.pid());
    acctd.wait_for_line(&owner)?;
    send(rig, 250)?;
    // For longer than three intervals of a second.
    wait_for_lines(acctd, "next try in ", 4)?;
    send(rig, 250)?;
    let end = Utc::now();
    thief.finish()?;
    let elsewhere = read_files(&rig.scratch().join("elsewhere"))?;
    ensure!(totals(&elsewhere, true).0.packets == 500);
    acctd.wait_for_line("Group 5 is bound again")?;
    Ok((start, end))
}

fn the_group_is_taken_and_given_back() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(&rig, 1_000)?;
    let missed = take_for_a_while(&rig, &acctd)?;
    send(&rig, 2_000)?;
    let ended = acctd.finish()?;
    // Every try waits longer than the one before.
    let tries = ended
        .log
        .iter()
        .filter_map(|line| line.split_once("next try in "));
    let pauses: Vec<&str> = tries.map(|(_, pause)| pause).collect();
    ensure!(
        ["250ms", "500ms", "1s", "2s", "4s", "8s"].starts_with(&pauses) && pauses.len() >= 3,
        "{pauses:?}"
    );
    ensure_counted(&rig, 3_000, 3_500)?;
    ensure_one_gap(&rig, "unbound", missed)
}

/// Each of them has its part of the gap.
fn the_group_is_taken_for_several_intervals() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-utc", "-ip4-src-group=5"])?;
    send(&rig, 1_000)?;
    let missed = take_for_a_while(&rig, &acctd)?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_500)?;
    let gaps = gaps(&rig, "unbound")?;
    ensure!(gaps.len() >= 3, "{gaps:?}");
    for pair in gaps.windows(2) {
        let border = pair[0].1;
        ensure!(
            border == pair[1].0 && border.timestamp_subsec_nanos() == 0,
            "{gaps:?}"
        );
    }
    let (first, last) = (gaps[0], gaps[gaps.len() - 1]);
    ensure!(
        first.0 <= missed.0 && missed.1 <= last.1,
        "{gaps:?} {missed:?}"
    );
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

/// There is no look any more that could find it.
fn the_group_is_taken_away_at_the_stop() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(&rig, 1_000)?;
    let socket = copy_of_socket(&acctd)?;
    let start = Utc::now();
    group_socket::unbind(&socket, 5)?;
    let end = Utc::now();
    acctd.finish()?;
    ensure_counted(&rig, 1_000, 1_000)?;
    ensure_one_gap(&rig, "unbound", (start, end))
}

/// The kernel tells everyone whether a group is theirs, but only root whose it is.
fn acctd_may_not_read_the_table() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    set_mode(rig.scratch(), 0o777)?;
    let mut command = as_nobody_with(&rig, "+net_admin")?;
    command
        .args(ONE_INTERVAL)
        .arg("-priority=0")
        .arg("-log-directory")
        .arg(rig.log_directory());
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    send(&rig, 1_000)?;
    let missed = while_unbound(&acctd, || send(&rig, 500))?;
    acctd.wait_for_line("group 5 is not bound any more: somebody has unbound it")?;
    acctd.wait_for_line("Group 5 is bound again")?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_500)?;
    ensure_one_gap(&rig, "unbound", missed)
}

/// Neither takes it packets from the kernel nor questions from acctd: somebody has connected it to
/// another port. The group stays bound to it for as long as anybody has a copy, as a service manager
/// does, and this test.
fn the_socket_fails() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    send(&rig, 1_000)?;
    let socket = copy_of_socket(&acctd)?;
    let missed = while_stopped(&acctd, || {
        connect(&socket, &SocketAddrNetlink::new(1, 0))?;
        send(&rig, 500)
    })?;
    acctd.wait_for_line(
        "group 5 is not bound any more: its socket has failed: Connection refused",
    )?;
    acctd.wait_for_line("Group 5 is bound again")?;
    send(&rig, 2_000)?;
    // The new one alone.
    ensure!(manager.names()? == ["nflog-5"], "{:?}", manager.names());
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_500)?;
    ensure_one_gap(&rig, "unbound", missed)
}

fn the_group_was_taken_over() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let args = [ONE_INTERVAL, &["-checkpoint=100ms"]].concat();
    let acctd = rig.acctd(&args)?;
    send(&rig, 1_000)?;
    wait_until_saved(&rig.log_directory(), 1_000)?;
    let start = Utc::now();
    acctd.stop(Signal::KILL)?;
    let thief = start_elsewhere(&rig)?;
    let names = || -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(rig.log_directory())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != ".acctd-5.lock");
        names.sort();
        Ok(names)
    };
    let before = names()?;
    ensure!(before.len() == 1, "{before:?}");
    let taken = format!("group 5 is taken by pid {} (acctd)", thief.pid());
    for _ in 0..2 {
        fails(&rig, &args, 1, &taken)?;
        ensure!(names()? == before);
    }
    thief.finish()?;
    let end = Utc::now();
    let acctd = rig.acctd(&args)?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_000)?;
    ensure_one_gap(&rig, "killed", (start, end))
}

/// Root of the namespace may send to any netlink socket there that takes from others.
fn nobody_but_the_kernel_can_send() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    send(&rig, 1_000)?;
    let refusal = within(&rig.router, || {
        let instances = table::read()?;
        let port_id = instances.first().context("no instance")?.port_id;
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        let to = SocketAddrNetlink::new(port_id, 0);
        Ok(rustix::net::sendto(&socket, &[0; 64], SendFlags::empty(), &to).err())
    })?;
    ensure!(
        refusal == Some(rustix::io::Errno::CONNREFUSED),
        "{refusal:?}"
    );
    send(&rig, 1_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 2_000, 2_000)?;
    ensure!(rig.summed("malformed")? == 0);
    Ok(())
}

fn with_a_cross_check() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&[
        "-interval=1s",
        "-utc",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ])?;
    send(&rig, 1_000)?;
    while_unbound(&acctd, || send(&rig, 500))?;
    acctd.wait_for_line("Group 5 is bound again")?;
    send(&rig, 2_000)?;
    wait_for_files(&acctd, 2)?;
    acctd.finish()?;
    let mut not_checked = 0;
    for summary in rig.summaries()? {
        let verdicts = &summary["crosscheck"]["verdicts"];
        for alarm in ["uncovered", "extra"] {
            ensure!(verdicts[alarm]["prefixes"] == 0, "{summary}");
        }
        not_checked += verdicts["not_checked"]["packets"].as_u64().unwrap_or(0);
    }
    ensure!(not_checked == 500, "{not_checked}");
    ensure!(rig.summed("source_packets")? == 3_000);
    Ok(())
}
