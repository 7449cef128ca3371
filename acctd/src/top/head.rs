//! The lines above the prefixes.

use std::fmt::Write as _;

use crate::model::human::thousands;
use crate::model::verdict::Verdict;
use crate::observe::live::Live;

/// Lost packets, the cross-check, the next file.
pub(super) fn counts(live: &Live) -> String {
    let status = &live.status;
    let mut text = format!(
        "lost {}, undecodable {}",
        thousands(status.lost()),
        thousands(status.undecodable())
    );
    if let Some(verdicts) = status.verdicts() {
        text.push_str("; last file:");
        for verdict in Verdict::ALL {
            let n = verdicts.get(verdict.field_name()).copied().unwrap_or(0);
            if n > 0 || verdict == Verdict::Match {
                // Writing to a String cannot fail.
                let _infallible = write!(text, " {} {}", thousands(n), verdict.text());
            }
        }
    } else if status.has_crosscheck() {
        text.push_str("; no file with a verdict yet");
    }
    text
}

/// Whether something needs a look: packets are lost, or prefixes do not match.
pub(super) fn is_bad(live: &Live) -> bool {
    let verdicts = live.status.verdicts();
    let n = |verdict: Verdict| verdicts.and_then(|all| all.get(verdict.field_name()).copied());
    live.status.lost() > 0
        || [Verdict::Lost, Verdict::Extra, Verdict::Uncovered]
            .into_iter()
            .any(|verdict| n(verdict).unwrap_or(0) > 0)
}
