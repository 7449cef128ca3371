//! The command line: commands, flags, Go's spelling of them, and how they become a configuration.

pub mod archive;
pub mod asked;
pub mod commands;
pub mod flags;
pub mod go_flags;
pub mod report;
pub mod resolve;
pub mod server;
pub mod ship;
pub mod target;
pub mod top;
