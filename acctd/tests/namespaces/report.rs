//! `acctd report` of files with real losses: nft's counters are within its bounds.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::nft::{self, Count};
use testkit::process;
use testkit::traffic::TrafficArgs;

use crate::kernel::scaled;
use crate::rig::Rig;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[(
    Needs::Alone(&Needs::Root),
    "report_has_bounds_that_hold_what_nft_counted",
    bounds_hold_what_nft_counted,
)];

const SOURCES: u32 = 24;
/// The others' packets are in the row of overflow.
const MAX_PREFIXES: &str = "-max-prefixes=16";
const CASES_WITHOUT_FILES: u64 = 200;

/// A counter for each source, before the packet is logged.
fn rules() -> String {
    let sources = 0..SOURCES;
    let counters: Vec<String> = sources
        .clone()
        .map(|it| format!("counter c{it} {{}}"))
        .collect();
    let names: Vec<String> = sources
        .map(|it| format!("10.1.0.{it} : \"c{it}\""))
        .collect();
    format!(
        "table inet rig {{
            {}
            chain prerouting {{
                type filter hook prerouting priority raw
                meta nfproto ipv4 counter name ip saddr map {{ {} }} log group 5 snaplen 20 queue-threshold 50
                drop
            }}
        }}",
        counters.join("\n"),
        names.join(", ")
    )
}

/// The report's lines by their names, and its sum.
fn report(rig: &Rig, directory: &Path) -> Result<Value> {
    let mut command = Command::new(rig.acctd_path());
    command
        .args(["report", "--format=json", "--sample=1s"])
        .arg(directory);
    Ok(serde_json::from_str(&process::output(&mut command)?)?)
}

/// The bytes that nft counted, by counter.
type Truth = BTreeMap<String, Count>;

/// Whether the bytes of each source, and of all, are within the bounds. How many figures have an upper one.
fn hold(truth: &Truth, report: &Value) -> Result<usize> {
    let part = &report["parts"][0];
    let lines = part["lines"].as_array().context("lines")?;
    let mut n_bounded = 0;
    let mut all = 0;
    let mut check = |line: &Value, truth: u64| -> Result<()> {
        let bounds = &line["out_bytes"];
        let low = bounds["at_least"].as_u64().context("a bound")?;
        let high = bounds["at_most"].as_u64();
        n_bounded += usize::from(high.is_some());
        ensure!(
            low <= truth && truth <= high.unwrap_or(u64::MAX),
            "{truth} is not in {bounds} of {line}"
        );
        Ok(())
    };
    for source in 0..SOURCES {
        let truth = truth[&format!("c{source}")].bytes;
        all += truth;
        let name = format!("10.1.0.{source}");
        // One of which all went to the row of overflow has no line.
        if let Some(line) = lines.iter().find(|line| line["name"] == *name) {
            check(line, truth)?;
        }
    }
    check(&part["all"], all)?;
    Ok(n_bounded)
}

fn bounds_hold_what_nft_counted() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(&rules())?;
    let args = [
        "-interval=1s",
        "-ip4-src-group=5",
        MAX_PREFIXES,
        "-checkpoint=0",
    ];
    let traffic = |count: u64, rate: u32| -> Result<TrafficArgs> {
        Ok(TrafficArgs {
            sources: SOURCES,
            count,
            rate,
            ..rig.traffic("10.1.0.0/24", "10.255.0.1/32")?
        })
    };
    let acctd = rig.acctd(&args)?;
    rig.send(&traffic(scaled(20_000), 10_000)?)?;
    // More than the socket holds.
    acctd.signal(Signal::STOP)?;
    rig.send(&traffic(scaled(1_000_000), 0)?)?;
    acctd.signal(Signal::CONT)?;
    rig.send(&traffic(scaled(20_000), 10_000)?)?;
    acctd.finish()?;
    let lost = rig.summed("lost")?;
    ensure!(lost > 0 && rig.summed("overflow")? > 0, "nothing was lost");
    let n_bounded = hold(
        &nft::counters(&rig.router)?,
        &report(&rig, &rig.log_directory())?,
    )?;
    ensure!(n_bounded >= 16, "{n_bounded} figures have an upper bound");

    // Killed, and away for a while: nothing bounds what was logged meanwhile.
    let acctd = rig.acctd(&args)?;
    rig.send(&traffic(scaled(10_000), 10_000)?)?;
    acctd.signal(Signal::KILL)?;
    acctd.wait()?;
    rig.send(&traffic(scaled(10_000), 10_000)?)?;
    let acctd = rig.acctd(&args)?;
    rig.send(&traffic(scaled(10_000), 10_000)?)?;
    acctd.finish()?;
    let truth = nft::counters(&rig.router)?;
    hold(&truth, &report(&rig, &rig.log_directory())?)?;

    // Some files are gone. The first and the last stay, as the report is about the time from one to the other, and the
    // second, which is a whole interval.
    let mut names = Vec::new();
    for file in fs::read_dir(rig.log_directory())? {
        let name = file?.file_name();
        let is_csv = Path::new(&name).extension().is_some_and(|it| it == "csv");
        names.extend(is_csv.then_some(name));
    }
    names.sort();
    let staying = [names.first(), names.get(1), names.last()].map(Option::<&OsString>::cloned);
    let mut random = 1_u64;
    for case in 0..CASES_WITHOUT_FILES {
        let copy = rig.scratch().join(format!("case{case}"));
        fs::create_dir(&copy)?;
        let journal = OsString::from("intervals.jsonl");
        for name in names.iter().chain([&journal]) {
            // Knuth's.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let must_stay = *name == journal || staying.contains(&Some(name.clone()));
            if must_stay || !(random >> 33).is_multiple_of(4) {
                fs::copy(rig.log_directory().join(name), copy.join(name))?;
            }
        }
        hold(&truth, &report(&rig, &copy)?).with_context(|| format!("case {case}"))?;
        fs::remove_dir_all(copy)?;
    }
    Ok(())
}
