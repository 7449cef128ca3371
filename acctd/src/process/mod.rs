//! What acctd needs of and gives up in its own process.

pub mod kernel;
pub mod priority;
pub mod signals;
pub mod time_zone;
pub mod user;
