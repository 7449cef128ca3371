//! Other programs, which only acctd's commands start (`rules`, `doctor`), never the daemon: `nft`,
//! `iptables` and the like.

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

/// Where administrators' programs are, which the path of an ordinary user leaves out.
const SBIN: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// Why a program has not done its work.
#[derive(Debug, Error)]
pub(crate) enum ExternalError {
    /// It is not there.
    #[error("{program} is not installed: apt-get install {package}")]
    Missing {
        /// Its name.
        program: String,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// It could not be started or spoken to.
    #[error("cannot run {program}: {source}")]
    Failed {
        /// Its name.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// It refuses.
    #[error("{command}: {message}")]
    Refused {
        /// As typed.
        command: String,
        /// What it wrote to its standard error, or its exit code if that is nothing.
        message: String,
    },
}

/// What `program` prints, with `input` as its standard input.
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
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", format!("{path}:{SBIN}"))
        // Its messages are read by acctd, and numbers have no thousands separators there.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not want to know says so with its exit code.
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

/// Where there is no nft, nothing is loaded.
pub(crate) fn if_installed(listed: Result<String, ExternalError>) -> Result<String, ExternalError> {
    match listed {
        Err(ExternalError::Missing { .. }) => Ok(String::new()),
        listed => listed,
    }
}
