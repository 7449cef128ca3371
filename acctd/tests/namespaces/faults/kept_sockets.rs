//! What a service manager has kept: acctd goes on with its own, also when it was killed, and refuses the rest.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::netlink::NETFILTER;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use testkit::group_socket;

use super::kernel::{copy_of_socket, span};
use super::manager::Manager;
use super::restart::{NOTE, ONE_INTERVAL, ONE_SECOND, send};
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::{wait_until, wait_until_kept};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Alone(&Needs::Namespace),
        "killed_with_its_sockets_kept_what_waits_is_in_its_own_interval",
        || killed_with_its_sockets_kept(|_| Ok(())),
    ),
    (
        Needs::Alone(&Needs::Root),
        "killed_before_it_reads_an_answer_of_the_kernel_what_waits_is_in_its_own_interval",
        || {
            killed_with_its_sockets_kept(|acctd| {
                let socket = copy_of_socket(acctd)?;
                acctd.signal(Signal::STOP)?;
                // To what it is.
                group_socket::set_threshold(&socket, 5, 16_383)
            })
        },
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "killed_with_its_sockets_kept_the_interval_goes_on_from_its_checkpoint",
        killed_with_a_checkpoint,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "a_descriptor_that_is_not_the_groups_socket_is_refused",
        a_foreign_descriptor,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "a_note_that_is_damaged_or_foreign_is_not_used",
        a_damaged_note,
    ),
];

fn killed_with_its_sockets_kept(before: fn(&Acctd) -> Result<()>) -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, ONE_SECOND)?;
    send(&rig, 1_000, 0)?;
    // Its file is there, so nothing of it is lost.
    wait_until("its file is there", || {
        Ok(rig
            .summed("source_packets")
            .is_ok_and(|packets| packets == 1_000))
    })?;
    before(&acctd)?;
    acctd.stop(Signal::KILL)?;
    send(&rig, 3_000, 1_000)?;
    let acctd = manager.start(&rig, ONE_SECOND)?;
    acctd.wait_for_line("Group 5 continues")?;
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    let files = rig.files()?;
    ensure!(ip4.packets == 4_000 && totals(&files, true) == (ip4, NONE));
    ensure!(rig.summed("lost")? == 0 && rig.summed("late")? == 0);
    // Three seconds of traffic touch four intervals, with no more than about a second's in one.
    let n_packets: Vec<u64> = files
        .iter()
        .map(|file| totals(std::slice::from_ref(file), true).0.packets)
        .filter(|packets| *packets > 0)
        .collect();
    ensure!(n_packets.len() >= 4, "{n_packets:?}");
    ensure!(
        n_packets.iter().all(|packets| *packets <= 2_000),
        "{n_packets:?}"
    );
    Ok(())
}

fn killed_with_a_checkpoint() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let args = [ONE_SECOND, &["-checkpoint=100ms"]].concat();
    let mut acctd = manager.start(&rig, &args)?;
    // Since when each may have been killed, and until when the next may not have run.
    let mut pauses = Vec::new();
    for round in 0..5 {
        send(&rig, 1_000, 0)?;
        wait_until_kept(&rig, 1_500 * round + 1_000)?;
        let killed = Utc::now();
        acctd.stop(Signal::KILL)?;
        send(&rig, 500, 0)?;
        // Over the end of the interval, too.
        thread::sleep(Duration::from_millis(700));
        acctd = manager.start(&rig, &args)?;
        pauses.push((killed, Utc::now()));
    }
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    let files = rig.files()?;
    ensure!(ip4.packets == 7_500 && totals(&files, true) == (ip4, NONE));
    ensure!(rig.summed("lost")? == 0 && rig.summed("late")? == 0);
    let mut summaries = rig.summaries()?;
    summaries.sort_by_key(|summary| summary["start"].to_string());
    for pair in summaries.windows(2) {
        let ((_, end), (start, _)) = (span(&pair[0])?, span(&pair[1])?);
        // A busy machine may take so long to send and to start that no acctd has run in an interval.
        let is_after_a_gap = pair[1]["gaps"][0]["start"] == pair[1]["start"];
        let has_paused = |(killed, started): &_| *killed <= end && start <= *started;
        ensure!(
            end == start || is_after_a_gap && pauses.iter().any(has_paused),
            "{pair:?}, {pauses:?}"
        );
    }
    // How much was read and not saved nobody knows.
    let gaps = summaries.iter().filter_map(|line| line["gaps"].as_array());
    ensure!(gaps.flatten().count() >= 5, "{summaries:?}");
    Ok(())
}

