//! `acctd doctor`: looks for what would keep packets from being counted.

use anyhow::Result;

/// The flags of `acctd doctor`: those of the acctd that it looks at.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Those of the daemon.
    #[command(flatten)]
    pub flags: crate::cli::Flags,
}

/// Looks around and says what is found.
pub fn run(_args: &Args) -> Result<std::process::ExitCode> {
    anyhow::bail!("not built yet")
}
