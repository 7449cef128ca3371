//! `acctd rules`: the nftables or iptables rules that log what acctd is to count.

use anyhow::Result;

/// The flags of `acctd rules`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The groups that the rules log to.
    #[command(flatten)]
    pub groups: crate::cli::GroupFlags,
}

/// Prints, loads, removes or checks the rules.
pub fn run(_args: &Args) -> Result<std::process::ExitCode> {
    anyhow::bail!("not built yet")
}