fn netlink_socket() -> Result<OwnedFd> {
    Ok(rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(NETFILTER),
    )?)
}

fn a_foreign_descriptor() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let (pipe, _other_end) = pipe_with(PipeFlags::CLOEXEC)?;
    manager.told()?.store.push(("nflog-5".to_owned(), pipe));
    manager
        .told()?
        .store
        .push(("nflog-5".to_owned(), netlink_socket()?));
    let file = fs::File::open("/dev/null")?;
    manager
        .told()?
        .store
        .push(("stored".to_owned(), file.into()));
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    acctd.wait_for_line("has kept is not used: it is not a netfilter socket")?;
    acctd.wait_for_line("has kept is not used: No such device")?;
    acctd.wait_for_line("Closed stored, which the service manager had stored")?;
    ensure!(manager.names()? == ["nflog-5"]);
    send(&rig, 500, 0)?;
    manager.end_for_restart(acctd)?;
    // One group's under the name of another's.
    let acctd = manager.start(&rig, &["-interval=36500d", "-utc", "-ip4-src-group=5,6"])?;
    send(&rig, 500, 0)?;
    manager.end_for_restart(acctd)?;
    let swapped = |name: &str| match name {
        "nflog-5" => "nflog-6".to_owned(),
        "nflog-6" => "nflog-5".to_owned(),
        other => other.to_owned(),
    };
    for (name, _) in &mut manager.told()?.store {
        *name = swapped(name);
    }
    let acctd = manager.start(&rig, ONE_INTERVAL)?;
    acctd.wait_for_line("has kept is not used: No such device")?;
    ensure!(manager.names()? == ["nflog-5"]);
    send(&rig, 500, 0)?;
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == 1_500 && totals(&rig.files()?, true) == (ip4, NONE));
    // What was logged while the group was not bound nobody knows.
    let summaries = rig.summaries()?;
    let last = summaries.last().context("a line")?;
    let gap = &last["gaps"][0];
    ensure!(gap["cause"] == "unbound" && gap["groups"][0] == 5, "{last}");
    ensure!(gap["start"] == last["start"], "{last}");
    Ok(())
}

fn note_of(bytes: &[u8]) -> Result<OwnedFd> {
    let note = rustix::fs::memfd_create("note", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = fs::File::from(note);
    file.write_all(bytes)?;
    rustix::fs::fcntl_add_seals(
        file.as_fd(),
        SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK,
    )?;
    Ok(file.into())
}

fn a_damaged_note() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let mut acctd = manager.start(&rig, ONE_INTERVAL)?;
    let (pipe, _other_end) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut pipe = Some(pipe);
    for complaint in [
        "its checksum does not match",
        "it is of another program or version",
        "it is not sealed memory",
    ] {
        manager.end_for_restart(acctd)?;
        let mut told = manager.told()?;
        let at = told.store.iter().position(|(name, _)| name == NOTE);
        let (_, note) = told.store.remove(at.context("a note")?);
        drop(told);
        let file = fs::File::from(note);
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
        file.read_exact_at(&mut bytes, 0)?;
        let damaged = match complaint {
            "its checksum does not match" => {
                bytes.truncate(bytes.len() - 1);
                note_of(&bytes)?
            }
            "it is of another program or version" => {
                bytes[0] ^= 1;
                note_of(&bytes)?
            }
            _ => pipe.take().context("once")?,
        };
        manager.told()?.store.push((NOTE.to_owned(), damaged));
        send(&rig, 500, 0)?;
        acctd = manager.start(&rig, ONE_INTERVAL)?;
        acctd.wait_for_line(complaint)?;
        ensure!(manager.names()? == ["nflog-5"]);
    }
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == 1_500 && totals(&rig.files()?, true) == (ip4, NONE));
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}
