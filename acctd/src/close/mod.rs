//! When an interval is over, and what is in it.

mod closed_slots;
mod comparable;
pub(crate) mod engine;
pub(crate) mod kernel;
mod saving;
pub mod timeline;
