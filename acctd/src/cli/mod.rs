//! The command line: flags, go-nflog-acctd's spellings of them, and the values that they make.

pub mod commands;
pub mod flags;
pub mod go_flags;
pub mod resolve;
