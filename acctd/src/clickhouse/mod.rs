//! ClickHouse, as a client sees it.

pub(crate) mod http;
