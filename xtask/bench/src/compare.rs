//! `bench`: each receiver in each setup, side by side.

use anyhow::Result;
use clap::ValueEnum as _;
use testkit::interrupt::Interrupt;

use crate::{
    measure::Sample,
    output::{Output, Table},
    receivers::{Choice, Name},
    setup::{Family, Prefixes, Setup, Thresholds},
    stage::Stage,
    turns::{Comparison, Outcome, take_turns},
};

/// What is measured with `--quick` unless others are asked for.
const QUICK: [Name; 5] = [
    Name::Null,
    Name::Library,
    Name::Acctd,
    Name::CrossCheck,
    Name::GoNflogAcctd,
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
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

    /// Packets per second, 0 for full speed
    #[arg(long, value_name = "PPS", value_delimiter = ',')]
    rate: Vec<u32>,

    /// Turns of each receiver in each setup [default: 5, or 3 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: Option<u8>,

    #[command(flatten)]
    output: Output,
}

impl Args {
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<()> {
        let default = if self.quick {
            &QUICK
        } else {
            Name::value_variants()
        };
        let receivers = self.choice.make(default, interrupt)?;
        let n_runs = self.runs.unwrap_or(if self.quick { 3 } else { 5 });
        let results = take_turns(
            &Stage::set()?,
            &self.setups(),
            &receivers,
            n_runs,
            interrupt,
        )?;
        let tables: Vec<Table> = results.iter().map(table).collect();
        self.output.publish(&results, &tables, EXPLANATION)
    }

    /// All combinations of what is asked for. By default all at full speed, and a fixed rate where
    /// there are many prefixes.
    fn setups(&self) -> Vec<Setup> {
        let known = |count| Prefixes { count, new: false };
        let new = |count| Prefixes { count, new: true };
        let all_families = [Family::Ip4, Family::Ip6];
        let all_prefixes = [known(65_536), known(1), known(1_000_000), new(1_000_000)];
        let few = |n_all| if self.quick { 1 } else { n_all };
        let families = or(&self.family, &all_families[..few(2)]);
        let prefixes = or(&self.prefixes, &all_prefixes[..few(4)]);
        let mut setups = Vec::new();
        for &family in families {
            for &prefixes in prefixes {
                for &threshold in &self.thresholds.threshold {
                    let with_rate = prefixes == known(65_536) && !self.quick;
                    let rates = or(&self.rate, if with_rate { &[0, 100_000] } else { &[0] });
                    let setup = |&rate| Setup::new(family, prefixes, threshold, rate);
                    setups.extend(rates.iter().map(setup));
                }
            }
        }
        setups
    }
}

fn or<'a, T>(given: &'a [T], default: &'a [T]) -> &'a [T] {
    if given.is_empty() { default } else { given }
}

/// The columns; figures are medians where nothing else is said.
const COLUMNS: [&str; 8] = [
    "receiver",
    "CPU ns a packet: median (min to max)",
    "user",
    "system",
    "lost %",
    "peak MiB",
    "packets a datagram",
    "path ns a packet",
];

const EXPLANATION: &str = "\
CPU: the receiver's time on its core, user and system, for a packet that it counted. Lost: packets that the rule \
logged and the receiver did not count, in the worst turn. Path: the sender's time for a packet; at full speed it \
is the generator's work and all that the kernel does before the packet is handed over, the cross-check included.";

fn cells(outcome: &Outcome) -> Vec<String> {
    let cpu = outcome.spread(|sample| sample.cpu_nanos);
    let median =
        |figure: fn(&Sample) -> f64| outcome.spread(figure).map_or(0.0, |spread| spread.median);
    let worst_loss = outcome
        .spread(|sample| sample.loss_percent)
        .map_or(0.0, |loss| loss.max);
    let has_process = median(|sample| sample.peak_mib) > 0.0;
    let of_process = |text: String| if has_process { text } else { "-".to_owned() };
    let tc = outcome.median(|sample| sample.tc_nanos);
    vec![
        outcome.name.clone(),
        of_process(cpu.map_or_else(String::new, |cpu| {
            format!("{:.0} ({:.0} to {:.0})", cpu.median, cpu.min, cpu.max)
        })),
        of_process(format!("{:.0}", median(|sample| sample.user_nanos))),
        of_process(format!("{:.0}", median(|sample| sample.system_nanos))),
        if worst_loss == 0.0 {
            "0".to_owned()
        } else {
            format!("{worst_loss:.2}")
        },
        of_process(format!("{:.1}", median(|sample| sample.peak_mib))),
        outcome
            .median(|sample| sample.packets_a_datagram)
            .map_or_else(|| "-".to_owned(), |packets| format!("{packets:.0}")),
        match tc {
            None => format!("{:.0}", median(|sample| sample.path_nanos)),
            Some(tc) => format!(
                "{:.0} (TC program {tc:.0})",
                median(|sample| sample.path_nanos)
            ),
        },
    ]
}

fn table(comparison: &Comparison) -> Table {
    let first = comparison.receivers.first();
    let n_turns = first.map_or(0, |outcome| outcome.samples.len());
    Table {
        title: format!("{}, {n_turns} turns", comparison.setup),
        columns: COLUMNS.map(str::to_owned).to_vec(),
        rows: comparison.receivers.iter().map(cells).collect(),
    }
}
