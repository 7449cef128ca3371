//! Types that all parts use: prefixes, intervals, counts. No I/O.

pub mod closed_interval;
pub mod columns;
pub mod counts;
pub mod crosscheck_state;
pub mod entries;
pub mod explanation;
pub mod group;
pub mod human;
pub mod interval;
pub mod kernel_counts;
pub mod position;
pub mod prefix;
pub mod row;
pub mod shutdown_mode;
pub mod stored_key;
pub mod verdict;
pub mod zone;
