//! `cargo xtask bench`: what accounting a packet costs, with acctd and with others, on this
//! machine, side by side in one run. Its subcommands measure how that grows, and where it ends.
//!
//! ```text
//!   wire  ── veth ──  router
//!   generator         nft: a counter, the truth, then the receiver's statement
//!   (one core)        one receiver after the other, again and again (another core)
//! ```

use std::{fs, path::PathBuf, thread};

use anyhow::{Context as _, Result, bail, ensure};
use testkit::{
    debian::Debian,
    interrupt::Interrupt,
    netns::{Privilege, find_program},
    programs::build,
};

use crate::setup as packages;

mod bpf_stats;
mod compare;
mod prefixes;

mod close;
mod groups;
mod headroom;

mod machine;
mod measure;
mod output;
mod receivers;
mod report;
mod setup;
mod spread;
mod stage;

use output::Output;
use receivers::{Acctd, NftSet, Nobody, Null, Receiver, Seed, Uacctd, Ulogd, Walk};
use setup::{Family, Prefixes, Setup, Thresholds};
use stage::Stage;

/// What may be asked for.
const RECEIVERS: [&str; 9] = [
    "nobody",
    "null",
    "library",
    "acctd",
    "acctd+crosscheck",
    "nft-set",
    "uacctd",
    "ulogd2",
    "go-nflog-acctd",
];

/// What is measured with `--quick` unless others are asked for; the last one where there is one.
const QUICK: [&str; 5] = [
    "null",
    "library",
    "acctd",
    "acctd+crosscheck",
    "go-nflog-acctd",
];

/// Measure acctd beside other receivers: CPU time a packet, loss, memory
///
/// Needs root and two cores: one sends, the other receives. Without options it measures every setup,
/// which takes more than an hour; --quick takes two minutes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    /// Few receivers, setups and turns, in about two minutes
    #[arg(long)]
    quick: bool,

    #[command(flatten)]
    choice: Choice,

    /// IP versions
    #[arg(long, value_name = "4|6", value_delimiter = ',')]
    family: Vec<Family>,

    /// Numbers of prefixes; with `new` behind it, each packet measured is the first of its prefix
    #[arg(long, value_name = "N[new]", value_delimiter = ',')]
    prefixes: Vec<Prefixes>,

    #[command(flatten)]
    thresholds: Thresholds,

    /// Packets a second, 0 for full speed
    #[arg(long, value_name = "PPS", value_delimiter = ',')]
    rate: Vec<u32>,

    /// Turns of each receiver in each setup [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: Option<u8>,

    #[command(flatten)]
    output: Output,

    #[command(subcommand)]
    scale: Option<Scale>,
}

/// How cost grows, instead of the comparison.
#[derive(Debug, clap::Subcommand)]
enum Scale {
    Prefixes(prefixes::Args),
    Groups(groups::Args),
    Close(close::Args),
    Headroom(headroom::Args),
}

/// Which receivers.
#[derive(Debug, clap::Args)]
struct Choice {
    /// A go-nflog-acctd to measure too
    #[arg(long, value_name = "PROGRAM")]
    seed: Option<PathBuf>,

