//! Servers, as a client sees them.

mod agent;
pub(crate) mod clickhouse;
pub(crate) mod s3;
