//! `acctd doctor`: finds what would keep packets from being counted, and says how to fix it.
//!
//! ```text
//!  the machine ─► facts ─► findings (pure) ─► lines or JSON
//!  nft, iptables ─► ruleset (pure) ─┘     what rules log, and what packets pass before
//!  packets, counters ─► live            how many packets pass, match the rules, are logged
//! ```

#[expect(unsafe_code, reason = "adjtimex(2) has no safe interface")]
pub mod clock_sync;
mod facts;
mod finding;
mod findings;
mod gather;
mod interface_facts;
mod links;
mod live;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use facts::Facts;
use finding::{Finding, Severity};
use findings::coverage::coverage;
use findings::findings;
use live::measured::Measured;

use crate::cli::commands::DoctorArgs;
use crate::config::Config;

const WARNINGS: u8 = 1;
const WILL_NOT_WORK: u8 = 2;

/// Prints the findings, worst first, a line each; without any, OK and what the groups see.
pub fn run(args: &DoctorArgs) -> Result<ExitCode> {
    let config = match Config::resolve(args.flags.clone()) {
        Ok(config) => config,
        Err(error) => {
            writeln!(io::stderr(), "acctd: error: {error}")?;
            return Ok(ExitCode::from(WILL_NOT_WORK));
        }
    };
    let facts = Facts::gather(&config);
    let mut found = findings(&config, &facts);
    if !config.verbose {
        found.retain(|finding| finding.severity < Severity::Note);
    }
    let measured = match args.live {
        Some(length) => Some(live::measure(&config, &facts, &found, length)?),
        None => None,
    };
    let mut out = io::stdout().lock();
    if args.json {
        let text = match &measured {
            Some(measured) => serde_json::to_string_pretty(&measured.with_findings(&found))?,
            None => serde_json::to_string_pretty(&found)?,
        };
        writeln!(out, "{text}")?;
    } else {
        if let Some(measured) = &measured {
            write!(out, "{measured}")?;
            measured.rank(&mut found);
        }
        for finding in &found {
            writeln!(out, "{}", line(finding))?;
        }
        if found
            .iter()
            .all(|finding| finding.severity == Severity::Note)
            && measured.as_ref().is_none_or(Measured::is_whole)
        {
            writeln!(out, "OK: {}", coverage(&config, &facts))?;
        }
    }
    let is_whole = measured.is_none_or(|it| it.is_whole());
    Ok(match found.iter().map(|finding| finding.severity).min() {
        Some(Severity::Error) => ExitCode::from(WILL_NOT_WORK),
        Some(Severity::Warning) => ExitCode::from(WARNINGS),
        _ if !is_whole => ExitCode::from(WARNINGS),
        Some(Severity::Note) | None => ExitCode::SUCCESS,
    })
}

fn line(finding: &Finding) -> String {
    let Finding {
        severity,
        id,
        what,
        cure,
    } = finding;
    let severity = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    format!("{severity}: {what} -> {cure} [{id}]")
}
