//! The process itself: signals, priorities, user, time zone.

pub mod kernel;
pub(crate) mod priority;
pub mod signals;
pub mod time_zone;
pub mod user;
