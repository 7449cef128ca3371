//! The traffic generator alone, for testkit's own tests.

use std::process::ExitCode;

use testkit::{programs::exit_code, traffic::run_if_asked};

fn main() -> ExitCode {
    exit_code("traffic", run_if_asked().unwrap_or(Ok(())))
}
