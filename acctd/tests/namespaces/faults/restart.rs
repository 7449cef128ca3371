//! acctd is restarted by a service manager that keeps its sockets: no packet is lost.

use std::fmt::Write as _;
use std::fs;
use std::io::{IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use acctd::nflog::table::{self, Instance};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::netlink::NETFILTER;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
};
use rustix::process::Signal;
use serde_json::Value;
use testkit::group_socket;
use testkit::netns::Privilege;
use testkit::traffic::TrafficArgs;

use super::kernel::copy_of_socket;
use crate::rig::{Acctd, Ended, LATE_LOG_AND_DROP, LOG_AND_DROP, NONE, Rig, totals};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "restarted_ten_times_under_traffic_no_packet_is_lost",
        restarted_ten_times,
    ),
    (
        Needs::Root,
        "restarted_too_slowly_for_the_traffic_the_loss_is_exact",
        restarted_too_slowly,
    ),
    (
        Needs::Root,
        "restarted_without_the_right_to_read_the_kernels_table_no_packet_is_lost",
        restarted_without_the_table,
    ),
    (
        Needs::Root,
        "restarted_with_a_cross_check_there_is_no_false_verdict",
        restarted_with_a_cross_check,
    ),
    (
        Needs::Namespace,
        "restarted_without_a_group_its_socket_is_let_go",
        restarted_without_a_group,
    ),
    (
        Needs::Namespace,
        "restarted_after_a_start_that_was_refused_nothing_is_lost",
        restarted_after_a_refusal,
    ),
    (
        Needs::Namespace,
        "restarted_without_a_service_manager_is_a_stop",
        restarted_without_a_manager,
    ),
    (
        Needs::Namespace,
        "restarted_after_an_overrun_what_is_lost_is_complete_only_if_a_packet_shows_it",
        restarted_after_an_overrun,
    ),
    (
        Needs::Namespace,
        "stopped_for_good_nothing_is_kept_and_nothing_lost",
        stopped_for_good,
    ),
    (
        Needs::Namespace,
        "killed_with_its_sockets_kept_what_waits_is_in_its_own_interval",
        || killed_with_its_sockets_kept(|_| Ok(())),
    ),
    (
        Needs::Root,
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
        Needs::Namespace,
        "killed_with_its_sockets_kept_the_interval_goes_on_from_its_checkpoint",
        killed_with_a_checkpoint,
    ),
    (
        Needs::Namespace,
        "a_descriptor_that_is_not_the_groups_socket_is_refused",
        a_foreign_descriptor,
    ),
    (
        Needs::Namespace,
        "a_note_that_is_damaged_or_foreign_is_not_used",
        a_damaged_note,
    ),
];

const NOTE: &str = "acctd-state";

/// The part of a service manager that keeps descriptors, as systemd does it: it takes messages from a
/// datagram socket, and hands over at each start what it holds.
pub(super) struct Manager {
    path: PathBuf,
    told: Arc<Mutex<Told>>,
    /// Marks that were sent.
    n_marks: AtomicU64,
}

#[derive(Default)]
struct Told {
    store: Vec<(String, OwnedFd)>,
    /// The messages that had no descriptors to do with.
    words: Vec<String>,
    /// The last mark that came.
    mark: u64,
    /// Something was not as it should be.
    complaint: Option<String>,
}

/// Sent by the test itself, with its number.
const MARK: &str = "MARK=";

impl Manager {
    pub(super) fn new(rig: &Rig) -> Result<Self> {
        let path = rig.scratch().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        let told: Arc<Mutex<Told>> = Arc::default();
        let listener = Arc::clone(&told);
        // Ends with the test program.
        thread::spawn(move || {
            while let Ok((message, fds)) = receive(&socket) {
                let mut told = listener.lock().unwrap_or_else(PoisonError::into_inner);
                if let Err(error) = told.take_in(&message, fds) {
                    told.complaint = Some(format!("{message}: {error}"));
                }
            }
        });
        let n_marks = AtomicU64::new(0);
        Ok(Self {
            path,
            told,
            n_marks,
        })
    }

    /// Starts acctd and waits until it counts.
    pub(super) fn start(&self, rig: &Rig, args: &[&str]) -> Result<Acctd> {
        self.start_under(rig, &[], args)
    }

