//! `bench prefixes`: how the cost of a packet grows with the number of prefixes.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    output::{Output, Table},
    receivers::{self, Name},
    setup::{Family, Prefixes, Setup, Thresholds},
    stage::Stage,
    turns::take_turns,
};
use testkit::interrupt::Interrupt;

/// Those whose cost is compared: the floor, and what accounts.
const RECEIVERS: [Name; 3] = [Name::Null, Name::Acctd, Name::GoNflogAcctd];

const EXPLANATION: &str = "\
Medians: CPU time a packet, user and system, and peak memory; all prefixes known, full speed.";

/// Measure how cost grows with the number of prefixes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// IP version
    #[arg(long, value_name = "4|6", default_value = "4")]
    family: Family,

    /// Numbers of prefixes
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,1000,16384,65536,262144,1000000"
    )]
    prefixes: Vec<Prefixes>,

    #[command(flatten)]
    thresholds: Thresholds,

    /// Turns of each receiver in each setup
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,

    /// A go-nflog-acctd to measure too
    #[arg(long, value_name = "PROGRAM")]
    go_nflog_acctd: Option<PathBuf>,

    #[command(flatten)]
    output: Output,
}

impl Args {
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<()> {
        let receivers = receivers::make(&RECEIVERS, self.go_nflog_acctd.as_deref(), interrupt)?;
        let setup = |prefixes, threshold| Setup::new(self.family, prefixes, threshold, 0);
        let setups: Vec<Setup> = self
            .prefixes
            .iter()
            .flat_map(|&prefixes| {
                self.thresholds
                    .threshold
                    .iter()
                    .map(move |&t| setup(prefixes, t))
            })
            .collect();
        let results = take_turns(&Stage::set()?, &setups, &receivers, self.runs, interrupt)?;

        let mut columns = vec!["prefixes".to_owned()];
        for threshold in &self.thresholds.threshold {
            let names = receivers.iter().map(|receiver| receiver.name());
            columns.extend(names.map(|name| format!("{name}, threshold {threshold}")));
        }
        let rows = results
            .chunks(self.thresholds.threshold.len())
            .zip(&self.prefixes);
        let rows = rows.map(|(comparisons, prefixes)| {
            let outcomes = comparisons.iter().flat_map(|found| &found.receivers);
            let cells = outcomes.map(|outcome| {
                let cpu = outcome.median(|sample| Some(sample.cpu_nanos));
                let peak = outcome.median(|sample| Some(sample.peak_mib));
                let (cpu, peak) = (cpu.unwrap_or_default(), peak.unwrap_or_default());
                format!("{cpu:.0} ns, {peak:.1} MiB")
            });
            std::iter::once(prefixes.to_string()).chain(cells).collect()
        });
        let table = Table {
            title: format!("{}, {} turns", self.family, self.runs),
            columns,
            rows: rows.collect(),
        };
        self.output.publish(&results, &[table], EXPLANATION)
    }
}
