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

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use testkit::{
    daemon::Daemon,
    interrupt::Interrupt,
    netns::Privilege,
    nft, print, programs,
    rows::{self, CsvFile},
};

use crate::setup;

mod report;
mod stage;

use stage::Stage;

/// Short intervals, so that some end while one watches; the groups as in the
/// rules.
const FLAGS: [&str; 5] = [
    "-interval=5s",
    "-ip4-dst-group=4",
    "-ip4-src-group=5",
    "-ip6-dst-group=6",
    "-ip6-src-group=7",
];

/// A kernel tells its neighbours twice, within a second each, which groups its new addresses listen to
/// (RFC 3810, section 6.1).
const MULTICAST_REPORTED: Duration = Duration::from_millis(2_500);

/// Both ends' addresses beyond host0 are accounted: who sends to host, and whom it sends to.
const CROSS_CHECK: &str = "-crosscheck=host0";

/// Runs the demo; an error if any total differs.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    let interrupt = Interrupt::catch()?;
    interrupt.instead_of_error(play(&interrupt))
}

fn play(interrupt: &Interrupt) -> Result<()> {
    let privilege = Privilege::of_this_process();
    privilege
        .available()
        .map_err(anyhow::Error::msg)
        .context("the demo needs a network namespace")?;
    let work = TempDir::with_prefix("acctd-demo-").context("cannot make a temporary directory")?;

    print::line("demo: building acctd")?;
    let [acctd] = programs::build([("--bin", "acctd")], interrupt)?;

    print::line("demo: two network namespaces, outside and host; acctd runs on host")?;
    let stage = Stage::set(privilege, interrupt)?;
    // What the kernel sends by itself is not to come between the rules and acctd's start.
    interrupt.rest(MULTICAST_REPORTED)?;
    nft::load(&stage.link.host, stage::RULESET)?;
    print::line(format!("\n{}", stage::RULESET))?;

    let log_directory = work.path().join("accounting");
    // eBPF is for root alone.
    let crosscheck = privilege == Privilege::Root;
    let mut flags: Vec<String> = FLAGS.map(str::to_owned).into();
    flags.extend(crosscheck.then(|| CROSS_CHECK.to_owned()));
    flags.push(format!("-log-directory={}", log_directory.display()));
    let mut daemon = Daemon::start(&stage.link.host, &acctd, flags)?;
    print::line(format!("demo: started `{}`", daemon.shown()))?;
    let finished = daemon
        .wait_until_ready(interrupt)
        .and_then(|()| play_rounds(&stage, interrupt))
        // The counters are read when nothing moves any more, and before acctd
        // stops: what it has not yet received by then, it must still count.
        .and_then(|()| nft::counters(&stage.link.host))
        .and_then(|counters| daemon.stop(interrupt).map(|()| counters));
    print::line("demo: what acctd wrote to its log:")?;
    for line in daemon.log() {
        print::line(format!("    {line}"))?;
    }
    let counters = finished?;

    let paths = rows::paths(&log_directory)?;
    let files: Vec<CsvFile> = paths
        .iter()
        .map(|path| rows::read(path))
        .collect::<Result<_>>()?;
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
