//! The acctd program: parse, resolve, run, exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use acctd::cli::commands::{Cli, Command};
use acctd::cli::flags::Flags;
use acctd::config::Config;
use acctd::explain::helper;
use acctd::observe::{logging, status};
use acctd::process::{signals, time_zone};
use acctd::restart::inherited::{self, NamedFd};
use acctd::{archive, daemon, doctor, explain, report, rules, ship, top};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The exit code of clap for wrong flags.
const USAGE: u8 = 2;
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    // Before anything is opened, because descriptors are known by their numbers.
    let inherited = inherited::take();
    // Before anything is written, even to a log.
    let ignored = signals::ignore_sigxfsz().and_then(|()| signals::ignore_sigusr1());
    if let Err(error) = ignored {
        return fail(&format!("cannot handle signals: {error}"), FAILURE);
    }
    if helper::is_helper() {
        return exit_code(helper::run());
    }
    let cli = match Cli::parse_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match cli.command {
        None => account(cli.flags, inherited),
        Some(Command::Rules(args)) => exit_code(rules::run(&args)),
        Some(Command::Doctor(args)) => exit_code(doctor::run(&args)),
        Some(Command::Status(args)) => exit_code(status::run(&args)),
        Some(Command::Explain(args)) => exit_code(explain::run(&args)),
        Some(Command::Top(args)) => exit_code(top::run(&args)),
        Some(Command::Report(args)) => exit_code(report::run(&args)),
        Some(Command::Archive(args)) => exit_code(archive::run(&args)),
        Some(Command::Ship(args)) => exit_code(ship::run(&args)),
    }
}

fn account(flags: Flags, inherited: io::Result<Vec<NamedFd>>) -> ExitCode {
    let config = match Config::resolve(flags) {
        Ok(config) => config,
        Err(error) => return fail(&error, USAGE),
    };
    let zone = time_zone::check(config.zone);
    if let Err(error) = &zone
        && error.is_usage()
    {
        return fail(error, USAGE);
    }
    if let Err(error) = logging::start(config.syslog, config.debug) {
        return fail(&format!("{error:#}"), FAILURE);
    }
    if let Err(error) = zone {
        log::warn!("{error}");
    }
    match daemon::run(&config, inherited) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn exit_code(command: anyhow::Result<ExitCode>) -> ExitCode {
    command.unwrap_or_else(|error| {
        let is_broken_pipe = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
        // Not an error: `acctd rules | head` ends so. A connection that breaks is one.
        if error.downcast_ref().is_some_and(is_broken_pipe) && is_output_closed() {
            return ExitCode::SUCCESS;
        }
        fail(&format!("{error:#}"), FAILURE)
    })
}

/// Whether nobody reads standard output any more.
fn is_output_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec::default();
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().contains(PollFlags::ERR)
}

fn fail(error: &impl std::fmt::Display, code: u8) -> ExitCode {
    // There is no log yet. If stderr is closed, the exit code remains.
    let _ignored = writeln!(std::io::stderr(), "acctd: error: {error}");
    ExitCode::from(code)
}
