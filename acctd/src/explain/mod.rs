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
mod gather;
mod logged;
mod situation;
mod trace;
mod view;

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cause::Cause;
use serde_json::json;
use situation::Situation;

use crate::cli::commands::ExplainArgs;
use crate::model::human::{bytes, thousands};
use crate::observe::client;
use crate::sampling::report::{LoggedOnly, Passed, Report};
use crate::sampling::run::{MAX_LENGTH, Question};

/// Something is missed, or counted twice.
const FOUND: u8 = 1;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Flows that are listed of a cause.
const MAX_SHOWN: usize = 5;

/// Flows with one cause.
struct Finding<'r> {
    cause: Cause,
    flows: Vec<Flow<'r>>,
}

enum Flow<'r> {
    Passed(&'r Passed),
    Logged(&'r LoggedOnly),
}

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
        let causes: Vec<_> = found.iter().map(|it| as_json(it, args.check)).collect();
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

fn findings<'r>(report: &'r Report, situation: &Situation) -> Vec<Finding<'r>> {
    let mut found: Vec<Finding<'r>> = Vec::new();
    let mut add = |cause: Cause, flow: Flow<'r>| match found.iter_mut().find(|it| it.cause == cause)
    {
        Some(known) => known.flows.push(flow),
        None => found.push(Finding {
            cause,
            flows: vec![flow],
        }),
    };
    for passed in report.passed.iter().filter(|it| it.by_tc_alone > 0) {
        let cause = cause::of_passed(passed, &report.groups, situation);
        add(cause, Flow::Passed(passed));
    }
    for logged in &report.logged {
        let cause = logged::cause(logged, &report.interfaces, situation);
        add(cause, Flow::Logged(logged));
    }
    found.sort_by_key(|it| std::cmp::Reverse(it.packets()));
    found
}

impl Finding<'_> {
    fn packets(&self) -> u64 {
        self.flows.iter().map(Flow::packets).sum()
    }
}

impl Flow<'_> {
    fn packets(&self) -> u64 {
        match self {
            Self::Passed(passed) => passed.by_tc_alone,
            Self::Logged(logged) => logged.by_nflog_alone + logged.by_nflog_twice,
        }
    }
}

fn as_json(finding: &Finding<'_>, is_checked: bool) -> serde_json::Value {
    let checked = is_checked.then(|| finding.cause.cure.check()).flatten();
    let flows: Vec<String> = finding.flows.iter().map(ToString::to_string).collect();
    json!({
        "id": finding.cause.id,
        "packets": finding.packets(),
        "flows": flows,
        "cause": finding.cause.why,
        "cure": finding.cause.cure.to_string(),
        "check": checked.map(|it| it.map_or_else(|error| error.to_string(), |()| "ok".to_owned())),
    })
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

/// The flows, the cause and the cure, a line each.
impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for flow in self.flows.iter().take(MAX_SHOWN) {
            writeln!(f, "{flow}")?;
        }
        let more = self.flows.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            let packets = self.flows.iter().skip(MAX_SHOWN).map(Flow::packets);
            writeln!(
                f,
                "and {more} more flows: {} packets",
                thousands(packets.sum())
            )?;
        }
        writeln!(f, "  because {} [{}]", self.cause.why, self.cause.id)?;
        writeln!(f, "  -> {}", self.cause.cure)
    }
}

impl fmt::Display for Flow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(passed) => write!(
                f,
                "{}, {} {}: {} packets, {}, seen by TC alone",
                passed.flow,
                if passed.is_egress { "out by" } else { "in by" },
                passed.interface,
                thousands(passed.by_tc_alone),
                bytes(passed.bytes_by_tc_alone)
            ),
            Self::Logged(logged) => {
                write!(f, "{}, group {}", logged.flow, logged.group)?;
                if logged.by_nflog_twice > 0 {
                    let twice = thousands(logged.by_nflog_twice);
                    write!(f, ": {twice} packets, seen by NFLOG twice")?;
                }
                if logged.by_nflog_alone > 0 {
                    let alone = thousands(logged.by_nflog_alone);
                    write!(f, ": {alone} packets, seen by NFLOG alone")?;
                }
                Ok(())
            }
        }
    }
}
