//! Programs of somebody else's that are put in front of acctd's, or that detach them: they are passed, or acctd says that it
//! cannot.

use std::fs;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::EbpfLoader;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::attaching::{INGRESS_ONLY, query_tcx, rig, rows, some_traffic, tc, tcx_programs, with};
use super::interfaces::{ensure_checked_again, ensure_no_alarm};
use super::{checked, sum};
use crate::rig::{Acctd, Rig};
use crate::waiting::{PATIENCE, wait_for_files, wait_until};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Tcx,
        "crosscheck_a_program_put_in_front_is_passed_and_raises_no_alarm",
        a_program_put_in_front,
    ),
    (
        Needs::Tcx,
        "crosscheck_a_program_that_insists_on_being_in_front_is_left_there",
        a_program_that_insists,
    ),
    (
        Needs::Root,
        "crosscheck_a_filter_put_in_front_is_passed_and_raises_no_alarm",
        a_filter_put_in_front,
    ),
    (
        Needs::Tcx,
        "crosscheck_links_that_are_detached_by_force_are_put_back",
        links_detached_by_force,
    ),
];

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
        // setns(2) moves one thread. This one enters the namespace, the others stay.
        let thread = thread::spawn(move || -> Result<()> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            let mut ebpf = EbpfLoader::new().load(&takes_all()?)?;
            let program = ebpf.program_mut(FOREIGN).context("no such program")?;
            let program: &mut SchedClassifier = program.try_into()?;
            program.load()?;
            loop {
                let end = Instant::now() + PATIENCE;
                let link = loop {
                    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
                    // Whoever lists all links, as another test does, holds one for a moment after it was detached, and
                    // no hook takes a program twice.
                    match program.attach_with_options("lan0", TcAttachType::Ingress, order) {
                        Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
                        attached => break attached?,
                    }
                };
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
        let acctd = Acctd::spawn(rig.acctd_limited(capabilities).args(INGRESS_ONLY))?;
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
        wait_for_files(&acctd, 3)?;
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

fn foreign_id(rig: &Rig) -> Result<u32> {
    let programs = query_tcx(rig, TcAttachType::Ingress)?;
    let foreign = programs.iter().find(|(_, name)| FOREIGN.starts_with(name));
    Ok(foreign.context("it is not there")?.0)
}

/// Two that want to be first would be at it for ever.
fn a_program_that_insists() -> Result<()> {
    let rig = rig()?;
    let acctd = rig.acctd(&INGRESS_ONLY)?;
    let foreign = Foreign::in_front(&rig)?;
    acctd.wait_for_line(PASSED)?;
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    // acctd may still be about to go in front when it says that it is back.
    wait_until("acctd leaves it in front", || {
        foreign.insist()?;
        wait_for_files(&acctd, 1)?;
        let left = "on lan0 ingress stays in front of the cross-check's program";
        Ok(acctd.count_lines(left) > 0)
    })?;
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
    wait_for_files(&acctd, 3)?;
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
    let detached = detach_by_force(&rig)?;
    some_traffic(&rig, 1_000)?;
    let line = acctd.wait_for_line("warning: somebody has removed the cross-check's")?;
    ensure!(line.contains("lan0"), "{line}");
    acctd.wait_for_line("lan0 is back and is cross-checked again")?;
    ensure!(tcx_programs(&rig, TcAttachType::Ingress)?.len() == 1);
    ensure_checked_again(&rig, acctd)?;
    // If the link is detached just before the end, no tick sees it. The check at the end must.
    fs::remove_dir_all(rig.log_directory())?;
    let acctd = rig.acctd(&[
        "-interval=36500d",
        "-utc",
        "-ip4-src-group=5",
        "-crosscheck=lan0",
    ])?;
    some_traffic(&rig, 1_000)?;
    ensure!(detach_by_force(&rig)? != detached);
    some_traffic(&rig, 1_000)?;
    acctd.finish()?;
    let intervals = checked(&rig)?;
    ensure!(rows(&intervals).all(|row| row.verdict != "extra"));
    Ok(())
}

/// Detaches the link of acctd's program.
fn detach_by_force(rig: &Rig) -> Result<u64> {
    let programs = query_tcx(rig, TcAttachType::Ingress)?;
    let own = u64::from(programs.first().context("no program")?.0);
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
