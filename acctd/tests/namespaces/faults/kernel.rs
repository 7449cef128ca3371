//! The kernel's side of a group goes away, or somebody else has taken it.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::Duration;

use acctd::nflog_table;
use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xtask::netns::Namespace;
use xtask::nft::Count;
use xtask::process;
use xtask::traffic::TrafficArgs;

use crate::errors::fails;
use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, read_files, totals};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
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
        Needs::Namespace,
        "the_group_was_taken_over_while_acctd_was_down",
        the_group_was_taken_over,
    ),
    (
        Needs::Root,
        "the_namespace_of_the_group_is_deleted_and_made_again",
        the_namespace_is_made_again,
    ),
    (
        Needs::Root,
        "the_namespace_is_made_again_and_acctd_may_not_enter_it",
        acctd_may_not_enter,
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

const ONE_HOUR: &[&str] = &["-interval=1h", "-utc", "-ip4-src-group=5"];

fn send(rig: &Rig, count: u64) -> Result<()> {
    rig.send(&TrafficArgs {
        sources: 10,
        count,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    // Within its flush timeout the kernel hands over the last batch.
    thread::sleep(Duration::from_millis(1_100));
    Ok(())
}

/// A copy of acctd's socket of the group: only the owner's socket may unbind it.
fn copy_of_socket(acctd: &Acctd) -> Result<OwnedFd> {
    let pid = i32::try_from(acctd.pid())?;
    let pidfd = pidfd_open(Pid::from_raw(pid).context("a pid")?, PidfdFlags::empty())?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let number = entry?.file_name().to_string_lossy().parse()?;
        let Ok(copy) = pidfd_getfd(&pidfd, number, PidfdGetfdFlags::empty()) else {
            continue;
        };
        let is_netfilter = rustix::net::sockopt::socket_protocol(&copy)
            .is_ok_and(|protocol| protocol == Some(NETFILTER));
        if is_netfilter {
            return Ok(copy);
        }
    }
    Err(anyhow!("acctd has no socket of a group"))
}

/// `NFULNL_CFG_CMD_UNBIND` for group 5.
fn unbind(socket: &OwnedFd) -> Result<()> {
    let mut request = Vec::new();
    request.extend(28_u32.to_ne_bytes());
    request.extend(0x0401_u16.to_ne_bytes());
    request.extend(1_u16.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([0, 0, 0, 5]);
    request.extend(5_u16.to_ne_bytes());
    request.extend(1_u16.to_ne_bytes());
    request.extend([2, 0, 0, 0]);
    rustix::net::send(socket, &request, SendFlags::empty())?;
    Ok(())
}

/// Unbinds acctd's group behind its back. It does not run meanwhile, so that `work` is done while
/// the group is gone.
fn while_unbound(acctd: &Acctd, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let socket = copy_of_socket(acctd)?;
    acctd.signal(Signal::STOP)?;
    let done = unbind(&socket).and_then(|()| work());
    acctd.signal(Signal::CONT)?;
    done
}

fn ensure_one_gap(rig: &Rig, cause: &str) -> Result<()> {
    let summaries = rig.summaries()?;
    ensure!(summaries.len() == 1, "{summaries:?}");
    let gaps = summaries[0]["gaps"].as_array().context("no gaps")?;
    ensure!(
        gaps.len() == 1 && gaps[0]["cause"] == cause && gaps[0]["groups"][0] == 5,
        "{gaps:?}"
    );
    // No number is made up for it.
    ensure!(summaries[0]["lost"] == 0, "{summaries:?}");
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
    let acctd = rig.acctd(ONE_HOUR)?;
    send(&rig, 1_000)?;
    while_unbound(&acctd, || send(&rig, 500))?;
    acctd.wait_for_line("group 5 is not bound any more: somebody has unbound it")?;
    acctd.wait_for_line("Group 5 is bound again")?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_500)?;
    ensure_one_gap(&rig, "unbound")
}

fn the_group_is_taken_and_given_back() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_HOUR)?;
    send(&rig, 1_000)?;
    let elsewhere = rig.scratch().join("elsewhere");
    let mut thief = None;
    while_unbound(&acctd, || {
        let mut command = rig.router.command(rig.acctd_path());
        command.args(ONE_HOUR).arg("-log-directory").arg(&elsewhere);
        let started = Acctd::spawn(&mut command)?;
        started.wait_for_line("Started accounting")?;
        thief = Some(started);
        Ok(())
    })?;
    let thief = thief.context("it was started")?;
    let owner = format!("group 5 is taken by pid {} (acctd)", thief.pid());
    acctd.wait_for_line(&owner)?;
    send(&rig, 500)?;
    thief.finish()?;
    ensure!(totals(&read_files(&elsewhere)?, true).0.packets == 500);
    acctd.wait_for_line("Group 5 is bound again")?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_500)?;
    ensure_one_gap(&rig, "unbound")
}

