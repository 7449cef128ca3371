//! Flows that one side alone saw, by cause.

use std::fmt;

use super::cause;
use super::cure::Cause;
use super::logged;
use super::situation::Situation;
use crate::model::explanation::Explanation;
use crate::model::human::{bytes, thousands};
use crate::sampling::report::{LoggedOnly, Passed, Report};

/// Flows that are listed of a cause.
pub(super) const MAX_SHOWN: usize = 5;

/// Flows with one cause.
pub(super) struct Finding<'r> {
    pub(super) cause: Cause,
    pub(super) flows: Vec<Flow<'r>>,
}

pub(super) enum Flow<'r> {
    Passed(&'r Passed),
    Logged(&'r LoggedOnly),
}

/// The causes with the most packets first.
pub(super) fn findings<'r>(report: &'r Report, situation: &Situation) -> Vec<Finding<'r>> {
    let mut found: Vec<Finding<'r>> = Vec::new();
    let mut add = |cause: Cause, flow: Flow<'r>| match found.iter_mut().find(|it| it.cause == cause)
    {
        Some(known) => known.flows.push(flow),
        None => found.push(Finding {
            cause,
            flows: vec![flow],
        }),
    };
    for passed in report.passed.iter().filter(|it| it.by_tc_alone > 0) {
        let cause = cause::of_passed(passed, &report.groups, situation);
        add(cause, Flow::Passed(passed));
    }
    for logged in &report.logged {
        let cause = logged::cause(logged, &report.interfaces, situation);
        add(cause, Flow::Logged(logged));
    }
    found.sort_by_key(|it| std::cmp::Reverse(it.packets()));
    found
}

impl Finding<'_> {
    fn packets(&self) -> u64 {
        self.flows.iter().map(Flow::packets).sum()
    }

    /// In words; if `is_checked`, with what nft says of the cure.
    pub(super) fn explain(&self, is_checked: bool) -> Explanation {
        let cure = &self.cause.cure;
        let checked = is_checked.then(|| cure.check()).flatten();
        Explanation {
            id: self.cause.id.to_owned(),
            packets: self.packets(),
            flows: self.flows.iter().map(ToString::to_string).collect(),
            cause: self.cause.why.clone(),
            cure: cure.to_string(),
            check: checked
                .map(|it| it.map_or_else(|error| error.to_string(), |()| "ok".to_owned())),
        }
    }
}

impl Flow<'_> {
    fn packets(&self) -> u64 {
        match self {
            Self::Passed(passed) => passed.by_tc_alone,
            Self::Logged(logged) => logged.by_nflog_alone + logged.by_nflog_twice,
        }
    }
}

/// The flows, the cause and the cure, a line each.
impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for flow in self.flows.iter().take(MAX_SHOWN) {
            writeln!(f, "{flow}")?;
        }
        let more = self.flows.len().saturating_sub(MAX_SHOWN);
        if more > 0 {
            let packets = self.flows.iter().skip(MAX_SHOWN).map(Flow::packets);
            writeln!(
                f,
                "and {more} more flows: {} packets",
                thousands(packets.sum())
            )?;
        }
        writeln!(f, "  because {} [{}]", self.cause.why, self.cause.id)?;
        writeln!(f, "  -> {}", self.cause.cure)
    }
}

impl fmt::Display for Flow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed(passed) => write!(
                f,
                "{}, {} {}: {} packets, {}, seen by TC alone",
                passed.flow,
                if passed.is_egress { "out by" } else { "in by" },
                passed.interface,
                thousands(passed.by_tc_alone),
                bytes(passed.bytes_by_tc_alone)
            ),
            Self::Logged(logged) => {
                write!(f, "{}, group {}", logged.flow, logged.group)?;
                if logged.by_nflog_twice > 0 {
                    let twice = thousands(logged.by_nflog_twice);
                    write!(f, ": {twice} packets, seen by NFLOG twice")?;
                }
                if logged.by_nflog_alone > 0 {
                    let alone = thousands(logged.by_nflog_alone);
                    write!(f, ": {alone} packets, seen by NFLOG alone")?;
                }
                Ok(())
            }
        }
    }
}
