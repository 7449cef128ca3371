//! `acctd status`: asks a running acctd what it is doing.

use anyhow::Result;

/// The flags of `acctd status`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}

/// Asks and prints.
pub fn run(_args: &Args) -> Result<std::process::ExitCode> {
    anyhow::bail!("not built yet")
}
