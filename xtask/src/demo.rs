//! `cargo xtask demo`: acctd between two network namespaces, with every kind
//! of traffic, and its files beside the counters of nftables.
//!
//! ```text
//!   outside  ── veth ──  host
//!   talk, ping,          serve, acctd, nft rules: a counter in front of
//!   generator            each log statement
//! ```
//!
//! Everything that it starts is held by a drop guard, so that an error or a
//! signal leaves nothing behind.

use std::{
    env, fs,
    io::Read as _,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tempfile::TempDir;
use xtask::{netns::Privilege, nft, process::Process};

use crate::{
    interrupt::{Interrupt, Interrupted},
    print, setup, test,
};

mod daemon;
mod files;
mod report;
mod stage;

use daemon::Daemon;
use stage::Stage;

/// Building acctd with all its dependencies may take this long.
const BUILD_LIMIT: Duration = Duration::from_mins(30);

/// Runs the demo; an error if any total differs.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    let interrupt = Interrupt::catch()?;
    play(&interrupt).map_err(|error| {
        // A signal can also show as the failure of a command that it reached.
        if interrupt.check().is_err() {
            Interrupted.into()
        } else {
            error
        }
    })
}

fn play(interrupt: &Interrupt) -> Result<()> {
    let privilege = Privilege::of_this_process();
    privilege
        .available()
        .map_err(anyhow::Error::msg)
        .context("the demo needs a network namespace")?;
    let work = TempDir::with_prefix("acctd-demo-").context("cannot make a temporary directory")?;

    print::line("demo: building acctd")?;
    let acctd = build(&work, interrupt)?;

    print::line("demo: two network namespaces, outside and host; acctd runs on host")?;
    let stage = Stage::set(privilege, interrupt)?;
    nft::load(&stage.host, stage::RULESET)?;
    print::line(format!("\n{}", stage::RULESET))?;

    let log_directory = work.path().join("accounting");
    // eBPF is for root alone.
    let crosscheck = privilege == Privilege::Root;
    let mut daemon = Daemon::start(&stage.host, &acctd, &log_directory, crosscheck)?;
    print::line(format!("demo: started `{}`", daemon.shown()))?;
    let finished = daemon
        .wait_until_ready(interrupt)
        .and_then(|()| play_rounds(&stage, interrupt))
        // The counters are read when nothing moves any more, and before acctd
        // stops: what it has not yet received by then, it must still count.
        .and_then(|()| nft::counters(&stage.host))
        .and_then(|counters| daemon.stop(interrupt).map(|()| counters));
    print::line("demo: what acctd wrote to its log:")?;
    for line in daemon.log() {
        print::line(format!("    {line}"))?;
    }
    let counters = finished?;

    let files = files::read(&log_directory)?;
    let totals = report::Totals::compare(&counters, &files)?;
    print::line(format!("\n{}{totals}", report::tables(&files)))?;
    print::line(report::EXPLANATION)?;
    if crosscheck {
        print::line(report::CROSS_CHECK_EXPLANATION)?;
    } else {
        print::line("demo: not root, so there was no cross-check with the kernel's own count")?;
    }
    if !totals.all_equal() {
        bail!("acctd's totals differ from nftables' counters");
    }
    if crosscheck {
        report::check_verdicts(&files)?;
    }
    Ok(())
}

/// The same traffic twice: the rules leave one address out, then none.
fn play_rounds(stage: &Stage, interrupt: &Interrupt) -> Result<()> {
    let seconds = stage::SECONDS;
    print::line(format!(
        "demo: {seconds} s of TCP, UDP and ICMP; what {} sends passes a rule that does not log it",
        stage::LEFT_OUT
    ))?;
    stage.play_traffic(interrupt)?;
    stage.account_all()?;
    print::line(format!(
        "demo: that rule is out of the way; {seconds} s of the same traffic"
    ))?;
    stage.play_traffic(interrupt)?;
    stage.close()
}

/// Builds acctd and returns the program's path, as cargo reports it.
fn build(work: &TempDir, interrupt: &Interrupt) -> Result<std::path::PathBuf> {
    let messages = work.path().join("cargo-messages.json");
    let mut cargo = Process::spawn(
        Command::new(test::cargo())
            .args(["build", "--release", "--package", "acctd"])
            .arg("--message-format=json-render-diagnostics")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&messages)?),
    )?;
    interrupt.wait_for_success(&mut cargo, BUILD_LIMIT)?;

    let mut text = String::new();
    fs::File::open(&messages)?.read_to_string(&mut text)?;
    text.lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok())
        .find_map(|artifact| {
            artifact
                .executable
                .filter(|_| artifact.target.name == "acctd")
        })
        .context("cargo built no program named acctd")
}

/// The part of cargo's message about a finished artifact that matters here;
/// other messages have no target and are no `Artifact`.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<std::path::PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// This program, which is also the traffic generator and the TCP and UDP
/// peers.
fn this_program() -> Result<std::path::PathBuf> {
    env::current_exe().context("cannot tell where this program is")
}
