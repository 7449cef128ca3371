//! What doctor reports.

use serde::Serialize;

/// Worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// acctd does not start, or counts nothing or twice.
    Error,
    /// acctd may miss packets, or count them differently than expected.
    Warning,
    /// For information; only shown with `--verbose`.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    /// The same in all versions.
    pub(crate) id: &'static str,
    /// What is wrong and where.
    pub(crate) what: String,
    /// What to do: a command, if one helps.
    pub(crate) cure: String,
}

pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, severity: Severity, id: &'static str, what: String, cure: String) {
        self.0.push(Finding {
            severity,
            id,
            what,
            cure,
        });
    }

    pub(super) fn error(&mut self, id: &'static str, what: String, cure: String) {
        self.add(Severity::Error, id, what, cure);
    }

    pub(super) fn warning(&mut self, id: &'static str, what: String, cure: String) {
        self.add(Severity::Warning, id, what, cure);
    }

    pub(super) fn note(&mut self, id: &'static str, what: String, cure: String) {
        self.add(Severity::Note, id, what, cure);
    }
}
