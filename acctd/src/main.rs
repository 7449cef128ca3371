//! The acctd program: parse, resolve, run, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use acctd::cli::commands::{Cli, Command};
use acctd::cli::flags::Flags;
use acctd::config::Config;
use acctd::observe::{logging, status};
use acctd::process::{signals, time_zone};
use acctd::restart::inherited;
use acctd::restart::inherited::Named;
use acctd::{daemon, doctor, rules};

/// Wrong flags, as clap has it.
const USAGE: u8 = 2;
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    // Before anything is opened.
    let inherited = inherited::take();
    // Before anything is written, be it to a log.
    let outlived = signals::outlive_file_size_limit().and_then(|()| signals::outlive_questions());
    if let Err(error) = outlived {
        return fail(&format!("cannot take over signals: {error}"), FAILURE);
    }
    let cli = match Cli::parse_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        None => account(cli.flags, inherited),
        Some(Command::Rules(args)) => ended(rules::run(&args)),
        Some(Command::Doctor(args)) => ended(doctor::run(&args)),
        Some(Command::Status(args)) => ended(status::run(&args)),
    }
}

fn account(flags: Flags, inherited: io::Result<Vec<Named>>) -> ExitCode {
    let config = match Config::resolve(flags) {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    let trouble = time_zone::trouble_of(config.zone);
    if let Some(trouble) = &trouble
        && trouble.is_usage()
    {
        return fail(trouble, USAGE);
    }
    if let Err(error) = logging::start(config.syslog, config.debug) {
        return fail(&format!("{error:#}"), FAILURE);
    }
    if let Some(trouble) = trouble {
        log::warn!("{trouble}");
    }
    match daemon::run(&config, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn ended(command: anyhow::Result<ExitCode>) -> ExitCode {
    command.unwrap_or_else(|error| {
        let is_broken_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
        // The reader has seen enough, as in `acctd rules | head`.
        if error.downcast_ref().is_some_and(is_broken_pipe) {
            return ExitCode::SUCCESS;
        }
        fail(&format!("{error:#}"), FAILURE)
    })
}

fn fail(error: &impl std::fmt::Display, code: u8) -> ExitCode {
    // Before there is a log. A standard error that takes nothing leaves the exit code.
    let _nowhere_to_say = writeln!(std::io::stderr(), "acctd: error: {error}");
    ExitCode::from(code)
}
