//! One group's task: packets into the ledgers of their intervals.

pub mod accumulator;
pub mod ledger;
pub mod overruns;
pub mod reader;
pub mod slots;
