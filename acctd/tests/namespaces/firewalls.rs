//! `acctd doctor` beside the rules of other programs: each file in `firewalls/` is a set-up and a test of its own.
//! What doctor is to say of it is proven by packets: acctd counts known traffic in the same set-up, beside
//! counters on the way in and out of the interface that no rule is in front of or behind.
//!
//! A file is a script for `sh -e` in the namespace; its first lines say what comes of it:
//!
//! ```text
//! # flags: -ip4-src-group=5 -ip4-dst-group=4     of acctd and doctor (these if left out)
//! # traffic: host | forward                      to and from this host (if left out); also through it
//! # in: all | part | none | more                 what acctd counts by source of what the interface receives
//! #     all-and-dropped                          (all, and what is dropped after it was logged)
//! # out: all | part | none | more                … by destination of what it sends
//! # doctor: OK | ID error | ID warning           the first finding
//! # doctor: not ID                               no such finding
//! # says: WORDS                                  in the line of that finding
//! # time: nft                                    doctor takes at most twice as long as nft (and a second)
//! # live: yes                                    doctor --live counts what is counted; it takes two seconds
//! ```
//!
//! What follows a line `# before doctor` is run when the packets are counted. The interface is `lan0`; `wan0` is
//! another, `$ACCTD` and `$SCRATCH` are the program and a place for files, and `$RULES` has what several set-ups load.

mod setup;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use acctd::doctor::clock_sync;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::netns::Privilege;
use testkit::nft::Count;

use crate::doctor_live::Live;
use crate::listen;
use crate::rig::{Rig, totals};
use setup::{Expected, Setup, Share};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/namespaces/firewalls");

/// Before and behind all that a set-up may have on the interface.
const TRUTH: &str = "
    table netdev truth {
        counter received {}
        counter sent {}
        chain in { type filter hook ingress device lan0 priority -100000; meta protocol ip counter name received; }
        chain out { type filter hook egress device lan0 priority 100000; meta protocol ip counter name sent; }
    }";

/// The tests: their names, and which set-up each loads.
pub(crate) fn cases() -> Result<Vec<(String, PathBuf)>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(DIRECTORY)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "sh") {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            cases.push((format!("firewall_{}", stem.replace('-', "_")), path.clone()));
        }
    }
    cases.sort();
    Ok(cases)
}

/// One of them.
pub(crate) fn run(path: &Path) -> Result<()> {
    let setup = Setup::read(path)?;
    let rig = Rig::new()?;
    let flags: Vec<&str> = setup.flags.iter().map(String::as_str).collect();
    traffic::prepare(&rig, setup.forwards)?;
    sh(&rig, &setup.load).context("the set-up cannot be loaded")?;
    rig.rules(TRUTH)?;
    let listen = format!("-listen=unix:{}", listen::socket(&rig).display());
    let acctd = rig.acctd(&[&["-interval=36500d", &listen], &flags[..]].concat())?;
    let live = [&[&listen, "-crosscheck=lan0"], &flags[..]].concat();
    let is_root = matches!(Privilege::of_this_process(), Privilege::Root);
    let live = (setup.is_live && is_root)
        .then(|| Live::start(&rig, &live))
        .transpose()?;
    traffic::send(&rig, setup.forwards)?;
    let live = live.map(|live| live.end(Signal::INT)).transpose()?;
    acctd.finish()?;
    let (received, sent) = (rig.counter("received")?, rig.counter("sent")?);
    let (by_source, by_dest) = totals(&rig.files()?, true);
    setup.received.hold("in", by_source, received)?;
    setup.sent.hold("out", by_dest, sent)?;
    if let Some((_, json)) = live {
        ensure_measured(&json, "source", received, by_source)?;
        ensure_measured(&json, "destination", sent, by_dest)?;
    }
    rig.router
        .run(&["nft", "delete", "table", "netdev", "truth"])?;
    sh(&rig, &setup.before_doctor).context("before doctor")?;
    let mut doctor = rig.router.command(rig.acctd_path());
    doctor.arg("doctor").args(&flags);
    doctor.arg("-log-directory").arg(rig.log_directory());
    let output = doctor.output()?;
    if setup.is_timed {
        in_time(&rig, &mut doctor)?;
    }
    judge(&setup.expected, &output)
}

