//! The input and the result of comparing one family and side.

use acctd_common::Counters;
use acctd_common::contract::EpochValue;

use crate::model::verdict::Finding;

/// Both counts of one prefix in one interval; zero if there were no packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) nflog: Counters,
    /// The TC programs' count, over all interfaces.
    pub(crate) kernel: EpochValue,
}

/// What may explain differences of an interval, for this family and side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IntervalConditions {
    /// Some packets had no kernel time stamp at NFLOG. Then the allowance is [`EpochValue::before_end`],
    /// otherwise [`EpochValue::near_end`].
    pub(crate) unstamped: bool,
    /// Packets lost by NFLOG, in the interval in which the number became known.
    pub(crate) lost: u64,
    /// The socket has overflowed, and the number of lost packets is not known yet. Until then no verdict is
    /// given for what NFLOG lacks.
    pub(crate) loss_is_open: bool,
    /// Packets that NFLOG counted in the row of the zero address, because its ledger was full.
    pub(crate) nflog_overflow: u64,
    /// Packets that NFLOG counted in this interval although their time stamp is in an earlier one.
    pub(crate) late: u64,
    /// Packets without an entry in the kernel's map, because the map was full.
    pub(crate) kernel_overflow: u64,
    /// The two sides did not count for the same time: an interface appeared or disappeared, the clock was set
    /// back, or one epoch counted several periods.
    pub(crate) incomparable: bool,
}

/// The result of comparing one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome<K> {
    /// The prefixes that do not match, ascending, each once.
    pub(crate) findings: Vec<Finding<K>>,
    /// Prefixes with traffic in this interval that match.
    pub(crate) n_match: u64,
    /// Of these, the ones that match only within the allowance.
    pub(crate) n_allowed: u64,
    /// Of these, the ones where fragments explain why the kernel counted more.
    pub(crate) n_explained_by_fragments: u64,
    /// The sum over all prefixes.
    pub(crate) nflog: Counters,
    /// The sum over all prefixes.
    pub(crate) kernel: Counters,
}

impl<K> Default for Outcome<K> {
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