fn the_group_was_taken_over() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let args = [ONE_HOUR, &["-checkpoint=100ms"]].concat();
    let acctd = rig.acctd(&args)?;
    send(&rig, 1_000)?;
    acctd.stop(Signal::KILL)?;
    let mut command = rig.router.command(rig.acctd_path());
    let elsewhere = rig.scratch().join("elsewhere");
    command.args(ONE_HOUR).arg("-log-directory").arg(&elsewhere);
    let thief = Acctd::spawn(&mut command)?;
    thief.wait_for_line("Started accounting")?;
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
    let acctd = rig.acctd(&args)?;
    send(&rig, 2_000)?;
    acctd.finish()?;
    ensure_counted(&rig, 3_000, 3_000)?;
    ensure_one_gap(&rig, "killed")
}

/// A namespace with a name, as `ip netns` makes them, gone when dropped.
pub(super) struct Named(String);

impl Named {
    pub(super) fn make() -> Result<Self> {
        let named = Self(format!("acctd-test-{}", std::process::id()));
        named.add()?;
        Ok(named)
    }

    fn add(&self) -> Result<()> {
        process::output(Command::new("ip").args(["netns", "add", &self.0]))?;
        self.run(&["ip", "link", "set", "lo", "up"])?;
        let rules = "table inet rig {
            counter v4 {}
            chain input {
                type filter hook input priority 0
                ip protocol icmp counter name v4 log group 5 snaplen 20 queue-threshold 50
            }
        }";
        self.run(&["nft", rules])?;
        Ok(())
    }

    fn delete(&self) -> Result<()> {
        process::output(Command::new("ip").args(["netns", "del", &self.0]))?;
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["netns", "exec", &self.0])
            .args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        process::output(&mut self.command(words))
    }

    /// So many requests and as many replies, of 84 bytes.
    fn ping(&self, count: u32) -> Result<()> {
        let count = count.to_string();
        self.run(&["ping", "-q", "-c", &count, "-i", "0.01", "127.0.0.1"])?;
        thread::sleep(Duration::from_millis(1_100));
        Ok(())
    }

    pub(super) fn acctd(&self, rig: &Rig, before: &[&str]) -> Result<Acctd> {
        let mut command = self.command(before);
        command
            .arg(rig.acctd_path())
            .args(ONE_HOUR)
            .arg("-log-directory")
            .arg(rig.log_directory());
        let acctd = Acctd::spawn(&mut command)?;
        acctd.wait_for_line("Started accounting")?;
        Ok(acctd)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // A test that failed in between has no namespace.
        let _gone = self.delete();
    }
}

fn the_namespace_is_made_again() -> Result<()> {
    let rig = Rig::new()?;
    let named = Named::make()?;
    let acctd = named.acctd(&rig, &[])?;
    named.ping(10)?;
    named.delete()?;
    acctd.wait_for_line("is gone: nothing more is logged there")?;
    // Twice, so that it is followed from one to the next.
    for round in 1..=2 {
        named.add()?;
        acctd.wait_for_line("deleted and made again")?;
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while acctd
            .log()
            .iter()
            .filter(|line| line.contains("is bound again"))
            .count()
            < round
        {
            ensure!(std::time::Instant::now() < end, "{:?}", acctd.log());
            thread::sleep(Duration::from_millis(20));
        }
        named.ping(10)?;
        if round == 1 {
            named.delete()?;
        }
    }
    acctd.finish()?;
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(
        (counted.packets, counted.bytes) == (60, 60 * 84),
        "{counted:?}"
    );
    let summaries = rig.summaries()?;
    let gaps = summaries[0]["gaps"].as_array().context("no gaps")?;
    ensure!(gaps.len() == 2, "{gaps:?}");
    Ok(())
}

fn acctd_may_not_enter() -> Result<()> {
    let rig = Rig::new()?;
    let named = Named::make()?;
    let acctd = named.acctd(&rig, &["setpriv", "--bounding-set=-sys_admin", "--"])?;
    named.ping(10)?;
    named.delete()?;
    named.add()?;
    let ended = acctd.wait()?;
    ensure!(ended.code == Some(1), "{:?}", ended.log);
    let error = ended.line("error: ")?;
    ensure!(
        error
            .contains("was deleted and made again, and cannot be entered: Operation not permitted")
            && error.contains("start acctd again"),
        "{error}"
    );
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(counted.packets == 20, "{counted:?}");
    Ok(())
}

/// Runs something on a thread that is in this network namespace.
fn within<T: Send>(namespace: &Namespace, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let network = File::open(format!("/proc/{}/ns/net", namespace.pid()))?;
    let done = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join()
    });
    done.map_err(|_panicked| anyhow!("the thread has panicked"))?
}

/// Root of the namespace may send to any netlink socket there that takes from others.
fn nobody_but_the_kernel_can_send() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_HOUR)?;
    send(&rig, 1_000)?;
    let refusal = within(&rig.router, || {
        let instances = nflog_table::read()?;
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
    thread::sleep(Duration::from_secs(2));
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
