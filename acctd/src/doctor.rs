//! `acctd doctor`: looks for what would keep packets from being counted, and says how to cure it.
//!
//! ```text
//!  the machine ─► facts ─► findings (pure) ─► lines or JSON
//!  nft, iptables ─► ruleset (pure) ─┘     what rules log, and what is before it
//! ```

#[expect(unsafe_code, reason = "adjtimex(2) has no safe interface")]
pub mod clock_sync;
pub mod facts;
pub mod findings;
pub mod interfaces;
pub mod links;
mod loaded_rules;
pub mod ruleset;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::Flags;
use crate::config::Config;
use facts::Facts;
use findings::{Finding, Severity, findings};

/// The flags of `acctd doctor`: those of the acctd that it looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// As JSON: a list of what is found, with the severity, an id, what it is and the cure.
    #[arg(long)]
    pub json: bool,

    /// Those of the daemon. With --verbose it says what is good to know besides.
    #[command(flatten)]
    pub flags: Flags,
}

const WARNINGS: u8 = 1;
const WILL_NOT_WORK: u8 = 2;

/// Looks around and says what is found: worst first, a line each, or OK and what the groups see.
pub fn run(args: &Args) -> Result<ExitCode> {
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
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &found)?;
        writeln!(out)?;
    } else {
        for finding in &found {
            writeln!(out, "{}", line(finding))?;
        }
        if found
            .iter()
            .all(|finding| finding.severity == Severity::Note)
        {
            writeln!(out, "OK: {}", findings::coverage(&config, &facts))?;
        }
    }
    Ok(match found.first().map(|finding| finding.severity) {
        Some(Severity::Error) => ExitCode::from(WILL_NOT_WORK),
        Some(Severity::Warning) => ExitCode::from(WARNINGS),
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
