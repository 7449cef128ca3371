//! What a running acctd says of itself: log, metrics, status, profile.

pub mod http;
pub mod logging;
pub mod metrics;
pub mod process_usage;
pub mod profile;
pub mod state;
pub mod status;
pub mod warnings;
