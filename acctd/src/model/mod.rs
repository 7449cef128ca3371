//! Words that all parts use: prefixes, intervals, counts. No I/O.

pub mod counts;
pub mod human;
pub mod interval;
pub mod prefix;
