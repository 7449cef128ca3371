//! The acctd program: parse, resolve, run, exit code.

use std::io::Write as _;
use std::process::ExitCode;

use acctd::cli::Cli;
use acctd::config::Config;
use acctd::{daemon, inherited, logging, shutdown};

/// Wrong flags, as clap has it.
const USAGE: u8 = 2;
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    // Before anything is opened.
    let inherited = inherited::take();
    // Before anything is written, be it to a log.
    if let Err(error) = shutdown::outlive_file_size_limit() {
        return fail(&format!("cannot take over SIGXFSZ: {error}"), FAILURE);
    }
    let config = match Cli::parse_args(std::env::args_os()) {
        Ok(cli) => Config::resolve(cli),
        Err(error) => error.exit(),
    };
    let config = match config {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    if let Err(error) = logging::start(config.syslog, config.debug) {
        return fail(&format!("{error:#}"), FAILURE);
    }
    match daemon::run(&config, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn fail(error: &impl std::fmt::Display, code: u8) -> ExitCode {
    // Before there is a log. A standard error that takes nothing leaves the exit code.
    let _nowhere_to_say = writeln!(std::io::stderr(), "acctd: error: {error}");
    ExitCode::from(code)
}
