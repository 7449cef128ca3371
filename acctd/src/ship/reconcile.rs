//! Compares all files that are kept with what was sent of them.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use log::{error, info};

use super::sink::{Compared, Outcome, Sink};
use crate::model::human::thousands;
use crate::model::interval::UnixNanos;
use crate::observe::metrics::seconds;

/// In the order of the table's columns.
const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Same, "same"),
    (Outcome::NotThere, "not there"),
    (Outcome::Differs, "differ"),
    (Outcome::Changed, "changed"),
];

/// Prints how many files of each day (UTC) are the same, and what is wrong with the others.
pub(super) fn verify(sink: &mut impl Sink) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    write!(out, "{:10} {:>6} {:>14}", "day", "files", "rows")?;
    for (_, title) in OUTCOMES {
        write!(out, " {title:>9}")?;
    }
    writeln!(out)?;
    let mut others = Vec::new();
    sink.compare(&mut |day, compared| {
        let rows = compared.iter().map(|it| it.rows).sum();
        write!(
            out,
            "{day:10} {:>6} {:>14}",
            compared.len(),
            thousands(rows)
        )?;
        for (outcome, _) in OUTCOMES {
            let of_outcome = compared.iter().filter(|it| it.outcome == outcome);
            write!(out, " {:>9}", of_outcome.count())?;
        }
        writeln!(out)?;
        let not_same = |it: &Compared| it.outcome != Outcome::Same;
        others.extend(compared.into_iter().filter(not_same));
        Ok(())
    })?;
    for other in &others {
        writeln!(out, "{}: {}", other.file, other.why)?;
    }
    Ok(if others.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Has files sent again of which something else is there.
pub(super) fn reconcile(sink: &mut impl Sink) -> Result<()> {
    // Marks may be lost too.
    sink.disconnect();
    let mut n_same = 0_i64;
    let mut others = Vec::new();
    sink.compare(&mut |_, compared| {
        for it in compared {
            match it.outcome {
                Outcome::Same => n_same += 1,
                // It is about to be sent.
                Outcome::NotThere => {}
                Outcome::Differs | Outcome::Changed => {
                    error!("{}: {}", it.file, it.why);
                    others.push(it);
                }
            }
        }
        Ok(())
    })?;
    let n_others = i64::try_from(others.len())?;
    for other in others {
        if other.outcome == Outcome::Differs {
            sink.send_again(other.file);
        }
    }
    let n_days = sink.check_roll_ups()?;
    if n_days > 0 {
        error!(
            "the sums of {n_days} days in the database are not those of their files: they are added up again"
        );
    }
    sink.state().differing.set(n_others);
    sink.state().reconciled.set(seconds(UnixNanos::now()));
    info!("{n_same} files are the same there; {n_others} are not");
    Ok(())
}
