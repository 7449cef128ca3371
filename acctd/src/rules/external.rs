//! Runs `nft`, `iptables` and the like. Only the commands `rules`, `doctor` and `explain` do this. The daemon never
//! does: `--explain` has a process of its own for it.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

/// Directories that are not in the PATH of an ordinary user.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

#[derive(Debug, Error)]
pub(crate) enum ExternalError {
    #[error("{program} is not installed: apt-get install {package}")]
    Missing {
        program: String,
        /// The Debian package of the program.
        package: &'static str,
    },
    #[error("cannot run {program}: {source}")]
    Failed { program: String, source: io::Error },
    #[error("{command}: {message}")]
    Refused {
        command: String,
        /// The program's standard error, or its exit code if that is empty.
        message: String,
    },
}

/// A command that finds `program` where the system's programs are, and whose output acctd can parse.
pub(crate) fn command(program: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    // No translations, no thousands separators.
    command
        .env("PATH", format!("{path}:{SBIN}"))
        .env("LC_ALL", "C");
    command
}

/// Runs `program` with `input` as its standard input. Returns its standard output.
pub(crate) fn run(program: &str, args: &[&str], input: &str) -> Result<String, ExternalError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ExternalError::Missing {
            program: program.to_owned(),
            package: package_of(program),
        },
        _ => ExternalError::Failed {
            program: program.to_owned(),
            source,
        },
    };
    let mut child = command(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the program ends early, its exit code is the error to report.
        let _refused = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        return Err(ExternalError::Refused {
            command: [program]
                .iter()
                .chain(args)
                .copied()
                .collect::<Vec<_>>()
                .join(" "),
            message: message(&output),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn message(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.is_empty() {
        output.status.to_string()
    } else {
        text
    }
}

fn package_of(program: &str) -> &'static str {
    match program {
        "nft" => "nftables",
        "ip" | "tc" | "bridge" => "iproute2",
        "ethtool" => "ethtool",
        _ => "iptables",
    }
}

/// If the program is not installed, it has loaded nothing.
pub(crate) fn if_installed(listed: Result<String, ExternalError>) -> Result<String, ExternalError> {
    match listed {
        Err(ExternalError::Missing { .. }) => Ok(String::new()),
        listed => listed,
    }
}
