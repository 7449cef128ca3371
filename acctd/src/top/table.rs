//! Prefixes and rates as text.

use std::fmt::Write as _;

use super::head;
use crate::model::human::{rounded, scaled, thousands};
use crate::observe::live::Live;
use crate::sampling::heaviest::Rates;

/// What rates are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bits,
    Bytes,
}

impl Unit {
    /// Bytes per second in this unit.
    pub(super) fn rate(self, bytes_per_second: f64) -> String {
        match self {
            Self::Bits => scaled(rounded(bytes_per_second * 8.0), false, "bit/s"),
            Self::Bytes => scaled(rounded(bytes_per_second), false, "B/s"),
        }
    }
}

pub(super) fn packets(rates: &Rates) -> f64 {
    rates.in_packets_per_second + rates.out_packets_per_second
}

/// For `--once`.
pub(super) fn text(live: &Live) -> String {
    let mut text = String::new();
    let all = &live.heaviest.all;
    // Writing to a String cannot fail.
    let _infallible = writeln!(
        text,
        "in {}, out {}, {} packets/s; {}",
        Unit::Bits.rate(all.in_bytes_per_second),
        Unit::Bits.rate(all.out_bytes_per_second),
        thousands(rounded(packets(all))),
        head::counts(live)
    );
    for problem in live.status.problems() {
        let _infallible = writeln!(text, "{problem}");
    }
    let _infallible = writeln!(
        text,
        "{:<26} {:>14} {:>14} {:>12}",
        "IP", "in", "out", "packets/s"
    );
    for prefix in &live.heaviest.prefixes {
        let rates = &prefix.rates;
        let _infallible = writeln!(
            text,
            "{:<26} {:>14} {:>14} {:>12}",
            prefix.ip.to_string(),
            Unit::Bits.rate(rates.in_bytes_per_second),
            Unit::Bits.rate(rates.out_bytes_per_second),
            thousands(rounded(packets(rates)))
        );
    }
    text
}

/// The last minute in so many characters, the newest on the right.
pub(super) fn sparkline(history: &[f64], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &history[history.len().saturating_sub(width)..];
    let most = shown.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        if *value <= 0.0 || most <= 0.0 {
            return ' ';
        }
        let height = rounded(value / most * 7.0);
        BARS[usize::try_from(height).unwrap_or(0).min(7)]
    };
    let bars: String = shown.iter().map(bar).collect();
    format!("{bars:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparkline_ends_with_the_newest() {
        assert_eq!(sparkline(&[0.0, 1.0, 7.0], 5), "   ▂█");
        assert_eq!(sparkline(&[9.0, 3.0, 7.0, 0.0], 3), "▄█ ");
        assert_eq!(sparkline(&[], 3), "   ");
        assert_eq!(sparkline(&[0.0], 3), "   ");
    }

    #[test]
    fn rates_are_in_bits_or_bytes() {
        assert_eq!(Unit::Bits.rate(125_000.0), "1.00 Mbit/s");
        assert_eq!(Unit::Bytes.rate(125_000.0), "125.0 kB/s");
    }
}
