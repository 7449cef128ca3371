//! acctd is restarted by a service manager that keeps its sockets: no packet is lost.

use std::collections::BTreeSet;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::Signal;
use xtask::traffic::TrafficArgs;

use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, ensure_contiguous, totals};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "ten_restarts_with_the_sockets_kept_lose_none_of_500000_packets",
        ten_restarts,
    ),
    (
        Needs::Root,
        "an_overflow_during_a_restart_is_counted_to_the_packet",
        an_overflow_during_a_restart,
    ),
    (
        Needs::Root,
        "killed_with_the_sockets_kept_what_was_queued_is_counted",
        killed_with_the_sockets_kept,
    ),
    (
        Needs::Root,
        "descriptors_and_state_that_are_not_acctds_are_refused",
        what_is_not_acctds,
    ),
    (
        Needs::Root,
        "a_stop_that_no_start_follows_frees_the_groups",
        a_real_stop,
    ),
    (
        Needs::Root,
        "a_restart_with_a_cross_check_raises_no_alarm",
        with_a_cross_check,
    ),
];

/// A service manager as far as acctd sees one: `NOTIFY_SOCKET`, the file descriptor store, `LISTEN_FDS`.
struct Manager {
    path: PathBuf,
    state: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    /// Names and descriptors; the same descriptor twice is one.
    store: Vec<(String, OwnedFd)>,
    /// READY, STOPPING.
    words: BTreeSet<String>,
}

impl Manager {
    fn new(rig: &Rig) -> Result<Self> {
        let path = rig.scratch().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        let state: Arc<Mutex<Told>> = Arc::default();
        let told = Arc::clone(&state);
        // Ends with the test program.
        thread::spawn(move || {
            while let Ok((message, descriptors)) = receive(&socket) {
                told.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take_in(&message, descriptors);
            }
        });
        Ok(Self { path, state })
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .told()
            .store
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }

