//! Each receiver in each setup, in turns, so that whatever else the machine does strikes all.

use std::time::Instant;

use anyhow::Result;
use serde::Serialize;
use testkit::{interrupt::Interrupt, print};

use crate::{
    measure::{Sample, measure},
    receiver::Receiver,
    setup::Setup,
    spread::Spread,
    stage::Stage,
};

/// What a setup has shown.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison {
    pub(crate) setup: Setup,
    pub(crate) receivers: Vec<Outcome>,
}

/// What a receiver's turns have shown.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
}

impl Outcome {
    /// Of a figure that is in every sample.
    pub(crate) fn spread(&self, figure: impl Fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(figure))
    }

    /// The median of a figure that may be missing.
    pub(crate) fn median(&self, figure: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        Spread::of(self.samples.iter().filter_map(figure)).map(|spread| spread.median)
    }
}

pub(crate) fn take_turns(
    stage: &Stage,
    setups: &[Setup],
    receivers: &[Box<dyn Receiver>],
    n_runs: u8,
    interrupt: &Interrupt,
) -> Result<Vec<Comparison>> {
    let n_turns = setups.len() * receivers.len() * usize::from(n_runs);
    print::line(format!(
        "bench: {} setups, {} receivers, {n_runs} turns each: {n_turns} in all",
        setups.len(),
        receivers.len()
    ))?;
    let begun = Instant::now();
    let mut n_done = 0;
    let mut results = Vec::new();
    for &setup in setups {
        let mut outcomes: Vec<Outcome> = receivers
            .iter()
            .map(|receiver| Outcome {
                name: receiver.name().to_owned(),
                samples: Vec::new(),
            })
            .collect();
        for _ in 0..n_runs {
            for (receiver, outcome) in receivers.iter().zip(&mut outcomes) {
                let sample = measure(stage, &setup, receiver.as_ref(), interrupt)?;
                n_done += 1;
                let left = begun.elapsed() / n_done * (u32::try_from(n_turns)? - n_done);
                print::line(format!(
                    "bench: {n_done}/{n_turns}, {} min left: {setup}: {}: {:.0} ns a packet, {} lost",
                    left.as_secs().div_ceil(60),
                    receiver.name(),
                    sample.cpu_nanos,
                    sample.lost
                ))?;
                outcome.samples.push(sample);
            }
        }
        results.push(Comparison {
            setup,
            receivers: outcomes,
        });
    }
    Ok(results)
}
