//! `acctd doctor`: looks for what would keep packets from being counted, and says how to cure it.
//!
//! ```text
//!  the machine ─► facts ─► findings (pure) ─► lines or JSON
//!  nft, iptables ─► ruleset (pure) ─┘     what rules log, and what is before it
//!  packets, counters ─► live            what passes, meets the rules, is logged
//! ```

#[expect(unsafe_code, reason = "adjtimex(2) has no safe interface")]
pub mod clock_sync;
pub mod facts;
pub mod finding;
pub mod findings;
mod gather;
pub mod interface_facts;
pub mod links;
pub mod live;

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

/// Looks around and says what is found: worst first, a line each, or OK and what the groups see.
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
