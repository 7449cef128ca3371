//! The process that reads the rules for `--explain`.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use anyhow::Result;

use super::findings::{MAX_SHOWN, findings};
use super::gather;
use super::unattended::{Answer, Ask, HELPER_NAME};
use crate::process::priority::yield_to_readers_and_others;

/// Whether this process is the helper.
#[must_use]
pub fn is_helper() -> bool {
    std::env::args_os()
        .next()
        .is_some_and(|it| it == HELPER_NAME)
}

/// Answers until its input ends.
pub fn run() -> Result<ExitCode> {
    yield_to_readers_and_others();
    let mut before = gather::counters();
    for line in io::stdin().lock().lines() {
        let report = match serde_json::from_str(&line?)? {
            Ask::Before => {
                before = gather::counters();
                continue;
            }
            Ask::Explain(report) => report,
        };
        let situation = gather::gather(&before);
        let answer: Answer = situation
            .map(|situation| {
                let found = findings(&report, &situation);
                let mut all: Vec<_> = found.iter().map(|it| it.explain(false)).collect();
                for one in &mut all {
                    one.flows.truncate(MAX_SHOWN);
                }
                all
            })
            .map_err(|error| format!("{error:#}"));
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        writeln!(out)?;
    }
    Ok(ExitCode::SUCCESS)
}
