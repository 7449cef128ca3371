//! `cargo xtask bench`: what accounting a packet costs, with acctd and with others, on this
//! machine, side by side in one run.
//!
//! ```text
//!   wire  ── veth ──  router
//!   generator         nft: a counter, the truth, then the receiver's statement
//!   (one core)        one receiver after the other, again and again (another core)
//! ```

use std::{fs, path::PathBuf, thread};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::netns::{Privilege, find_program};

use crate::{
    interrupt::{Interrupt, Interrupted},
    print,
    programs::build,
    setup as packages,
};

mod compare;
mod machine;
mod measure;
mod receivers;
mod report;
mod setup;
mod spread;
mod stage;
mod usage;

use receivers::{Acctd, NftSet, Nobody, Null, Receiver, Seed, Walk};
use setup::{Family, Prefixes, Setup};

/// Packets that are measured in a turn.
const PACKETS: u64 = 1_000_000;
/// At a fixed rate, for how many seconds.
const SECONDS_AT_A_RATE: u64 = 3;

/// Measure acctd beside other receivers: CPU time a packet, loss, memory
///
/// Needs root and two cores: one sends, the other receives. Without options it measures every setup,
/// which takes more than an hour; --quick takes two minutes.
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    /// Some setups and few turns, in about two minutes
    #[arg(long)]
    quick: bool,

    /// A go-nflog-acctd to measure too
    #[arg(long, value_name = "PROGRAM")]
    seed: Option<PathBuf>,

    /// Only these receivers; a part of the name is enough
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    receivers: Vec<String>,

    /// IP versions
    #[arg(long, value_name = "4|6", value_delimiter = ',')]
    family: Vec<Family>,

    /// Numbers of prefixes; with `new` behind it, each packet measured is the first of its prefix
    #[arg(long, value_name = "N[new]", value_delimiter = ',')]
    prefixes: Vec<Prefixes>,

    /// The rule's queue-threshold
    #[arg(long, value_name = "N", value_delimiter = ',')]
    threshold: Vec<u32>,

    /// Packets a second, 0 for full speed
    #[arg(long, value_name = "PPS", value_delimiter = ',')]
    rate: Vec<u32>,

    /// Turns of each receiver in each setup [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: Option<u8>,

    /// Write all figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn run(&self) -> Result<()> {
        check_machine()?;
        packages::run()?;
        let interrupt = Interrupt::catch()?;
        self.compare(&interrupt).map_err(|error| {
            // A signal can also show as the failure of a command that it reached.
            if interrupt.check().is_err() {
                Interrupted.into()
            } else {
                error
            }
        })
    }

    fn compare(&self, interrupt: &Interrupt) -> Result<()> {
        let receivers = self.receivers(interrupt)?;
        let setups = self.setups();
        let n_runs = self.runs.unwrap_or(if self.quick { 3 } else { 5 });
        let results = compare::run(&setups, &receivers, n_runs, interrupt)?;
        let machine = machine::describe();
        print::line(report::text(&machine, &results))?;
        if let Some(file) = &self.json {
            let json = serde_json::to_string_pretty(&report::Json {
                machine: &machine,
                results: &results,
            })?;
            write(file, &json)?;
        }
        if let Some(file) = &self.markdown {
            write(file, &report::markdown(&machine, &results))?;
        }
        Ok(())
    }

    fn receivers(&self, interrupt: &Interrupt) -> Result<Vec<Box<dyn Receiver>>> {
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
        if let Some(program) = &self.seed {
            let program = fs::canonicalize(program)
                .with_context(|| format!("--seed {}", program.display()))?;
            receivers.push(Box::new(Seed { program }));
        }
        if !self.receivers.is_empty() {
            for name in &self.receivers {
                let known = receivers
                    .iter()
                    .any(|receiver| receiver.name().contains(name));
                ensure!(known, "--receivers {name}: no such receiver");
            }
            receivers.retain(|receiver| {
                let wanted = |name: &String| receiver.name().contains(name.as_str());
                self.receivers.iter().any(wanted)
            });
        }
        Ok(receivers)
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
        let thresholds = or(&self.threshold, &[50, 5000]);
        let mut setups = Vec::new();
        for family in families {
            for &prefixes in &prefixes {
                for &threshold in &thresholds {
                    let with_rate = prefixes == known(65_536) && !quick;
                    let rates = or(&self.rate, if with_rate { &[0, 100_000] } else { &[0] });
                    setups.extend(rates.iter().map(|&rate| Setup {
                        family,
                        prefixes,
                        threshold,
                        rate,
                        packets: match rate {
                            0 => PACKETS,
                            rate => u64::from(rate) * SECONDS_AT_A_RATE,
                        },
                    }));
                }
            }
        }
        setups
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

fn write(file: &std::path::Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