    /// `wrapper` is a command line that starts what follows it.
    fn start_under(&self, rig: &Rig, wrapper: &[&str], args: &[&str]) -> Result<Acctd> {
        let acctd = self.start_unready(rig, wrapper, args)?;
        acctd.wait_for_line("Started accounting")?;
        let end = Instant::now() + Duration::from_secs(10);
        while !self.told()?.words.iter().any(|word| word == "READY=1") {
            ensure!(Instant::now() < end, "acctd does not say that it is ready");
        }
        Ok(acctd)
    }

    fn start_unready(&self, rig: &Rig, wrapper: &[&str], args: &[&str]) -> Result<Acctd> {
        let mut told = self.told()?;
        told.words.clear();
        // First to numbers where none of them is, so that none is overwritten on the way; and the process
        // that has this pid becomes acctd.
        let numbers: Vec<i32> = told.store.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        let mut script = String::new();
        for (away, number) in (200..).zip(&numbers) {
            write!(script, "exec {away}<&{number} {number}<&-; ")?;
        }
        for (at, away) in (3..).zip(200..).take(numbers.len()) {
            write!(script, "exec {at}<&{away} {away}<&-; ")?;
        }
        script.push_str("LISTEN_PID=$$ exec \"$@\"");
        let mut command = rig.router.command("bash");
        command.args(["-c", &script, "bash"]);
        command.args(wrapper).arg(rig.acctd_path());
        command.arg("-log-directory").arg(rig.log_directory());
        command.args(args).env("NOTIFY_SOCKET", &self.path);
        let names: Vec<&str> = told.store.iter().map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            command.env("LISTEN_FDS", names.len().to_string());
            command.env("LISTEN_FDNAMES", names.join(":"));
        }
        for (_, fd) in &told.store {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let spawned = Acctd::spawn(&mut command);
        for (_, fd) in &told.store {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        spawned
    }

    /// Ends acctd as for a restart; all must be well.
    fn end_for_restart(&self, acctd: Acctd) -> Result<Ended> {
        self.end(acctd, Signal::USR2)
    }

    fn end(&self, acctd: Acctd, signal: Signal) -> Result<Ended> {
        let ended = acctd.stop(signal)?;
        ensure!(ended.code == Some(0), "{:?}", ended.log);
        let told = self.told()?;
        ensure!(
            told.words.last().is_some_and(|word| word == "STOPPING=1"),
            "{:?}",
            told.words
        );
        Ok(ended)
    }

    pub(super) fn names(&self) -> Result<Vec<String>> {
        let told = self.told()?;
        let mut names: Vec<String> = told.store.iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// All that was sent until now is taken in.
    fn told(&self) -> Result<MutexGuard<'_, Told>> {
        let marker = UnixDatagram::unbound()?;
        let mark = self.n_marks.fetch_add(1, Ordering::Relaxed) + 1;
        marker.send_to(format!("{MARK}{mark}").as_bytes(), &self.path)?;
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(complaint) = told.complaint.take() {
                bail!("{complaint}");
            }
            if told.mark >= mark {
                return Ok(told);
            }
            drop(told);
            ensure!(Instant::now() < end, "the manager's thread has ended");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Told {
    fn take_in(&mut self, message: &str, fds: Vec<OwnedFd>) -> Result<()> {
        let lines: Vec<&str> = message.lines().collect();
        let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
        if lines.contains(&"FDSTORE=1") {
            ensure!(lines.contains(&"FDPOLL=0"), "an overrun would end it");
            let name = name.context("a descriptor without a name")?;
            for fd in fds {
                // What it holds already it does not take again, whatever its name.
                if !self.store.iter().any(|(_, held)| is_same(held, &fd)) {
                    self.store.push((name.to_owned(), fd));
                }
            }
        } else if lines.contains(&"FDSTOREREMOVE=1") {
            let name = name.context("nothing to remove")?;
            self.store.retain(|(held, _)| held != name);
        } else if lines.contains(&"BARRIER=1") {
            ensure!(fds.len() == 1, "a pipe to close");
        } else if let Some(mark) = message.strip_prefix(MARK) {
            self.mark = mark.parse()?;
        } else {
            ensure!(fds.is_empty(), "descriptors for nothing");
            self.words.push(message.trim_end().to_owned());
        }
        Ok(())
    }
}

fn receive(socket: &UnixDatagram) -> Result<(String, Vec<OwnedFd>)> {
    let mut text = [0; 1_024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((
        String::from_utf8_lossy(&text[..received.bytes]).into_owned(),
        fds,
    ))
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let identity = |fd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    identity(one).is_ok_and(|one| identity(other) == Ok(one))
}

const ONE_SECOND: &[&str] = &["-interval=1s", "-utc", "-ip4-src-group=5"];
const ONE_HOUR: &[&str] = &["-interval=1h", "-utc", "-ip4-src-group=5"];

fn send(rig: &Rig, count: u64, rate: u32) -> Result<()> {
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
    const PACKETS: u64 = 500_000;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let mut acctd = manager.start(&rig, ONE_SECOND)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 1_000,
        count: PACKETS,
        rate: 50_000,
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
    ensure!(
        rig.counter("v4")?.packets < PACKETS,
        "the traffic has ended too early"
    );
    traffic.finish()?;
    manager.end(acctd, Signal::TERM)?;
    ensure_all_is_counted(&rig, PACKETS)?;
    let late = rig.summed("late")?;
    eprintln!(
        "restarted ten times in {} files: 0 of {PACKETS} packets lost, {late} late; {longest:?} from a signal to the next start at most",
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
    let acctd = manager.start(&rig, ONE_HOUR)?;
    send(&rig, 10_000, 0)?;
    manager.end_for_restart(acctd)?;
    // More than the socket holds, at full speed.
    send(&rig, 2_000_000, 0)?;
    let acctd = manager.start(&rig, ONE_HOUR)?;
    // The loss shows with the next packet: here, to yet another process.
    manager.end_for_restart(acctd)?;
    let acctd = manager.start(&rig, ONE_HOUR)?;
    send(&rig, 10_000, 0)?;
    manager.end(acctd, Signal::TERM)?;
    let sent = rig.counter("v4")?.packets;
    ensure!(sent == 2_020_000);
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
        let acctd = manager.start_under(&rig, WITH_THE_CAPABILITY_ALONE, ONE_HOUR)?;
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
        acctd.wait_for_line("Group 5 goes on")?;
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
        count: 100_000,
        rate: 10_000,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    let with_cross_check = [ONE_SECOND, &["-crosscheck=lan0"]].concat();
    let mut n_not_checked = 0;
    for _ in 0..3 {
        manager.end_for_restart(acctd)?;
        thread::sleep(Duration::from_millis(300));
        acctd = manager.start(&rig, &with_cross_check)?;
        ensure!(flush_timeout()? == 10);
        thread::sleep(Duration::from_millis(2_300));
        n_not_checked += 1;
    }
    traffic.finish()?;
    let ended = manager.end(acctd, Signal::TERM)?;
    for alarm in ["uncovered", "extra"] {
        ensure!(ended.line(alarm).is_err(), "{:?}", ended.log);
    }
    ensure_checked_counted(&rig, 100_000)?;
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
    let both = [ONE_HOUR, &["-ip6-src-group=7"]].concat();
    let acctd = manager.start(&rig, &both)?;
    ensure!(manager.names()? == ["nflog-5", "nflog-7"]);
    send(&rig, 500, 0)?;
    manager.end_for_restart(acctd)?;
    send(&rig, 500, 0)?;
    let acctd = manager.start(&rig, ONE_HOUR)?;
    acctd.wait_for_line("nflog-7, which is not asked for any more")?;
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
    let acctd = manager.start(&rig, ONE_HOUR)?;
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
    let both = [ONE_HOUR, &["-ip6-src-group=7"]].concat();
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
    let acctd = rig.acctd(ONE_HOUR)?;
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
        let acctd = manager.start(&rig, ONE_HOUR)?;
        acctd.signal(Signal::STOP)?;
        // In whole batches, so that none follows by itself.
        send(&rig, 1_000_000, 0)?;
        acctd.signal(Signal::CONT)?;
        acctd.wait_for_line("the socket has overflowed")?;
        manager.end_for_restart(acctd)?;
        let acctd = manager.start(&rig, ONE_HOUR)?;
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
        let acctd = manager.start(&rig, ONE_HOUR)?;
        send(&rig, 10, 0)?;
        let ended = manager.end(acctd, signal)?;
        ensure!(ended.took < Duration::from_secs(1), "took {:?}", ended.took);
        ensure!(manager.names()?.is_empty());
        let (counted, _) = totals(&rig.files()?, true);
        ensure!(counted.packets == 10 * round, "{counted:?}");
    }
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

fn killed_with_its_sockets_kept(before: fn(&Acctd) -> Result<()>) -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let manager = Manager::new(&rig)?;
    let acctd = manager.start(&rig, ONE_SECOND)?;
    send(&rig, 1_000, 0)?;
    // Its file is there, so nothing of it is lost.
    let end = Instant::now() + Duration::from_secs(10);
    while !rig.log_directory().join("intervals.jsonl").exists()
        || rig.summed("source_packets")? < 1_000
    {
        ensure!(Instant::now() < end, "no file");
        thread::sleep(Duration::from_millis(20));
    }
    before(&acctd)?;
    acctd.stop(Signal::KILL)?;
    send(&rig, 3_000, 1_000)?;
    let acctd = manager.start(&rig, ONE_SECOND)?;
    acctd.wait_for_line("Group 5 goes on")?;
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    let files = rig.files()?;
    ensure!(ip4.packets == 4_000 && totals(&files, true) == (ip4, NONE));
    ensure!(rig.summed("lost")? == 0 && rig.summed("late")? == 0);
    // Three seconds of traffic touch four intervals, with no more than a second's in one.
    let n_packets: Vec<u64> = files
        .iter()
        .map(|file| totals(std::slice::from_ref(file), true).0.packets)
        .filter(|packets| *packets > 0)
        .collect();
    ensure!(n_packets.len() >= 4, "{n_packets:?}");
    ensure!(
        n_packets.iter().all(|packets| *packets <= 1_050),
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
    for _ in 0..5 {
        send(&rig, 1_000, 0)?;
        // All of it is read, and saved.
        thread::sleep(Duration::from_millis(300));
        acctd.stop(Signal::KILL)?;
        send(&rig, 500, 0)?;
        // Over the end of the interval, too.
        thread::sleep(Duration::from_millis(700));
        acctd = manager.start(&rig, &args)?;
    }
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    let files = rig.files()?;
    ensure!(ip4.packets == 7_500 && totals(&files, true) == (ip4, NONE));
    ensure!(rig.summed("lost")? == 0 && rig.summed("late")? == 0);
    let mut summaries = rig.summaries()?;
    summaries.sort_by_key(|summary| summary["start"].to_string());
    for pair in summaries.windows(2) {
        ensure!(pair[0]["end"] == pair[1]["start"], "{pair:?}");
    }
    // How much was read and not saved nobody knows.
    let gaps = summaries.iter().filter(|line| line["gaps"].is_array());
    ensure!(gaps.count() >= 5, "{summaries:?}");
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
    let (pipe, _other_end) = rustix::pipe::pipe()?;
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
    let acctd = manager.start(&rig, ONE_HOUR)?;
    acctd.wait_for_line("has kept is not used: it is no netfilter socket")?;
    acctd.wait_for_line("has kept is not used: No such device")?;
    acctd.wait_for_line("stored, which is not asked for any more")?;
    ensure!(manager.names()? == ["nflog-5"]);
    send(&rig, 500, 0)?;
    manager.end_for_restart(acctd)?;
    // One group's under the name of another's.
    let acctd = manager.start(&rig, &["-interval=1h", "-utc", "-ip4-src-group=5,6"])?;
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
    let acctd = manager.start(&rig, ONE_HOUR)?;
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
    let mut acctd = manager.start(&rig, ONE_HOUR)?;
    let (pipe, _other_end) = rustix::pipe::pipe()?;
    let mut pipe = Some(pipe);
    for complaint in [
        "its checksum does not match",
        "it is of another program or version",
        "it is no sealed memory",
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
        acctd = manager.start(&rig, ONE_HOUR)?;
        acctd.wait_for_line(complaint)?;
        ensure!(manager.names()? == ["nflog-5"]);
    }
    manager.end(acctd, Signal::TERM)?;
    let ip4 = rig.counter("v4")?;
    ensure!(ip4.packets == 1_500 && totals(&rig.files()?, true) == (ip4, NONE));
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}