    /// Starts acctd with all that is in the store, from descriptor 3 on.
    fn start(&self, rig: &Rig, args: &[&str]) -> Result<Acctd> {
        let told = self.told();
        let names: Vec<&str> = told.store.iter().map(|(name, _)| name.as_str()).collect();
        let numbers = told.store.iter().map(|(_, fd)| fd.as_raw_fd().to_string());
        // First to numbers where none of them is, so that none is lost on the way.
        let numbers: Vec<String> = numbers.collect();
        let away = (0..)
            .zip(&numbers)
            .map(|(n, from)| format!("{}<&{from}", 200 + n));
        let back = (0..numbers.len()).map(|n| format!("{}<&{}- ", 3 + n, 200 + n));
        let script = format!(
            "exec {}; exec {}; LISTEN_PID=$$ exec \"$0\" \"$@\"",
            away.collect::<Vec<_>>().join(" "),
            back.collect::<Vec<_>>().join(" "),
        );
        let mut command = rig.router.command("bash");
        command
            .args(["-c", &script])
            .arg(rig.acctd_path())
            .arg("-log-directory")
            .arg(rig.log_directory())
            .args(args)
            .env("NOTIFY_SOCKET", &self.path)
            .env("LISTEN_FDS", numbers.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"));
        for (_, fd) in &told.store {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let spawned = Acctd::spawn(&mut command);
        for (_, fd) in &told.store {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        drop(told);
        let acctd = spawned?;
        acctd.wait_for_line("Started accounting")?;
        Ok(acctd)
    }

    fn wait_for(&self, name: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.names().iter().any(|kept| kept == name) {
            ensure!(Instant::now() < end, "{name} was not stored");
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Told {
    fn take_in(&mut self, message: &str, descriptors: Vec<OwnedFd>) {
        let value = |key: &str| {
            let mut lines = message.lines();
            lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let name = value("FDNAME").unwrap_or("stored").to_owned();
        if value("FDSTORE") == Some("1") {
            self.store
                .extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
        } else if value("FDSTOREREMOVE") == Some("1") {
            self.store.retain(|(kept, _)| *kept != name);
        }
        for word in ["READY", "STOPPING"] {
            if value(word) == Some("1") {
                self.words.insert(word.to_owned());
            }
        }
        // The descriptor of BARRIER=1 is closed with the rest of them.
    }
}

fn receive(socket: &UnixDatagram) -> Result<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket.as_fd(),
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let message = String::from_utf8_lossy(&bytes[..received.bytes]).into_owned();
    Ok((message, descriptors))
}

const ARGS: &[&str] = &["-interval=1s", "-utc", "-ip4-src-group=5"];

fn ten_restarts() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let mut acctd = manager.start(&rig, ARGS)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 1_000,
        count: 500_000,
        rate: 25_000,
        ..rig.traffic("10.0.0.0/16", "172.16.0.1/32")?
    })?;
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(370));
        acctd.finish()?;
        ensure!(manager.names() == ["acctd-state", "nflog-5"]);
        acctd = manager.start(&rig, ARGS)?;
        acctd.wait_for_line("Group 5 was kept bound since the last run")?;
    }
    traffic.finish()?;
    thread::sleep(Duration::from_millis(1_200));
    acctd.finish()?;
    let ip4 = rig.counter("v4")?;
    let files = rig.files()?;
    ensure!(ip4.packets == 500_000, "{ip4:?}");
    ensure!(
        totals(&files, true) == (ip4, NONE),
        "{:?}",
        totals(&files, true)
    );
    ensure!(rig.summed("lost")? == 0 && rig.summed("overruns")? == 0);
    ensure_contiguous(&files)?;
    let told = manager.told();
    ensure!(told.words.len() == 2, "{:?}", told.words);
    eprintln!(
        "ten restarts under 25000 packets/s: {} files, {} of {} packets, {} late",
        files.len(),
        totals(&files, true).0.packets,
        ip4.packets,
        rig.summed("late")?
    );
    Ok(())
}

fn an_overflow_during_a_restart() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let load = TrafficArgs {
        sources: 1_000,
        count: 1_000,
        ..rig.traffic("10.0.0.0/16", "172.16.0.1/32")?
    };
    let acctd = manager.start(&rig, ARGS)?;
    rig.send(&load)?;
    acctd.finish()?;
    // More than the socket has room for, while nobody reads it.
    rig.send(&TrafficArgs {
        count: 1_000_000,
        ..load.clone()
    })?;
    let acctd = manager.start(&rig, ARGS)?;
    // The gap shows with the packet behind it.
    thread::sleep(Duration::from_millis(300));
    rig.send(&load)?;
    acctd.finish()?;
    let (counted, _) = totals(&rig.files()?, true);
    let (lost, ip4) = (rig.summed("lost")?, rig.counter("v4")?);
    ensure!(lost > 0 && ip4.packets == 1_002_000);
    ensure!(
        counted.packets + lost == ip4.packets,
        "{} in rows and {lost} lost are not {}",
        counted.packets,
        ip4.packets
    );
    Ok(())
}

fn killed_with_the_sockets_kept() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let args = [ARGS, &["-checkpoint=100ms"]].concat();
    let send = |count| -> Result<()> {
        rig.send(&TrafficArgs {
            sources: 10,
            count,
            ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
        })?;
        // All is read, and saved.
        thread::sleep(Duration::from_millis(300));
        Ok(())
    };
    let mut acctd = manager.start(&rig, &args)?;
    for _ in 0..5 {
        manager.wait_for("nflog-5")?;
        send(1_000)?;
        acctd.stop(Signal::KILL)?;
        // Over the end of an interval, too.
        send(500)?;
        thread::sleep(Duration::from_millis(400));
        acctd = manager.start(&rig, &args)?;
    }
    acctd.finish()?;
    let ip4 = rig.counter("v4")?;
    let files = rig.files()?;
    ensure!(ip4.packets == 7_500, "{ip4:?}");
    ensure!(totals(&files, true) == (ip4, NONE), "{files:?}");
    // How much was read and not saved nobody knows.
    let summaries = rig.summaries()?;
    let gaps = summaries
        .iter()
        .filter(|summary| summary["gaps"].is_array());
    ensure!(gaps.count() >= 5, "{summaries:?}");
    Ok(())
}

