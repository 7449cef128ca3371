//! Before the first packet is counted: checks, the log directory, the groups, and dropping privileges.

pub(crate) mod preflight;
pub(crate) mod privilege;