/// With `--live`, doctor counts what nft's counters count and what acctd counts.
fn ensure_measured(json: &Value, side: &str, passed: Count, counted: Count) -> Result<()> {
    let directions = json["directions"].as_array().context("directions")?;
    let mut directions = directions.iter().filter(|it| it["ip_version"] == 4);
    let Some(direction) = directions.find(|it| it["side"] == side) else {
        return Ok(());
    };
    ensure!(
        direction["passed"]["packets"] == passed.packets,
        "{passed:?} passed: {direction}"
    );
    let groups = direction["groups"].as_array().context("groups")?;
    let logged = groups.iter().map(|group| group["logged"].as_u64());
    ensure!(
        logged.sum::<Option<u64>>() == Some(counted.packets),
        "{counted:?} counted: {direction}"
    );
    Ok(())
}

/// By the best of several turns: what else runs makes some of them slow.
fn in_time(rig: &Rig, doctor: &mut Command) -> Result<()> {
    const TURNS: usize = 5;
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        let begun = Instant::now();
        doctor.output()?;
        let took = begun.elapsed();
        let begun = Instant::now();
        rig.router.run(&["nft", "-j", "list", "ruleset"])?;
        let nft = begun.elapsed();
        if took <= nft * 2 + Duration::from_secs(1) {
            return Ok(());
        }
        turns.push((took, nft));
    }
    bail!("doctor and nft take {turns:?}")
}

fn sh(rig: &Rig, script: &str) -> Result<()> {
    let mut command = rig.router.command("sh");
    command
        .args(["-e", "-c", script])
        .env("ACCTD", rig.acctd_path())
        .env("SCRATCH", rig.scratch())
        .env("RULES", format!("{DIRECTORY}/rules"));
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether it says first what is expected, and has the exit code for it. What it says of this machine's clock
/// does not matter.
fn judge(expected: &Expected, output: &Output) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stdout);
    let is_unsynchronised = clock_sync::is_synchronised() == Some(false);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.ends_with("[clock-not-synchronised]"))
        .collect();
    match expected {
        Expected::Ok => {
            let is_ok = lines.iter().all(|line| line.starts_with("OK"));
            ensure!(is_ok && lines.len() <= 1, "not OK: {lines:#?}");
            let code = i32::from(is_unsynchronised);
            ensure!(output.status.code() == Some(code), "{output:?}");
        }
        Expected::Not(id) => {
            let end = format!("[{id}]");
            ensure!(!text.contains(&end), "{text}");
        }
        Expected::First { severity, id, says } => {
            let first = lines.first().copied().unwrap_or_default();
            let is_right = first.starts_with(&format!("{severity}: "))
                && first.ends_with(&format!("[{id}]"))
                && first.contains(says.as_str());
            ensure!(is_right, "not {severity} {id} with {says:?}: {lines:#?}");
            let code = if severity == "error" { 2 } else { 1 };
            ensure!(output.status.code() == Some(code), "{output:?}");
        }
    }
    Ok(())
}

impl Share {
    /// Whether what was counted is this part of the truth.
    fn hold(self, direction: &str, counted: Count, truth: Count) -> Result<()> {
        let (counted, truth) = (counted.packets, truth.packets);
        let holds = match self {
            Self::All => counted == truth,
            Self::Some => 0 < counted && counted < truth,
            Self::None | Self::NotRead => counted == 0,
            Self::More | Self::AllAndDropped => counted > truth,
        };
        ensure!(
            holds && (truth > 0 || self == Self::NotRead),
            "{direction}: {counted} of {truth} packets are counted, not {self:?}"
        );
        Ok(())
    }
}
