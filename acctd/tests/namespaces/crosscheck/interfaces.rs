//! Interfaces that are not there at the start, are moved or renamed, and programs of somebody else's that
//! are put in front of acctd's, or detach them: accounting goes on, no alarm is raised, and acctd is back in
//! its place.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::EbpfLoader;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use testkit::netns::Namespace;
use testkit::veth::Veth;

use super::attaching::{
    INGRESS_ONLY, ensure_nothing_left, limited, rig, rows, some_traffic, tc, tcx_programs,
    wait_for_lines, with,
};
use super::{Checked, checked, sum};
use crate::errors::fails;
use crate::listen::ask;
use crate::rig::{Acctd, PATIENCE, Rig};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "crosscheck_an_interface_that_comes_after_the_start_is_attached_then",
        an_interface_that_comes_later,
    ),
    (
        Needs::Root,
        "crosscheck_an_interface_that_is_moved_or_renamed_raises_no_alarm",
        moved_or_renamed,
    ),
    (
        Needs::Root,
        "crosscheck_two_interfaces_that_exchange_their_names_are_both_attached",
        names_exchanged,
    ),
    (
        Needs::Root,
        "crosscheck_a_program_put_in_front_is_passed_and_raises_no_alarm",
        a_program_put_in_front,
    ),
    (
        Needs::Root,
        "crosscheck_a_program_that_insists_on_being_in_front_is_left_there",
        a_program_that_insists,
    ),
    (
        Needs::Root,
        "crosscheck_a_filter_put_in_front_is_passed_and_raises_no_alarm",
        a_filter_put_in_front,
    ),
    (
        Needs::Root,
        "crosscheck_links_that_are_detached_by_force_are_put_back",
        links_detached_by_force,
    ),
    (
        Needs::Root,
        "crosscheck_what_nothing_will_cure_refuses_the_start",
        what_nothing_will_cure,
    ),
];

/// What is in no row's favour: equal counts match, others are not checked, and none is lost.
fn ensure_no_alarm(rig: &Rig) -> Result<Vec<Checked>> {
    let intervals = checked(rig)?;
    for row in rows(&intervals) {
        ensure!(
            row.verdict == "not checked" || (row.verdict == "match" && row.is_equal()),
            "{row:?}"
        );
    }
    let counted = sum(rows(&intervals), |row| row.source);
    let truth = rig.counter("v4")?;
    ensure!(counted == truth, "{counted:?} is not {truth:?}");
    Ok(intervals)
}

/// All is in its place again: the kernel counts each packet in an interval that is compared.
fn ensure_checked_again(rig: &Rig, acctd: Acctd) -> Result<Vec<String>> {
    // The next interval but one has seen nothing of what was.
    thread::sleep(Duration::from_millis(2_100));
    some_traffic(rig, 3_000)?;
    let log = acctd.finish()?.log;
    let intervals = ensure_no_alarm(rig)?;
    let compared = intervals.iter().filter(|one| one.crosscheck.comparable);
    let n_compared: u64 = compared.map(|one| one.tally("match").packets).sum();
    ensure!(n_compared >= 3_000, "{n_compared} were compared: {log:?}");
    ensure_nothing_left(rig)?;
    Ok(log)
}

fn get(rig: &Rig, path: &str) -> Result<(u16, String)> {
    let socket = rig.scratch().join("acctd.sock");
    ask(&socket, &format!("GET {path} HTTP/1.1"))
}

