//! What goes into a comparison of one family and side, and what comes out of it.

use acctd_common::Counters;
use acctd_common::contract::EpochValue;

use crate::model::verdict::{Difference, Finding, Verdict};

/// What both sides counted for one prefix in one interval; zero where one saw nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// NFLOG's count.
    pub nflog: Counters,
    /// The TC program's count, over all CPUs and interfaces.
    pub kernel: EpochValue,
}

/// What is known of an interval for this family and side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Some packets carried no kernel time stamp at NFLOG: the allowance is
    /// [`EpochValue::before_end`], else [`EpochValue::near_end`].
    pub unstamped: bool,
    /// Packets that NFLOG is known to have lost, found out in this interval.
    pub lost: u64,
    /// The socket has overflowed, and how many packets are lost is not known yet: what the kernel
    /// has more waits.
    pub loss_is_open: bool,
    /// Packets that NFLOG counted in the zero row because its ledger was full.
    pub nflog_overflow: u64,
    /// Packets that NFLOG counted in this interval though they are stamped in an earlier one.
    pub late: u64,
    /// Packets that the kernel's map had no room for.
    pub kernel_overflow: u64,
    /// The two sides did not watch for the same time: an interface came or went, the clock was
    /// set back, or epochs ran together.
    pub incomparable: bool,
}

/// What an interval has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<K> {
    /// The prefixes that do not match, ascending, each once.
    pub findings: Vec<Finding<K>>,
    /// Prefixes with traffic in this interval that match.
    pub n_match: u64,
    /// Those of them that match only thanks to an allowance.
    pub n_allowed: u64,
    /// Those of them where the kernel counted more and fragments explain it.
    pub n_explained_by_fragments: u64,
    /// NFLOG's count over all prefixes.
    pub nflog: Counters,
    /// The kernel's count over all prefixes.
    pub kernel: Counters,
}

/// The findings of one verdict together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many prefixes.
    pub n_prefixes: u64,
    /// Their differences together.
    pub difference: Difference,
}

impl<K> Outcome<K> {
    /// Adds up the findings of a verdict.
    #[must_use]
    pub fn tally(&self, verdict: Verdict) -> Tally {
        let mut tally = Tally::default();
        for finding in &self.findings {
            if finding.verdict == verdict {
                tally.n_prefixes += 1;
                tally.difference = tally.difference.plus(finding.difference);
            }
        }
        tally
    }
}

impl<K> Default for Outcome<K> {
    /// No prefix seen.
    fn default() -> Self {
        Self {
            findings: Vec::new(),
            n_match: 0,
            n_allowed: 0,
            n_explained_by_fragments: 0,
            nflog: Counters::default(),
            kernel: Counters::default(),
        }
    }
}
