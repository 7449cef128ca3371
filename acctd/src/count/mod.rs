//! One group's task: packets into the ledgers of their intervals.

pub mod accumulator;
pub(crate) mod capture;
pub mod ledger;
pub(crate) mod overruns;
pub(crate) mod reader;
pub mod slots;