fn what_is_not_acctds() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, &["-interval=1h", "-ip4-src-group=5,9"])?;
    acctd.finish()?;
    ensure!(manager.names() == ["acctd-state", "nflog-5", "nflog-9"]);
    {
        let mut told = manager.told();
        let file = || -> Result<OwnedFd> { Ok(tempfile::tempfile()?.into()) };
        let (mine, theirs) = UnixDatagram::pair()?;
        for (name, fd) in &mut told.store {
            match name.as_str() {
                "acctd-state" => *fd = file()?,
                // Its own one is closed here, so the group is free.
                "nflog-5" => *fd = mine.as_fd().try_clone_to_owned()?,
                _ => {}
            }
        }
        told.store.push(("somebody's".to_owned(), theirs.into()));
    }
    // Group 9 is not configured any more, 5 has a socket of another kind.
    let acctd = manager.start(&rig, &["-interval=1h", "-ip4-src-group=5"])?;
    acctd.wait_for_line("the state of the last run is not used: it is of another program")?;
    acctd.wait_for_line("the socket kept for group 5 is not used")?;
    acctd.wait_for_line("group 9 was read before and is not any more")?;
    acctd.wait_for_line("descriptor \"somebody's\" from the service manager is not acctd's")?;
    manager.wait_for("nflog-5")?;
    rig.send(&TrafficArgs {
        count: 1_000,
        ..rig.traffic("10.0.0.1/32", "172.16.0.1/32")?
    })?;
    acctd.finish()?;
    ensure!(manager.names() == ["acctd-state", "nflog-5"]);
    ensure!(totals(&rig.files()?, true) == (rig.counter("v4")?, NONE));
    Ok(())
}

fn a_real_stop() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, &["-interval=1h", "-ip4-src-group=5"])?;
    // Fewer than the threshold: the kernel holds them back for a second.
    rig.send(&TrafficArgs {
        count: 10,
        ..rig.traffic("10.0.0.1/32", "172.16.0.1/32")?
    })?;
    let ended = acctd.finish()?;
    ensure!(
        ended.took < Duration::from_millis(1_500),
        "{:?}",
        ended.took
    );
    ensure!(totals(&rig.files()?, true) == (rig.counter("v4")?, NONE));
    manager.told().store.clear();
    rig.acctd(&["-interval=1h", "-ip4-src-group=5"])?.finish()?;
    Ok(())
}

fn with_a_cross_check() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let args = [ARGS, &["-crosscheck=lan0"]].concat();
    let mut acctd = manager.start(&rig, &args)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 1_000,
        count: 100_000,
        rate: 10_000,
        ..rig.traffic("10.0.0.0/16", "172.16.0.1/32")?
    })?;
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(1_700));
        acctd.finish()?;
        acctd = manager.start(&rig, &args)?;
    }
    traffic.finish()?;
    thread::sleep(Duration::from_millis(300));
    acctd.finish()?;
    let mut n_match = 0;
    for summary in rig.summaries()? {
        let verdicts = &summary["crosscheck"]["verdicts"];
        for alarm in ["uncovered", "extra", "lost"] {
            ensure!(verdicts[alarm]["prefixes"] == 0, "{summary}");
        }
        n_match += verdicts["match"]["prefixes"].as_u64().context("match")?;
    }
    ensure!(n_match > 0, "nothing was checked");
    ensure!(rig.summed("source_packets")? == 100_000);
    Ok(())
}
