//! When an interval is over, and what is in it.

mod closed_slots;
mod comparable;
pub mod engine;
pub mod kernel;
mod saving;
pub mod timeline;
