//! What a running acctd reports: log, metrics, status, profile.

pub(crate) mod client;
pub mod http;
pub(crate) mod live;
pub mod logging;
pub(crate) mod metrics;
pub(crate) mod paths;
pub(crate) mod process_usage;
pub(crate) mod profile;
pub(crate) mod state;
pub mod status;
pub(crate) mod warnings;