/// acctd looks at its interfaces each second.
fn wait_for_health(rig: &Rig, is_so: impl Fn(&str) -> bool) -> Result<String> {
    let end = Instant::now() + PATIENCE;
    loop {
        let (code, health) = get(rig, "/healthz")?;
        ensure!(code == 200, "{code} {health}");
        if is_so(&health) {
            return Ok(health);
        }
        ensure!(Instant::now() < end, "{health}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn an_interface_that_comes_later() -> Result<()> {
    const MISSING: &str =
        "there is no interface late0: its packets are not cross-checked until it comes";
    for way in ["tcx", "clsact"] {
        let rig = rig()?;
        let listen = format!("-listen=unix:{}/acctd.sock", rig.scratch().display());
        let flag = format!("-crosscheck-attach={way}");
        let acctd = rig.acctd(&[
            "-interval=1s",
            "-utc",
            "-ip4-src-group=5",
            "-crosscheck=lan0,late0",
            &flag,
            &listen,
        ])?;
        acctd.wait_for_line(&format!("warning: {MISSING}"))?;
        acctd.wait_for_line("Cross-checking lan0")?;
        acctd.wait_for_line("Listening on")?;
        let metric = |name: &str| format!("{name}{{interface=\"late0\"}}");
        let attached = metric("acctd_crosscheck_interface_attached");
        let metrics = get(&rig, "/metrics")?.1;
        ensure!(metrics.contains(&format!("{attached} 0.0\n")), "{metrics}");
        // Accounting is well: to start it again cures nothing.
        let is_waited_for = wait_for_health(&rig, |health| health.contains(MISSING))?;
        ensure!(is_waited_for.starts_with("ok\n"), "{is_waited_for}");
        let status: Value = serde_json::from_str(&get(&rig, "/status")?.1)?;
        ensure!(status["crosscheck"]["attached"] == serde_json::json!(["lan0"]));
        some_traffic(&rig, 2_000)?;
        let late = Veth::new(&rig.router, "late0", &rig.wire, "wire1")?;
        acctd.wait_for_line("Cross-checking late0")?;
        ensure!(
            acctd
                .log()
                .iter()
                .filter(|line| line.contains(MISSING))
                .count()
                == 1
        );
        wait_for_health(&rig, |health| health == "ok\n")?;
        let metrics = get(&rig, "/metrics")?.1;
        ensure!(metrics.contains(&format!("{attached} 1.0\n")), "{metrics}");
        // What comes by it is seen.
        thread::sleep(Duration::from_millis(1_100));
        let by_late = testkit::traffic::TrafficArgs {
            sources: 10,
            count: 1_000,
            dev: late.far.clone(),
            to_mac: late.near_mac,
            ..rig.traffic("10.2.0.0/16", "10.255.0.1/32")?
        };
        rig.send(&by_late)?;
        ensure_checked_again(&rig, acctd)?;
        let late_net: IpAddr = "10.2.0.0".parse()?;
        let intervals = checked(&rig)?;
        let by_late = rows(&intervals).filter(|row| row.ip >= late_net);
        ensure!(by_late.clone().all(|row| row.verdict == "match"));
        ensure!(sum(by_late, |row| row.tc_source).packets == 1_000);
    }
    Ok(())
}

fn elsewhere(rig: &Rig) -> Result<Namespace> {
    rig.router.peer()
}

fn ip(namespace: &Namespace, line: &str) -> Result<()> {
    let words: Vec<&str> = ["ip"].into_iter().chain(line.split(' ')).collect();
    namespace.run(&words).map(drop)
}

fn moved_or_renamed() -> Result<()> {
    for way in ["tcx", "clsact"] {
        let rig = rig()?;
        let flag = format!("-crosscheck-attach={way}");
        let acctd = rig.acctd(&with(&INGRESS_ONLY, &[&flag]))?;
        let other = elsewhere(&rig)?;
        let (home, away) = (rig.router.pid(), other.pid());
        some_traffic(&rig, 1_000)?;
        // For long enough to be seen, and for a moment, after which it has the same name and index.
        for (round, is_seen) in [true, false].into_iter().enumerate() {
            ip(&rig.router, &format!("link set lan0 netns {away}"))?;
            ip(&other, "link set lan0 up")?;
            if is_seen {
                acctd.wait_for_line("warning: lan0 is gone")?;
            }
            // Nobody logs these.
            some_traffic(&rig, 700)?;
            ip(&other, &format!("link set lan0 netns {home}"))?;
            ip(&rig.router, "link set lan0 up")?;
            wait_for_lines(&acctd, "lan0 is back and is cross-checked again", round + 1)?;
            some_traffic(&rig, 300)?;
        }
        // Renamed, and its name given back.
        let gone = "warning: lan0 is gone";
        let log = acctd.log();
        let n_gone = log.iter().filter(|line| line.contains(gone)).count();
        ip(&rig.router, "link set lan0 down")?;
        ip(&rig.router, "link set lan0 name new0")?;
        ip(&rig.router, "link set new0 up")?;
        wait_for_lines(&acctd, gone, n_gone + 1)?;
        some_traffic(&rig, 500)?;
        ip(&rig.router, "link set new0 down")?;
        ip(&rig.router, "link set new0 name lan0")?;
        ip(&rig.router, "link set lan0 up")?;
        wait_for_lines(&acctd, "lan0 is back and is cross-checked again", 3)?;
        ensure_checked_again(&rig, acctd)?;
    }
    Ok(())
}

/// Each has the programs of the other's name for a moment, and no hook takes a program twice.
fn names_exchanged() -> Result<()> {
    let rig = rig()?;
    let _other = Veth::new(&rig.router, "wan0", &rig.wire, "wire1")?;
    let args = with(&INGRESS_ONLY[..4], &["-crosscheck=lan0,wan0"]);
    let acctd = rig.acctd(&args)?;
    for line in [
        "link set lan0 down",
        "link set wan0 down",
        "link set lan0 name tmp0",
        "link set wan0 name lan0",
        "link set tmp0 name wan0",
        "link set wan0 up",
        "link set lan0 up",
    ] {
        ip(&rig.router, line)?;
    }
    for name in ["lan0", "wan0"] {
        acctd.wait_for_line(&format!("{name} is back and is cross-checked again"))?;
    }
    let log = ensure_checked_again(&rig, acctd)?;
    ensure!(
        !log.iter().any(|line| line.contains("cannot attach")),
        "{log:?}"
    );
    Ok(())
}

/// A TCX program on `lan0`, attached in front of all others and there until it is dropped. It keeps all
/// packets from those behind it.
struct Foreign {
    again: Sender<()>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// As long as the name that it takes the place of.
const FOREIGN: &str = "shaper_takes_them";

impl Foreign {
    fn in_front(rig: &Rig) -> Result<Self> {
        let namespace = fs::File::open(format!("/proc/{}/ns/net", rig.router.pid()))?;
        let (again, wanted) = channel::<()>();
        let (attached, is_attached) = channel::<()>();
        // A thread of its own, which alone enters the namespace.
        let thread = thread::spawn(move || -> Result<()> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let mut ebpf = EbpfLoader::new().load(&takes_all()?)?;
            let program = ebpf.program_mut(FOREIGN).context("no such program")?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load()?;
            loop {
                let order = TcAttachOptions::TcxOrder(LinkOrder::first());
                let link = program.attach_with_options("lan0", TcAttachType::Ingress, order)?;
                // Only the first one is waited for.
                let _unheard = attached.send(());
                if wanted.recv().is_err() {
                    return Ok(());
                }
                program.detach(link)?;
            }
        });
        is_attached
            .recv()
            .or_else(|_| bail!("it was not attached"))?;
        Ok(Self {
            again,
            thread: Some(thread),
        })
    }

    /// In front once more, in place of where it was.
    fn insist(&self) -> Result<()> {
        Ok(self.again.send(())?)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.again = channel().0;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

/// The smallest object, with a program of another name that returns 0 where it returned -1.
fn takes_all() -> Result<Vec<u8>> {
    const NAME: &[u8] = b"acctd_egress_dest";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../acctd-ebpf/objects/minimal.o");
    let mut object = fs::read(path)?;
    let places = object.windows(NAME.len()).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, bytes)| *bytes == NAME)
        .map(|(at, _)| at)
        .collect();
    for at in places {
        object[at..at + NAME.len()].copy_from_slice(FOREIGN.as_bytes());
    }
    // `r0 = -1` or `w0 = -1`, in one instruction or two.
    let returns = |bytes: &[u8]| {
        matches!(bytes[0], 0xb7 | 0xb4 | 0x18) && bytes[1] == 0 && bytes[4..8] == [0xff; 4]
    };
    let mut n_changed = 0;
    for at in (0..object.len().saturating_sub(16)).step_by(8) {
        if returns(&object[at..at + 8]) {
            object[at + 4..at + 8].fill(0);
            if object[at] == 0x18 {
                object[at + 12..at + 16].fill(0);
            }
            n_changed += 1;
        }
    }
    ensure!(n_changed > 0, "no return of -1 was found");
    Ok(object)
}

const PASSED: &str = "was put in front of the cross-check's program";

fn a_program_put_in_front() -> Result<()> {
    let rig = rig()?;
    // With CAP_SYS_ADMIN it can be named, too.
    for capabilities in ["+net_admin,+bpf,+perfmon", "+net_admin,+sys_admin"] {
        let acctd = Acctd::spawn(&mut limited(&rig, capabilities, &INGRESS_ONLY))?;
        acctd.wait_for_line("Started accounting")?;
        some_traffic(&rig, 1_000)?;
        let foreign = Foreign::in_front(&rig)?;
        // Until acctd is in front again it sees none of these.
        some_traffic(&rig, 1_000)?;
        let line = acctd.wait_for_line(PASSED)?;
        let id = foreign_id(&rig)?;
        let name = if capabilities.contains("sys_admin") {
            "(shaper_takes_th)".to_owned()
        } else {
            format!("(see bpftool prog show id {id})")
        };
        let named = format!("warning: TCX program id {id} {name} on lan0 ingress");
        ensure!(line.contains(&named), "{line}");
        acctd.wait_for_line("lan0 is back and is cross-checked again")?;
        let order = tcx_programs(&rig, TcAttachType::Ingress)?;
        ensure!(order == ["acctd_ingress_s", "shaper_takes_th"], "{order:?}");
        thread::sleep(Duration::from_millis(2_100));
        some_traffic(&rig, 3_000)?;
        let log = acctd.finish()?.log;
        ensure!(
            log.iter().filter(|line| line.contains(PASSED)).count() == 1,
            "{log:?}"
        );
        drop(foreign);
        let intervals = ensure_no_alarm(&rig)?;
        let compared = intervals.iter().filter(|one| one.crosscheck.comparable);
        let n_compared: u64 = compared.map(|one| one.tally("match").packets).sum();
        ensure!(n_compared >= 3_000, "{n_compared} were compared: {log:?}");
        // It kept them from acctd: without the mark they would be extra.
        ensure!(rows(&intervals).any(|row| row.verdict == "not checked"));
    }
    Ok(())
}

fn bpftool(rig: &Rig, words: &[&str]) -> Result<Value> {
    let text = rig.router.run(&[&["bpftool", "-j"], words].concat())?;
    Ok(serde_json::from_str(&text)?)
}

/// Of the newest program with its name: other tests have theirs.
fn foreign_id(rig: &Rig) -> Result<u64> {
    let programs = bpftool(rig, &["prog", "show"])?;
    let programs = programs.as_array().context("a list")?.iter();
    let named = programs.filter(|one| {
        one["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("shaper_"))
    });
    named
        .filter_map(|one| one["id"].as_u64())
        .max()
        .context("it is not there")
}

/// Two that want to be first would be at it for ever.
fn a_program_that_insists() -> Result<()> {
    let rig = rig()?;
    let acctd = rig.acctd(&INGRESS_ONLY)?;
    let foreign = Foreign::in_front(&rig)?;
    acctd.wait_for_line(PASSED)?;
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    foreign.insist()?;
    acctd.wait_for_line("on lan0 ingress stays in front of the cross-check's program")?;
    some_traffic(&rig, 2_000)?;
    // When it has gone, all is well by itself.
    drop(foreign);
    let log = ensure_checked_again(&rig, acctd)?;
    let n_lines = |part: &str| log.iter().filter(|line| line.contains(part)).count();
    ensure!(
        (n_lines(PASSED), n_lines("stays in front")) == (1, 1),
        "{log:?}"
    );
    let intervals = checked(&rig)?;
    let unchecked = rows(&intervals).filter(|row| row.verdict == "not checked");
    ensure!(sum(unchecked, |row| row.source).packets == 2_000);
    Ok(())
}

/// The latest of those of a priority comes first: a copy of the foreign program, pinned, as `tc` takes it.
fn a_filter_put_in_front() -> Result<()> {
    let rig = rig()?;
    let object = rig.scratch().join("shaper.o");
    fs::write(&object, takes_all()?)?;
    let object = object.to_str().context("a path of ASCII")?;
    let bpffs = rig.scratch().join("bpf");
    fs::create_dir(&bpffs)?;
    let shown = bpffs.to_str().context("a path of ASCII")?;
    rig.router.run(&["mount", "-t", "bpf", "bpf", shown])?;
    let pinned = format!("{shown}/all");
    rig.router.run(&[
        "bpftool",
        "prog",
        "loadall",
        object,
        &pinned,
        "type",
        "classifier",
    ])?;
    let acctd = rig.acctd(&with(&INGRESS_ONLY, &["-crosscheck-attach=clsact"]))?;
    tc(
        &rig,
        &format!(
            "filter add dev lan0 ingress pref 1 protocol all bpf da pinned {pinned}/{FOREIGN}"
        ),
    )?;
    some_traffic(&rig, 1_000)?;
    let line = acctd.wait_for_line(PASSED)?;
    ensure!(
        line.contains("bpf filter of priority 1 (program id "),
        "{line}"
    );
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    thread::sleep(Duration::from_millis(2_100));
    some_traffic(&rig, 3_000)?;
    acctd.finish()?;
    let intervals = ensure_no_alarm(&rig)?;
    let last = intervals.last().context("an interval")?;
    ensure!(last.crosscheck.comparable && rows(&intervals).any(|row| row.verdict == "match"));
    Ok(())
}

fn links_detached_by_force() -> Result<()> {
    let rig = rig()?;
    let acctd = rig.acctd(&INGRESS_ONLY)?;
    some_traffic(&rig, 1_000)?;
    let detached = detach_newest(&rig)?;
    some_traffic(&rig, 1_000)?;
    let line = acctd.wait_for_line("warning: somebody has removed the cross-check's")?;
    ensure!(line.contains("lan0"), "{line}");
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    ensure!(tcx_programs(&rig, TcAttachType::Ingress)?.len() == 1);
    ensure_checked_again(&rig, acctd)?;
    // Just before the end: nobody looks any more, but for the end itself.
    fs::remove_dir_all(rig.log_directory())?;
    let acctd = rig.acctd(&[
        "-interval=1h",
        "-utc",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ])?;
    some_traffic(&rig, 1_000)?;
    ensure!(detach_newest(&rig)? != detached);
    some_traffic(&rig, 1_000)?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    ensure!(rows(&intervals).all(|row| row.verdict != "extra"));
    Ok(())
}

/// Detaches the link of the newest `acctd_ingress_source`, which is this test's own while it runs alone.
fn detach_newest(rig: &Rig) -> Result<u64> {
    let own = tcx_ids(rig)?;
    let links = bpftool(rig, &["link", "show"])?;
    let mut links = links.as_array().context("a list")?.iter();
    let link = links
        .find(|link| link["prog_id"].as_u64() == Some(own))
        .context("no link of acctd's")?;
    let id = link["id"].as_u64().context("an id")?;
    rig.router
        .run(&["bpftool", "link", "detach", "id", &id.to_string()])?;
    Ok(id)
}

fn tcx_ids(rig: &Rig) -> Result<u64> {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", rig.router.pid()))?;
    let asking = thread::spawn(move || -> Result<u64> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let (_, programs) = SchedClassifier::query_tcx("lan0", TcAttachType::Ingress)?;
        Ok(programs.first().context("no program")?.id().into())
    });
    asking
        .join()
        .map_err(|_panic| anyhow!("the query panicked"))?
}

/// A capability that is missing comes with no interface.
fn what_nothing_will_cure() -> Result<()> {
    let rig = rig()?;
    let path = rig.scratch().join("nowhere.o");
    let flag = format!("-crosscheck-object={}", path.display());
    fails(
        &rig,
        &["-ip4-src-group=5", "-crosscheck=nosuch0", &flag],
        1,
        "nowhere.o: No such file or directory",
    )?;
    let mut command = limited(
        &rig,
        "+net_admin",
        &["-ip4-src-group=5", "-crosscheck=nosuch0"],
    );
    let output = command.output()?;
    crate::errors::complains(&output, 1, "it takes CAP_BPF and CAP_PERFMON; run")
}
