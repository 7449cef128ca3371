//! The log: to stderr as Go's log package writes it, or to syslog.

use std::io::Write;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use log::{Level, LevelFilter, Log, Metadata, Record};
use syslog::{Facility, LogFormat, Logger, LoggerBackend, Severity};

use crate::model::interval::UnixNanos;
use crate::model::zone::Zone;

/// Starts logging; before, the `log` macros write nothing.
pub fn start(to_syslog: bool, debug: bool) -> Result<()> {
    let level = if debug {
        LevelFilter::Debug
    } else {
        LevelFilter::Info
    };
    if to_syslog {
        start_syslog(level)
    } else {
        start_stderr(level)
    }
}

fn start_stderr(level: LevelFilter) -> Result<()> {
    env_logger::Builder::new()
        .filter_module("acctd", level)
        .format(|line, record| {
            writeln!(
                line,
                "{} {}{}",
                Zone::Local.log_time(UnixNanos::now()),
                prefix(record.level()),
                record.args()
            )
        })
        .try_init()
        .context("cannot start logging")
}

/// go-nflog-acctd writes no levels. acctd marks warnings and errors, so that a search finds them.
fn prefix(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info | Level::Debug | Level::Trace => "",
    }
}

fn start_syslog(level: LevelFilter) -> Result<()> {
    let logger = syslog::unix(Rfc3164)
        .map_err(|error| anyhow!("cannot log to syslog: {error}; is a syslog daemon running?"))?;
    log::set_boxed_logger(Box::new(Syslog(Mutex::new(logger)))).context("cannot start logging")?;
    log::set_max_level(level);
    Ok(())
}

struct Syslog(Mutex<Logger<LoggerBackend, Rfc3164>>);

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("acctd")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Ok(mut logger) = self.0.lock() else {
            return;
        };
        let message = record.args().to_string();
        if send(&mut logger, record.level(), &message).is_ok() {
            return;
        }
        // The syslog daemon may have restarted and have a new socket.
        if let Ok(mut connected) = syslog::unix(Rfc3164) {
            // If this fails too, there is no place to report it.
            let _lost = send(&mut connected, record.level(), &message);
            *logger = connected;
        }
    }

    fn flush(&self) {}
}

fn send(
    logger: &mut Logger<LoggerBackend, Rfc3164>,
    level: Level,
    message: &str,
) -> syslog::Result<()> {
    match level {
        Level::Error => logger.err(message),
        Level::Warn => logger.warning(message),
        Level::Info => logger.info(message),
        Level::Debug | Level::Trace => logger.debug(message),
    }
}

/// Lines as local daemons write them: Go's default facility (kern) and local time. The syslog crate's
/// formatter writes UTC in a process with threads.
#[derive(Clone, Debug)]
struct Rfc3164;

impl LogFormat<&str> for Rfc3164 {
    fn format<W: Write>(
        &self,
        target: &mut W,
        severity: Severity,
        message: &str,
    ) -> syslog::Result<()> {
        let priority = Facility::LOG_KERN as u8 | severity as u8;
        let time = Zone::Local.syslog_time(UnixNanos::now());
        write!(
            target,
            "<{priority}>{time} acctd[{}]: {message}",
            std::process::id()
        )?;
        Ok(())
    }
}
