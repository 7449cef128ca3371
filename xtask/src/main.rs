//! acctd's own commands: `cargo xtask …`.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{self, ExitCode},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use testkit::{programs, traffic};

mod arch;
mod build_ebpf;
mod cross;
mod debian;
mod demo;
mod dist;
mod fuzz;
mod peer;
mod setup;
mod soak;
mod test;
mod vm;
mod workspace;

/// acctd's own commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install the Debian packages that building, testing and the demo need
    Setup,
    /// Show acctd at work between two throwaway network namespaces
    ///
    /// Builds acctd, sends traffic through it, prints its files, and compares their totals with
    /// nftables' own counters. Nothing outside the namespaces changes. Works without root.
    Demo,
    Test(test::Test),
    BuildEbpf(build_ebpf::BuildEbpf),
    /// Measure acctd beside other receivers: CPU time per packet, loss, memory
    ///
    /// `cargo xtask bench --help` lists its options.
    #[command(disable_help_flag = true)]
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    Soak(soak::Soak),
    Fuzz(fuzz::Fuzz),
    Dist(dist::Dist),
    Vm(vm::Vm),
    /// One end of the demo's TCP and UDP traffic
    #[command(hide = true, subcommand)]
    Peer(peer::Peer),
}

fn main() -> ExitCode {
    // This program is the generator of demo and soak, too.
    let done = match traffic::run_if_asked() {
        Some(done) => done.map(|()| 0),
        None => run(Cli::parse().command),
    };
    done.map_or_else(
        |error| programs::exit_code("xtask", Err(error)),
        ExitCode::from,
    )
}

/// The exit code.
fn run(command: Command) -> Result<u8> {
    match command {
        Command::Vm(vm) => return vm.run(),
        Command::Setup => setup::run(),
        Command::Demo => demo::run(),
        Command::Test(test) => test.run(),
        Command::BuildEbpf(build) => build.run(),
        Command::Bench { args } => bench(&args),
        Command::Fuzz(fuzz) => fuzz.run(),
        Command::Dist(dist) => dist.run(),
        Command::Soak(soak) => soak.run(),
        Command::Peer(peer) => peer.run(),
    }
    .map(|()| 0)
}

/// A program of its own, built only for this: it takes this one's place.
fn bench(args: &[OsString]) -> Result<()> {
    if !args.iter().any(|it| it == "--help" || it == "-h") {
        setup::run()?;
    }
    let error = process::Command::new(programs::cargo())
        .args(["run", "--quiet", "--release", "--package", "bench", "--"])
        .args(args)
        .exec();
    Err(error).context("cannot start cargo")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn each_xtask_command_in_the_documents_exists() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let commands = Cli::command();
        let pages = [".", "docs", "docs/design"].map(|it| fs::read_dir(root.join(it)).unwrap());
        let pages = pages.into_iter().flatten().map(|page| page.unwrap().path());
        let pages = pages.filter(|page| page.extension().is_some_and(|it| it == "md"));
        for page in pages.chain([root.join(".ci/run")]) {
            let text = fs::read_to_string(&page).unwrap();
            for (_, rest) in text
                .match_indices("cargo xtask ")
                .map(|(at, found)| text.split_at(at + found.len()))
            {
                let word = rest
                    .split(|c: char| !c.is_ascii_lowercase() && c != '-')
                    .next()
                    .unwrap();
                assert!(
                    commands.find_subcommand(word).is_some(),
                    "{}: `cargo xtask {word}`",
                    page.display()
                );
            }
        }
    }
}
