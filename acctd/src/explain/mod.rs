//! `acctd explain`: which flows a running acctd's rules miss, why, and the rule that would log them.
//!
//! ```text
//!  a running acctd ─► report (sampling) ─┐
//!                                        ├─► cause (pure), with its cure ─► lines or JSON
//!  rules, interfaces, counters ─► situation ┘
//! ```

mod barrier;
mod cause;
mod cure;
mod findings;
mod gather;
pub mod helper;
mod logged;
mod situation;
mod trace;
pub(crate) mod unattended;
mod view;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use findings::{Finding, Flow, findings};
use serde_json::json;

use crate::cli::commands::ExplainArgs;
use crate::model::human::thousands;
use crate::observe::client;
use crate::sampling::report::Report;
use crate::sampling::run::{MAX_LENGTH, Question};

/// Something is missed, or counted twice.
const FOUND: u8 = 1;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks the running acctd, and prints what it missed, largest first.
pub fn run(args: &ExplainArgs) -> Result<ExitCode> {
    let address = args.asked.address()?;
    let question = Question {
        prefixes: args.prefixes.iter().map(|it| it.0).collect(),
        length: args.length.min(MAX_LENGTH),
    };
    let before = gather::counters();
    if !args.json {
        let length = question.length;
        // A closed standard error does not affect the answer.
        let _ignored = writeln!(io::stderr(), "acctd samples packets for {length:?}");
    }
    let body = serde_json::to_string(&question)?;
    let answer = client::ask(address, "/explain", Some(body), question.length + PATIENCE).context(
        "acctd explain needs an acctd that runs with --crosscheck and --listen unix:PATH",
    )?;
    let report: Report = serde_json::from_str(&answer)
        .with_context(|| format!("{address} is not an acctd, or has another version"))?;
    let situation = gather::gather(&before)?;
    let mut passed = report.passed.iter();
    if let Some(absent) = passed.find(|it| situation.interface(&it.interface).is_none()) {
        bail!(
            "{}, which acctd cross-checks, is not in this network namespace: run acctd explain in acctd's (nsenter --net)",
            absent.interface
        );
    }
    let found = findings(&report, &situation);
    let mut out = io::stdout().lock();
    if args.json {
        let causes: Vec<_> = found.iter().map(|it| it.explain(args.check)).collect();
        let all = json!({ "report": report, "causes": causes });
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        writeln!(out, "{}", summary(&report))?;
        for finding in &found {
            write!(out, "{finding}")?;
            if args.trace {
                write_trace(&mut out, finding)?;
            }
            if args.check
                && let Some(checked) = finding.cause.cure.check()
            {
                match checked {
                    Ok(()) => writeln!(out, "  nft accepts it")?,
                    Err(error) => writeln!(out, "  nft refuses it: {error}")?,
                }
            }
        }
    }
    Ok(match found.len() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FOUND),
    })
}

/// The rules that a packet of the first flow meets.
fn write_trace(out: &mut impl io::Write, finding: &Finding<'_>) -> Result<()> {
    let mut flows = finding.flows.iter();
    let passed = flows.find_map(|flow| match flow {
        Flow::Passed(passed) => Some(*passed),
        Flow::Logged(_) => None,
    });
    let Some(passed) = passed else {
        return Ok(());
    };
    let lines = trace::trace(passed)?;
    if lines.is_empty() {
        writeln!(
            out,
            "  no packet of {} met a rule within two seconds",
            passed.flow
        )?;
    }
    for line in lines {
        writeln!(out, "  met: {line}")?;
    }
    Ok(())
}

fn summary(report: &Report) -> String {
    let totals = &report.totals;
    let mut text = format!(
        "{} packets sampled in {} s: {} seen by both, {} by TC alone",
        thousands(totals.sampled),
        report.seconds,
        thousands(totals.by_both),
        thousands(totals.by_tc_alone),
    );
    for (number, what) in [
        (totals.not_judged, "not judged"),
        (totals.by_nflog_alone, "by NFLOG alone"),
        (totals.by_nflog_twice, "by NFLOG twice"),
        (totals.samples_lost, "samples lost"),
    ] {
        if number > 0 {
            text = format!("{text}, {} {what}", thousands(number));
        }
    }
    if totals.overran {
        text.push_str("; a group's socket overran meanwhile, so nothing is held against NFLOG");
    }
    text
}
