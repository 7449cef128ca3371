//! `TZ` names a zone, or acctd says that it does not know it.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::errors::complains;
use crate::rig::{Acctd, Rig};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "a_time_zone_that_is_none_is_refused",
        a_time_zone_that_is_none,
    ),
    (
        Needs::Root,
        "without_time_zones_installed_that_is_said",
        without_time_zones,
    ),
];

const ONE_INTERVAL: &[&str] = &["-interval=36500d", "-ip4-src-group=5"];

/// Runs acctd with this `TZ` to a clean end. Returns its log and the offset from UTC in its last line of
/// `intervals.jsonl`.
fn run_in_zone(rig: &Rig, tz: &str, args: &[&str]) -> Result<(Vec<String>, String)> {
    let mut command = rig.acctd_command();
    let acctd = Acctd::spawn(command.args(args).env("TZ", tz))?;
    acctd.wait_for_line("Started accounting")?;
    let log = acctd.finish()?.log;
    let summaries = rig.summaries()?;
    let start = summaries.last().context("a line")?["start"].as_str();
    let start = start.context("a start")?;
    Ok((log, start[start.len() - 6..].to_owned()))
}

fn a_time_zone_that_is_none() -> Result<()> {
    let rig = Rig::new()?;
    for tz in ["Europe/Berln", ":Europe/Berln", "CET-1CEST,M3.5.0"] {
        let output = rig
            .acctd_command()
            .args(ONE_INTERVAL)
            .env("TZ", tz)
            .output()?;
        complains(&output, 2, &format!("TZ={tz:?} is not a time zone"))?;
        ensure!(!rig.log_directory().exists(), "something was done before");
        let doctor = rig
            .router
            .command(rig.acctd_path())
            .args(["doctor", "-ip4-src-group=5"])
            .env("TZ", tz)
            .output()?;
        let found = String::from_utf8(doctor.stdout)?;
        ensure!(
            doctor.status.code() == Some(2) && found.contains("[time-zone]"),
            "{found}"
        );
    }
    for (tz, offset) in [
        ("Asia/Tokyo", "+09:00"),
        (":Asia/Tokyo", "+09:00"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "+09:00"),
        ("<+0330>-3:30", "+03:30"),
        ("JST-9", "+09:00"),
        ("", "+00:00"),
    ] {
        let (log, found) = run_in_zone(&rig, tz, ONE_INTERVAL)?;
        ensure!(found == offset, "{tz}: {found}");
        ensure!(!log.iter().any(|line| line.contains("zone")), "{log:?}");
    }
    let args = [ONE_INTERVAL, &["-utc"]].concat();
    let (_, found) = run_in_zone(&rig, "Europe/Berln", &args)?;
    ensure!(found == "+00:00", "{found}");
    Ok(())
}

fn without_time_zones() -> Result<()> {
    let rig = Rig::new()?;
    let over = |directory: &str| rig.router.run(&["mount", "-t", "tmpfs", "none", directory]);
    let has_other_place = [
        "/share/zoneinfo",
        "/etc/zoneinfo",
        "/usr/share/lib/zoneinfo",
    ]
    .iter()
    .any(|place| Path::new(place).exists());
    ensure!(!has_other_place, "zones are elsewhere too");
    // The directory that holds it: then there is none.
    over("/usr/share")?;
    let (log, found) = run_in_zone(&rig, "Asia/Tokyo", ONE_INTERVAL)?;
    ensure!(found == "+00:00", "{found}");
    let told = "times are in UTC, although TZ=\"Asia/Tokyo\" names another zone: install tzdata";
    ensure!(log.iter().any(|line| line.contains(told)), "{log:?}");
    let (log, found) = run_in_zone(&rig, "JST-9", ONE_INTERVAL)?;
    ensure!(found == "+09:00", "{found}");
    ensure!(!log.iter().any(|line| line.contains("zone")), "{log:?}");
    Ok(())
}
