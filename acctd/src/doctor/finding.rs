//! A finding, and a list of them.

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not work.
    Error,
    /// Something is not counted, or not as one thinks.
    Warning,
    /// Good to know.
    Note,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Its name, the same in all versions.
    pub id: &'static str,
    /// What is wrong and where.
    pub what: String,
    /// What to do: a command, if there is one.
    pub cure: String,
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