    /// Only these receivers: nobody (a counter alone), null (a receiver that looks at headers alone),
    /// library (one that lets `libnetfilter_log` walk the packets), acctd, acctd+crosscheck, nft-set,
    /// uacctd, ulogd2 (Debian's, installed if they are missing), go-nflog-acctd (needs --seed)
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    receivers: Vec<String>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        check_machine()?;
        packages::run()?;
        let interrupt = Interrupt::catch()?;
        let done = match &self.scale {
            None => self.compare(&interrupt),
            Some(Scale::Prefixes(args)) => args.run(&interrupt),
            Some(Scale::Groups(args)) => args.run(&interrupt),
            Some(Scale::Close(args)) => args.run(&interrupt),
            Some(Scale::Headroom(args)) => args.run(&interrupt),
        };
        interrupt.instead_of_error(done)
    }

    fn compare(&self, interrupt: &Interrupt) -> Result<()> {
        let receivers = if self.quick && self.choice.receivers.is_empty() {
            Choice::of(&QUICK, self.choice.seed.clone()).receivers(interrupt)?
        } else {
            self.choice.receivers(interrupt)?
        };
        let setups = self.setups();
        let n_runs = self.runs.unwrap_or(if self.quick { 3 } else { 5 });
        let results = compare::run(&Stage::set()?, &setups, &receivers, n_runs, interrupt)?;
        let tables = report::tables(&results);
        self.output.publish(&results, &tables, report::EXPLANATION)
    }

    /// All combinations of what is asked for. By default all at full speed, and a fixed rate where
    /// there are many prefixes.
    fn setups(&self) -> Vec<Setup> {
        let known = |count| Prefixes { count, new: false };
        let new = |count| Prefixes { count, new: true };
        let quick = self.quick;
        let families = or(
            &self.family,
            if quick {
                &[Family::Ip4]
            } else {
                &[Family::Ip4, Family::Ip6]
            },
        );
        let all_prefixes = [known(1), known(65_536), known(1_000_000), new(1_000_000)];
        let prefixes = or(
            &self.prefixes,
            if quick {
                &all_prefixes[1..2]
            } else {
                &all_prefixes
            },
        );
        let mut setups = Vec::new();
        for family in families {
            for &prefixes in &prefixes {
                for &threshold in &self.thresholds.threshold {
                    let with_rate = prefixes == known(65_536) && !quick;
                    let rates = or(&self.rate, if with_rate { &[0, 100_000] } else { &[0] });
                    let setup = |&rate| Setup::new(family, prefixes, threshold, rate);
                    setups.extend(rates.iter().map(setup));
                }
            }
        }
        setups
    }
}

/// The program of a Debian package, which is installed if it is missing.
fn peer(package: &str, program: &str) -> Result<PathBuf> {
    if find_program(program).is_none()
        && let Some(debian) = Debian::find()
    {
        debian.install(&[package])?;
    }
    find_program(program).with_context(|| {
        format!("{program} is not installed (Debian: {package}); or leave it out with --receivers")
    })
}

impl Choice {
    /// These, and the seed where it is among them and there is one.
    fn of(names: &[&str], seed: Option<PathBuf>) -> Self {
        Self {
            seed,
            receivers: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn receivers(&self, interrupt: &Interrupt) -> Result<Vec<Box<dyn Receiver>>> {
        for name in &self.receivers {
            ensure!(
                RECEIVERS.contains(&name.as_str()),
                "--receivers {name}: there are {}",
                RECEIVERS.join(", ")
            );
        }
        let wants =
            |name: &str| self.receivers.is_empty() || self.receivers.iter().any(|n| n == name);
        let programs = [("--bin", "acctd"), ("--example", "null_receiver")];
        let [acctd, null] = build(programs, interrupt)?;
        let mut receivers: Vec<Box<dyn Receiver>> = vec![
            Box::new(Nobody),
            Box::new(Null {
                program: null.clone(),
                walk: Walk::Headers,
            }),
            Box::new(Null {
                program: null,
                walk: Walk::Library,
            }),
            Box::new(Acctd {
                program: acctd.clone(),
                crosscheck: false,
            }),
            Box::new(Acctd {
                program: acctd,
                crosscheck: true,
            }),
            Box::new(NftSet),
        ];
        if wants("uacctd") {
            let program = peer("pmacct", "uacctd")?;
            receivers.push(Box::new(Uacctd { program }));
        }
        if wants("ulogd2") {
            let program = peer("ulogd2", "ulogd")?;
            receivers.push(Box::new(Ulogd { program }));
        }
        if let Some(program) = &self.seed {
            let program = fs::canonicalize(program)
                .with_context(|| format!("--seed {}", program.display()))?;
            receivers.push(Box::new(Seed { program }));
        }
        receivers.retain(|receiver| wants(receiver.name()));
        Ok(receivers)
    }
}

fn or<T: Copy>(given: &[T], default: &[T]) -> Vec<T> {
    if given.is_empty() {
        default.to_vec()
    } else {
        given.to_vec()
    }
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
    let cores = thread::available_parallelism()?.get();
    if cores < 2 {
        bail!("the benchmark needs two cores: one sends, the other receives");
    }
    Ok(())
}
