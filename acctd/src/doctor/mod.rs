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
pub mod findings;
pub mod interfaces;
pub mod links;
pub mod live;
mod loaded_rules;
mod nft_json;
pub mod ruleset;

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::cli::flags::Flags;
use crate::cli::go_flags;
use crate::config::Config;
use facts::Facts;
use findings::{Finding, Severity, findings};
use live::measured::Measured;

/// The flags of `acctd doctor`: those of the acctd that it looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// As JSON: a list of what is found, with the severity, an id, what it is and the cure.
    #[arg(long)]
    pub json: bool,

    /// Measure for so long instead of judging alone: what passes the interfaces, meets the rules, and is logged.
    ///
    /// On the interfaces of --crosscheck, or those with a default route. It sets counters in a table of its own
    /// and attaches the cross-check's programs, and takes both away again. Groups that nobody reads it reads itself;
    /// of those that acctd reads, it asks the one behind --listen. --json has a group's numbers in one object.
    #[arg(long, value_name = "DURATION", value_parser = parse_live)]
    pub live: Option<Duration>,

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
            writeln!(out, "OK: {}", findings::coverage(&config, &facts))?;
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

fn parse_live(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
    let length = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() || length > LONGEST {
        return Err("is no time to measure for: use 10s, at most 24h".to_owned());
    }
    Ok(length)
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
