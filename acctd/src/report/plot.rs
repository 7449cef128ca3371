//! Plots as SVG, which the page puts in line. Colours are the page's, by class.

use crate::files::journal::{IN, OUT};
use std::fmt::Write as _;

use crate::model::human;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 200.0;
/// For the numbers of the axis.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 8.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 22.0;
/// Of a line in the plot of the largest.
const ROW: f64 = 26.0;

/// What a traffic plot shows.
pub(super) struct Traffic<'p> {
    /// By their number: in, out; bits per second.
    pub(super) points: &'p [(u32, [u64; 2])],
    pub(super) n_points: u32,
    /// Points in which a sample is incomplete.
    pub(super) incomplete: &'p [u32],
    /// Bits per second.
    pub(super) percentile: u64,
    /// Where on the axis, 0 to 1, and what is written there.
    pub(super) labels: &'p [(f64, String)],
}

/// Lines of in and out over time, with the percentile.
pub(super) fn traffic(plot: &Traffic<'_>) -> String {
    let largest = plot
        .points
        .iter()
        .flat_map(|(_, both)| both)
        .max()
        .copied()
        .unwrap_or(0);
    let axis = Axis::up_to(largest.max(plot.percentile));
    let mut svg = begin(HEIGHT, "traffic over time");
    let step = (WIDTH - LEFT - RIGHT) / f64::from(plot.n_points.max(1));
    let x = |point: u32| LEFT + (f64::from(point) + 0.5) * step;
    for point in plot.incomplete {
        let left = x(*point) - step / 2.0;
        rect(
            &mut svg,
            "gap",
            left,
            TOP,
            step.max(1.0),
            HEIGHT - TOP - BOTTOM,
        );
    }
    axis.draw(&mut svg, "bit/s");
    for (at, label) in plot.labels {
        text(
            &mut svg,
            "",
            LEFT + at * (WIDTH - LEFT - RIGHT),
            HEIGHT - 6.0,
            "middle",
            label,
        );
    }
    for (direction, class) in [(OUT, "out"), (IN, "in")] {
        let mut path = String::new();
        let mut before = None;
        for (point, both) in plot.points {
            // A line does not go over points without samples.
            let command = if before.is_some_and(|before| before + 1 == *point) {
                'L'
            } else {
                'M'
            };
            write_to(
                &mut path,
                format_args!("{command}{:.1} {:.1}", x(*point), axis.y(both[direction])),
            );
            if command == 'M' {
                write_to(&mut path, format_args!("h0.1"));
            }
            before = Some(*point);
        }
        write_to(
            &mut svg,
            format_args!(r#"<path class="{class}" d="{path}"/>"#),
        );
    }
    let y = axis.y(plot.percentile);
    line(&mut svg, "mark", LEFT, y, WIDTH - RIGHT, y);
    text(
        &mut svg,
        "mark",
        WIDTH - RIGHT,
        (y - 4.0).max(10.0),
        "end",
        &human::scaled(plot.percentile, false, "bit/s"),
    );
    svg + "</svg>"
}

/// A pair of bars for each day, in bytes.
pub(super) fn days(days: &[(String, [u64; 2])]) -> String {
    let largest = days
        .iter()
        .flat_map(|(_, both)| both)
        .max()
        .copied()
        .unwrap_or(0);
    let axis = Axis::up_to(largest);
    let mut svg = begin(HEIGHT, "bytes of each day");
    axis.draw(&mut svg, "B");
    let count = u32::try_from(days.len()).unwrap_or(u32::MAX);
    let step = (WIDTH - LEFT - RIGHT) / f64::from(count.max(1));
    let mut left = LEFT;
    for (at, (label, both)) in days.iter().enumerate() {
        for (direction, class, from) in [(IN, "in", 0.12), (OUT, "out", 0.52)] {
            let y = axis.y(both[direction]);
            rect(
                &mut svg,
                class,
                left + from * step,
                y,
                step * 0.36,
                HEIGHT - BOTTOM - y,
            );
        }
        // Not more than fit.
        if at % days.len().div_ceil(16).max(1) == 0 {
            text(
                &mut svg,
                "",
                left + step / 2.0,
                HEIGHT - 6.0,
                "middle",
                label,
            );
        }
        left += step;
    }
    svg + "</svg>"
}

/// Bars from left to right for the lines with the most bytes.
pub(super) fn largest(lines: &[(&str, [u64; 2])]) -> String {
    const NAME: f64 = 190.0;
    const SHOWN: usize = 24;
    let most = lines
        .iter()
        .map(|(_, both)| both[IN].saturating_add(both[OUT]))
        .max()
        .unwrap_or(0)
        .max(1);
    let mut top = 4.0;
    let height = ROW * f64::from(u32::try_from(lines.len()).unwrap_or(u32::MAX)) + 8.0;
    let mut svg = begin(height, "the largest lines");
    for (name, both) in lines {
        let mut shown: String = name.chars().take(SHOWN).collect();
        if name.chars().nth(SHOWN).is_some() {
            shown.push('…');
        }
        text(&mut svg, "", NAME - 8.0, top + 15.0, "end", &shown);
        let width = |bytes: u64| ratio(bytes, most) * (WIDTH - NAME - 90.0);
        let (inward, outward) = (width(both[IN]), width(both[OUT]));
        rect(&mut svg, "in", NAME, top + 3.0, inward, ROW - 9.0);
        rect(
            &mut svg,
            "out",
            NAME + inward,
            top + 3.0,
            outward,
            ROW - 9.0,
        );
        let sum = human::scaled(both[IN].saturating_add(both[OUT]), false, "B");
        text(
            &mut svg,
            "",
            NAME + inward + outward + 6.0,
            top + 15.0,
            "start",
            &sum,
        );
        top += ROW;
    }
    svg + "</svg>"
}

/// Where an axis may end, times a power of ten, and its steps.
const STEPS: [(u64, u64); 10] = [
    (10, 5),
    (12, 4),
    (15, 3),
    (20, 4),
    (25, 5),
    (30, 3),
    (40, 4),
    (50, 5),
    (60, 3),
    (80, 4),
];

/// An axis from 0 to a round number.
struct Axis {
    end: u64,
    n_steps: u64,
}

impl Axis {
    fn up_to(largest: u64) -> Self {
        let mut unit = 1_u64;
        loop {
            for (factor, n_steps) in STEPS {
                let end = unit.saturating_mul(factor);
                if end >= largest {
                    return Self { end, n_steps };
                }
            }
            unit = unit.saturating_mul(10);
        }
    }

    fn y(&self, value: u64) -> f64 {
        HEIGHT - BOTTOM - ratio(value, self.end) * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, svg: &mut String, unit: &str) {
        for step in 0..=self.n_steps {
            let value = self.end / self.n_steps * step;
            let y = self.y(value);
            line(svg, "axis", LEFT, y, WIDTH - RIGHT, y);
            text(
                svg,
                "",
                LEFT - 6.0,
                y + 4.0,
                "end",
                &human::scaled(value, false, unit),
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

fn begin(height: f64, what: &str) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{what}">"#)
}

fn rect(svg: &mut String, class: &str, x: f64, y: f64, width: f64, height: f64) {
    write_to(
        svg,
        format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ),
    );
}

fn line(svg: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    write_to(
        svg,
        format_args!(
            r#"<line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
        ),
    );
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    write_to(
        svg,
        format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{words}</text>"#
        ),
    );
}

fn write_to(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = text.write_fmt(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_a_round_number() {
        for (largest, end) in [
            (0, 10),
            (9, 10),
            (11, 12),
            (410, 500),
            (501, 600),
            (812_000_000, 1_000_000_000),
        ] {
            assert_eq!(Axis::up_to(largest).end, end, "{largest}");
        }
        assert_eq!(Axis::up_to(u64::MAX).end, u64::MAX);
    }

    #[test]
    fn a_line_is_broken_where_points_are_missing() {
        let points = [(0, [10, 5]), (1, [20, 5]), (3, [5, 5])];
        let svg = traffic(&Traffic {
            points: &points,
            n_points: 4,
            incomplete: &[2],
            percentile: 10,
            labels: &[],
        });
        assert_eq!(svg.matches('M').count(), 4);
        assert_eq!(svg.matches(r#"class="gap""#).count(), 1);
        assert!(largest(&[("a<b", [1, 1])]).contains("a&lt;b"));
    }
}
