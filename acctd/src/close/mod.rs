//! When an interval is over, and what is in it.

pub mod engine;
pub mod timeline;
