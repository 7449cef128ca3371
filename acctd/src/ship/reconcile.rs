//! Compares all files that are kept with what the database has of them.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use log::{error, info};

use super::local::Finished;
use super::send::Sender;
use crate::files::calendar::utc_day;
use crate::model::human::thousands;
use crate::model::interval::UnixNanos;
use crate::observe::metrics::seconds;

/// How a file compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    /// It has no mark.
    NotThere,
    /// The database has other rows.
    Differs,
    /// It is not the file that was sent, or it is damaged.
    Changed,
}

/// In the order of the table's columns.
const OUTCOMES: [(Outcome, &str); 4] = [
    (Outcome::Same, "same"),
    (Outcome::NotThere, "not there"),
    (Outcome::Differs, "differ"),
    (Outcome::Changed, "changed"),
];

struct Compared {
    file: String,
    rows: u64,
    outcome: Outcome,
    /// Why it is not the same.
    why: String,
}

/// Prints how many files of each day (UTC) are the same, and what is wrong with the others.
pub(super) fn verify(sender: &mut Sender) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    write!(out, "{:10} {:>6} {:>14}", "day", "files", "rows")?;
    for (_, title) in OUTCOMES {
        write!(out, " {title:>9}")?;
    }
    writeln!(out)?;
    let mut others = Vec::new();
    for (day, files) in by_day(sender)? {
        let compared = compare(sender, &files)?;
        let rows = compared.iter().map(|it| it.rows).sum();
        write!(out, "{day:10} {:>6} {:>14}", files.len(), thousands(rows))?;
        for (outcome, _) in OUTCOMES {
            let of_outcome = compared.iter().filter(|it| it.outcome == outcome);
            write!(out, " {:>9}", of_outcome.count())?;
        }
        writeln!(out)?;
        others.extend(
            compared
                .into_iter()
                .filter(|it| it.outcome != Outcome::Same),
        );
    }
    for other in &others {
        writeln!(out, "{}: {}", other.file, other.why)?;
    }
    Ok(if others.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Has files sent again that the database has otherwise.
pub(super) fn reconcile(sender: &mut Sender) -> Result<()> {
    // Marks may be lost too.
    sender.disconnect();
    let mut n_same = 0_i64;
    let mut n_others = 0;
    for files in by_day(sender)?.values() {
        for compared in compare(sender, files)? {
            match compared.outcome {
                Outcome::Same => n_same += 1,
                // It is about to be sent.
                Outcome::NotThere => {}
                Outcome::Differs | Outcome::Changed => {
                    n_others += 1;
                    error!("{}: {}", compared.file, compared.why);
                }
            }
            if compared.outcome == Outcome::Differs {
                sender.send_again(compared.file);
            }
        }
    }
    let n_days = sender.check_roll_ups()?;
    if n_days > 0 {
        error!(
            "the sums of {n_days} days in the database are not those of their files: they are added up again"
        );
    }
    sender.state().differing.set(n_others);
    sender.state().reconciled.set(seconds(UnixNanos::now()));
    info!("{n_same} files are the same in the database; {n_others} are not");
    Ok(())
}

fn by_day(sender: &mut Sender) -> Result<BTreeMap<String, Vec<Finished>>> {
    sender.central()?;
    let mut days: BTreeMap<String, Vec<Finished>> = BTreeMap::new();
    for file in sender.kept()? {
        days.entry(utc_day(file.period.start))
            .or_default()
            .push(file);
    }
    Ok(days)
}

fn compare(sender: &mut Sender, files: &[Finished]) -> Result<Vec<Compared>> {
    let found = sender.central()?.sums(files)?;
    let compared = files.iter().map(|file| {
        let content = file.content();
        let rows = content.as_ref().map_or(0, |content| content.sums.rows);
        let (outcome, why) = match (content, sender.marks.get(&file.name)) {
            (Err(error), _) => (Outcome::Changed, format!("{error:#}")),
            (Ok(_), None) => (Outcome::NotThere, "it is not in the database".to_owned()),
            (Ok(content), Some(mark)) if content.sha256 != mark.sha256 => (
                Outcome::Changed,
                "it is not the file that was sent: it was changed, or another machine sends as this host".to_owned(),
            ),
            (Ok(content), Some(_)) => {
                let found = found.get(&file.name).copied().unwrap_or_default();
                if found == content.sums {
                    (Outcome::Same, String::new())
                } else {
                    (Outcome::Differs, content.sums.differs(&found))
                }
            }
        };
        Compared {
            file: file.name.clone(),
            rows,
            outcome,
            why,
        }
    });
    Ok(compared.collect())
}
