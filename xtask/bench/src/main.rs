//! `cargo xtask bench`: what accounting a packet costs, with acctd and with others, on this
//! machine, side by side in one run. Its subcommands measure how that grows, and where it ends.
//!
//! ```text
//!   wire  ── veth ──  router
//!   generator         nft: a counter, the truth, then the receiver's statement
//!   (one core)        one receiver after the other, again and again (another core)
//! ```

use std::{process::ExitCode, thread};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use testkit::{
    interrupt::Interrupt,
    netns::{Privilege, find_program},
    programs, traffic,
};

mod bpf_stats;
mod machine;
mod output;
mod setup;
mod spread;
mod stage;

mod measure;
mod receiver;
mod receivers;
mod turns;

mod close;
mod compare;
mod groups;
mod headroom;
mod prefixes;

/// Measure acctd beside other receivers: CPU time per packet, loss, memory
///
/// Needs root and two cores: one sends, the other receives. Without options it measures every setup,
/// which takes more than an hour; --quick takes two minutes.
#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    bin_name = "cargo xtask bench",
    args_conflicts_with_subcommands = true
)]
struct Bench {
    #[command(flatten)]
    compare: compare::Args,

    #[command(subcommand)]
    scale: Option<Scale>,
}

/// How cost grows, instead of the comparison.
#[derive(clap::Subcommand)]
enum Scale {
    Prefixes(prefixes::Args),
    Groups(groups::Args),
    Close(close::Args),
    Headroom(headroom::Args),
}

fn main() -> ExitCode {
    // This program is its own generator.
    programs::exit_code("bench", traffic::run_if_asked().unwrap_or_else(run))
}

fn run() -> Result<()> {
    let bench = Bench::parse();
    check_machine()?;
    let interrupt = Interrupt::catch()?;
    interrupt.instead_of_error(match &bench.scale {
        None => bench.compare.run(&interrupt),
        Some(Scale::Prefixes(args)) => args.run(&interrupt),
        Some(Scale::Groups(args)) => args.run(&interrupt),
        Some(Scale::Close(args)) => args.run(&interrupt),
        Some(Scale::Headroom(args)) => args.run(&interrupt),
    })
}

fn check_machine() -> Result<()> {
    Privilege::Root
        .available()
        .map_err(anyhow::Error::msg)
        .context("the benchmark needs root")?;
    ensure!(
        find_program("taskset").is_some(),
        "taskset is not installed (Debian: util-linux)"
    );
    ensure!(
        thread::available_parallelism()?.get() >= 2,
        "the benchmark needs two cores: one sends, the other receives"
    );
    Ok(())
}
