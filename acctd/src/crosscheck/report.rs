//! The cross-check's log lines.

use crate::config::crosscheck::Watched;
use crate::model::human::{bytes, thousands};
use crate::model::prefix::Side;
use crate::model::verdict::{Tally, Verdict, VerdictSummary, WorstFinding, magnitude};

/// A line for each verdict that means a fault, by side.
#[must_use]
pub fn lines(summary: &VerdictSummary, watched: &[Watched]) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in [Verdict::Uncovered, Verdict::Extra, Verdict::Lost] {
        for side in [Side::Source, Side::Dest] {
            let side_summary = &summary.sides[side as usize];
            let tally = side_summary.tallies[verdict as usize];
            if tally.prefixes == 0 {
                continue;
            }
            let worst = summary
                .worst
                .iter()
                .find(|worst| worst.verdict == verdict && worst.side == side);
            let share = share(tally.amount.bytes, side_summary.kernel.bytes);
            lines.push(format!(
                "{}: {}, {share} of {}",
                verdict.text(),
                amount(tally, side, worst),
                hooks(watched, side)
            ));
        }
    }
    for side in [Side::Source, Side::Dest] {
        let frames = summary.sides[side as usize].without_length;
        if frames.packets > 0 {
            lines.push(format!(
                "bytes are too low: {} packets of {} have no length in their header (BIG TCP) and add 0 to {}Bytes; \
                 their frames have {} bytes",
                thousands(frames.packets),
                hooks(watched, side),
                side.name(),
                thousands(frames.bytes)
            ));
        }
    }
    lines
}

fn hooks(watched: &[Watched], side: Side) -> String {
    let hooks: Vec<String> = watched.iter().map(|one| one.hook_of(side)).collect();
    hooks.join(" and ")
}

/// `12,004 packets, 1.2 MB to 192.0.2.7 (dest)`
fn amount(tally: Tally, side: Side, worst: Option<&WorstFinding>) -> String {
    let (preposition, side) = match side {
        Side::Source => ("from", "source"),
        Side::Dest => ("to", "dest"),
    };
    let (n_packets, n_bytes) = (tally.amount.packets, tally.amount.bytes);
    let sum = format!("{} packets, {}", thousands(n_packets), bytes(n_bytes));
    match worst {
        Some(worst) if tally.prefixes == 1 => {
            format!("{sum} {preposition} {} ({side})", worst.address)
        }
        Some(worst) => {
            let most = magnitude(worst.difference);
            format!(
                "{sum} {preposition} {} prefixes ({side}), most {preposition} {}: {} packets, {}",
                thousands(tally.prefixes),
                worst.address,
                thousands(most.packets),
                bytes(most.bytes)
            )
        }
        None => format!(
            "{sum} {preposition} {} prefixes ({side})",
            thousands(tally.prefixes)
        ),
    }
}

/// In whole percent.
fn share(part: u64, whole: u64) -> String {
    match part.saturating_mul(100).checked_div(whole) {
        None => "more than all".into(),
        Some(0) => "less than 1 %".into(),
        Some(percent) => format!("{percent} %"),
    }
}

#[cfg(test)]
mod tests {
    use acctd_common::Counters;

    use super::*;
    use crate::config::crosscheck::End;
    use crate::model::verdict::Difference;

    fn summary(n_prefixes: u64) -> VerdictSummary {
        let mut summary = VerdictSummary::default();
        let dest = &mut summary.sides[Side::Dest as usize];
        dest.kernel.bytes = 40_000_000;
        dest.tallies[Verdict::Uncovered as usize] = Tally {
            prefixes: n_prefixes,
            amount: Counters {
                packets: 12_004,
                bytes: 1_234_000,
            },
        };
        summary.worst.push(WorstFinding {
            address: "192.0.2.7".parse().unwrap(),
            side: Side::Dest,
            verdict: Verdict::Uncovered,
            difference: Difference {
                packets: 8_000,
                bytes: 900_000,
            },
        });
        summary
    }

    fn eth0() -> Vec<Watched> {
        vec![Watched {
            interface: "eth0".into(),
            end: End::Far,
        }]
    }

    #[test]
    fn a_line_has_the_amount_the_worst_prefix_and_the_share() {
        assert_eq!(
            lines(&summary(1), &eth0()),
            ["uncovered: 12,004 packets, 1.2 MB to 192.0.2.7 (dest), 3 % of eth0 egress"]
        );
        assert_eq!(
            lines(&summary(3), &eth0()),
            [
                "uncovered: 12,004 packets, 1.2 MB to 3 prefixes (dest), most to 192.0.2.7: \
                 8,000 packets, 900.0 kB, 3 % of eth0 egress"
            ]
        );
        let mut mapped = summary(1);
        mapped.worst[0].address = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(
            lines(&mapped, &eth0()),
            ["uncovered: 12,004 packets, 1.2 MB to ::ffff:192.0.2.7 (dest), 3 % of eth0 egress"]
        );
        assert_eq!(lines(&VerdictSummary::default(), &eth0()), [""; 0]);
    }

    #[test]
    fn shares_are_in_percent() {
        assert_eq!(share(1, 1_000), "less than 1 %");
        assert_eq!(share(999, 1_000), "99 %");
        assert_eq!(share(5, 0), "more than all");
    }
}
