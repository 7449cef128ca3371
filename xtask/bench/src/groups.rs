//! `bench groups`: whether it pays to spread a direction over several groups.
//!
//! The kernel holds one spinlock a group while it copies a packet into the group's batch. So what a
//! core sends waits for the other cores that log to the same group, and the more cores, the longer.
//! A generator on each core, all at full speed, shows the most that there is to win: what they reach
//! together. No core is left for the receiver then; it runs where the scheduler lets it, as on a
//! router whose cores all forward.

use std::{path::PathBuf, process::Command, thread};

use anyhow::Result;

use crate::{
    output::{Output, Table},
    receiver::{Counted, Place, Receiver, log_statement, source_group_flag},
    receivers::{Acctd, Nobody},
    setup::{Family, Prefixes, Setup, Thresholds},
    stage::{GROUP, Stage},
    turns::{Comparison, Outcome, take_turns},
};
use testkit::{interrupt::Interrupt, print, programs::build};

const PREFIXES: Prefixes = Prefixes {
    count: 65_536,
    new: false,
};

const EXPLANATION: &str = "\
Packets/s: what the generators reached together, the median, and the range. CPU: acctd's, for a packet that it \
counted. Lost: packets that the rules logged and acctd did not count, in the worst turn. By CPU, packets of one \
prefix may be in several groups, each of which keeps a ledger.";

/// Measure whether it pays to spread a direction over groups, by hash or by CPU
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of groups
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1,2,4,8",
          value_parser = clap::value_parser!(u16).range(1..=64))]
    groups: Vec<u16>,

    #[command(flatten)]
    thresholds: Thresholds,

    /// Turns of each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,

    #[command(flatten)]
    output: Output,
}

impl Args {
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<()> {
        let n_cores = thread::available_parallelism()?.get();
        let [acctd] = build([("--bin", "acctd")], interrupt)?;
        let mut receivers: Vec<Box<dyn Receiver>> = vec![Box::new(Nobody)];
        for &n_groups in &self.groups {
            for by in [By::Hash, By::Cpu { n_cores }] {
                if by.is_of_use(n_groups) {
                    receivers.push(Box::new(SeveralGroups::new(acctd.clone(), n_groups, by)));
                }
            }
        }
        let setups: Vec<Setup> = self
            .thresholds
            .threshold
            .iter()
            .map(|&threshold| Setup::new(Family::Ip4, PREFIXES, threshold, 0))
            .collect();
        print::line(format!(
            "bench: {n_cores} generators, each on a core of its own; acctd is not pinned, it shares the cores with them"
        ))?;
        let stage = Stage::with_all_cores_sending(n_cores)?;
        let results = take_turns(&stage, &setups, &receivers, self.runs, interrupt)?;

        let columns = ["groups", "packets/s together", "CPU ns a packet", "lost %"];
        let table = |comparison: &Comparison| Table {
            title: format!(
                "{}, {n_cores} generators, {} turns",
                comparison.setup, self.runs
            ),
            columns: columns.map(str::to_owned).to_vec(),
            rows: comparison.receivers.iter().map(cells).collect(),
        };
        let tables: Vec<Table> = results.iter().map(table).collect();
        self.output.publish(&results, &tables, EXPLANATION)
    }
}

fn cells(outcome: &Outcome) -> Vec<String> {
    let mut cells = vec![outcome.name.clone()];
    let rate = outcome.spread(|sample| 1e9 / sample.path_nanos);
    cells.extend(
        rate.map(|rate| format!("{:.0} ({:.0} to {:.0})", rate.median, rate.min, rate.max)),
    );
    let cpu = outcome.spread(|sample| sample.cpu_nanos);
    cells.extend(cpu.map(|cpu| format!("{:.0}", cpu.median)));
    let loss = outcome.spread(|sample| sample.loss_percent);
    cells.extend(loss.map(|loss| format!("{:.2}", loss.max)));
    cells
}

/// What decides on a packet's group.
#[derive(Debug, Clone, Copy)]
enum By {
    Hash,
    Cpu { n_cores: usize },
}

impl By {
    /// One group is the same either way, and what has no core of its own gets no packet.
    fn is_of_use(self, n_groups: u16) -> bool {
        match self {
            Self::Hash => true,
            Self::Cpu { n_cores } => n_groups > 1 && usize::from(n_groups) <= n_cores,
        }
    }

    /// A verdict map to the chains `group0` and so on.
    fn verdict_map(self, n_groups: u16) -> String {
        let (key, n_keys) = match self {
            // The seed of the hash is given, or each turn would spread in a way of its own.
            Self::Hash => (
                format!("jhash ip saddr mod {n_groups} seed 1"),
                usize::from(n_groups),
            ),
            Self::Cpu { n_cores } => ("meta cpu".to_owned(), n_cores),
        };
        let entry = |key| format!("{key} : jump group{}", key % usize::from(n_groups));
        let entries: Vec<String> = (0..n_keys).map(entry).collect();
        format!("{key} vmap {{ {} }}", entries.join(", "))
    }
}

/// acctd with several groups of one direction.
struct SeveralGroups {
    acctd: Acctd,
    n_groups: u16,
    by: By,
    name: String,
}

impl SeveralGroups {
    fn new(program: PathBuf, n_groups: u16, by: By) -> Self {
        Self {
            acctd: Acctd {
                program,
                crosscheck: false,
            },
            n_groups,
            by,
            name: match by {
                _ if n_groups == 1 => "1".to_owned(),
                By::Hash => format!("{n_groups} by hash of the source"),
                By::Cpu { .. } => format!("{n_groups} by CPU"),
            },
        }
    }
}

impl Receiver for SeveralGroups {
    fn name(&self) -> &str {
        &self.name
    }

    fn groups(&self) -> Vec<u16> {
        (GROUP..GROUP + self.n_groups).collect()
    }

    fn objects(&self, setup: &Setup) -> String {
        let chain =
            |(i, group)| format!("chain group{i} {{\n{}\n}}\n", log_statement(setup, group));
        self.groups().into_iter().enumerate().map(chain).collect()
    }

    fn statement(&self, setup: &Setup) -> String {
        match self.n_groups {
            1 => log_statement(setup, GROUP),
            n_groups => self.by.verdict_map(n_groups),
        }
    }

    fn command(&self, place: &Place<'_>) -> Result<Option<Command>> {
        let mut command = self.acctd.command(place)?;
        if let Some(command) = &mut command {
            // Of a flag given twice the second counts.
            command.arg(format!(
                "{}={GROUP}-{}",
                source_group_flag(place.setup.family),
                GROUP + self.n_groups - 1
            ));
        }
        Ok(command)
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        self.acctd.counted(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hash_or_core_has_a_group() {
        assert_eq!(
            By::Hash.verdict_map(2),
            "jhash ip saddr mod 2 seed 1 vmap { 0 : jump group0, 1 : jump group1 }"
        );
        assert_eq!(
            By::Cpu { n_cores: 3 }.verdict_map(2),
            "meta cpu vmap { 0 : jump group0, 1 : jump group1, 2 : jump group0 }"
        );
    }
}
