//! The comparison's figures as tables.

use super::{
    compare::{Comparison, Outcome},
    output::Table,
};

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

pub(super) const EXPLANATION: &str = "\
CPU: the receiver's time on its core, user and system, for a packet that it counted. Lost: packets that the rule \
logged and the receiver did not count, in the worst turn. Path: the sender's time for a packet; at full speed it \
is the generator's work and all that the kernel does before the packet is handed over, the cross-check included.";

fn cells(outcome: &Outcome) -> Vec<String> {
    let cpu = outcome.spread(|sample| sample.cpu_nanos);
    let median = |figure: fn(&super::measure::Sample) -> f64| {
        outcome.spread(figure).map_or(0.0, |spread| spread.median)
    };
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

pub(super) fn tables(results: &[Comparison]) -> Vec<Table> {
    let table = |comparison: &Comparison| {
        let first = comparison.receivers.first();
        let n_turns = first.map_or(0, |outcome| outcome.samples.len());
        Table {
            title: format!("{}, {n_turns} turns", comparison.setup),
            columns: COLUMNS.map(str::to_owned).to_vec(),
            rows: comparison.receivers.iter().map(cells).collect(),
        }
    };
    results.iter().map(table).collect()
}
