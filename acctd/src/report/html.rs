//! The report as a page: one file without scripts, which can be printed.

use std::io::Write;

use anyhow::Result;
use askama::Template;

use super::outcome::{Entry, Plot, Report, SpanReport};
use super::plot::{self, Traffic};
use super::text::{rows, shown};
use crate::cli::report::ReportArgs;
use crate::model::human::thousands;

/// How many lines the plot of the largest has.
const LARGEST: usize = 10;
/// How many dates an axis has at most.
const DATES: usize = 8;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'r> {
    title: &'r str,
    report: &'r Report,
    sample: String,
    hosts: String,
    parts: Vec<Part<'r>>,
    first: &'r str,
    last: &'r str,
    digest: &'r str,
    command: String,
}

struct Part<'r> {
    name: &'r str,
    all: Figures,
    samples: String,
    complete: String,
    traffic: String,
    has_gaps: bool,
    /// The time of a point.
    point: String,
    days: String,
    top: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    last: Vec<String>,
    lines: Vec<PlottedLine<'r>>,
}

struct Figures {
    inward: String,
    outward: String,
    percentile: String,
    form: &'static str,
}

struct PlottedLine<'r> {
    name: &'r str,
    percentile: String,
    plot: String,
}

pub(super) fn write(out: &mut impl Write, report: &Report, args: &ReportArgs) -> Result<()> {
    let [first, last] = match &report.files_from_to {
        Some([first, last]) => [first.as_str(), last.as_str()],
        None => ["", ""],
    };
    let page = Page {
        title: args.title.as_deref().unwrap_or("Traffic report"),
        report,
        sample: duration(report.sample_seconds),
        hosts: report.hosts.join(", "),
        parts: report
            .parts
            .iter()
            .map(|part| page_part(report, part, args.iec))
            .collect(),
        first,
        last,
        digest: report.digest.as_deref().unwrap_or_default(),
        command: report.command.join(" "),
    };
    page.write_into(out)?;
    Ok(())
}

fn page_part<'r>(report: &Report, part: &'r SpanReport, is_iec: bool) -> Part<'r> {
    let mut rows = rows(report, part, is_iec);
    let head = rows.remove(0);
    let last = rows.pop().unwrap_or_default();
    let labels = labels(&part.plot);
    let traffic = |entry: &Entry| {
        plot::traffic(&Traffic {
            points: &entry.points,
            n_points: part.plot.n_points,
            incomplete: &part.plot.incomplete,
            percentile: entry.percentile.at_least,
            labels: &labels,
        })
    };
    let largest = part
        .lines
        .iter()
        .filter(|it| !it.form.is_empty())
        .take(LARGEST);
    let largest: Vec<(&str, [u64; 2])> = largest
        .map(|it| {
            (
                it.name.as_str(),
                [it.in_bytes.at_least, it.out_bytes.at_least],
            )
        })
        .collect();
    let plotted = part.lines.iter().filter(|it| !it.points.is_empty());
    let seconds = report.sample_seconds * u64::from(part.plot.samples_per_point);
    Part {
        name: &part.name,
        all: Figures {
            inward: shown(part.all.in_bytes, is_iec, "B"),
            outward: shown(part.all.out_bytes, is_iec, "B"),
            percentile: shown(part.all.percentile, false, "bit/s"),
            form: part.all.form,
        },
        samples: thousands(part.samples),
        complete: match part.incomplete_samples {
            0 => "all".to_owned(),
            incomplete => format!("all but {}", thousands(incomplete)),
        },
        traffic: if part.all.points.len() > 1 {
            traffic(&part.all)
        } else {
            String::new()
        },
        has_gaps: !part.plot.incomplete.is_empty(),
        point: duration(seconds),
        days: if part.plot.days.len() > 1 {
            plot::days(&short(&part.plot.days))
        } else {
            String::new()
        },
        top: if largest.len() > 1 {
            plot::largest(&largest)
        } else {
            String::new()
        },
        head,
        rows,
        last,
        lines: plotted
            .map(|entry| PlottedLine {
                name: &entry.name,
                percentile: shown(entry.percentile, false, "bit/s"),
                plot: traffic(entry),
            })
            .collect(),
    }
}

fn duration(seconds: u64) -> String {
    match seconds {
        60 => "a minute".to_owned(),
        3_600 => "an hour".to_owned(),
        _ if seconds.is_multiple_of(3_600) => format!("{} hours", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{} minutes", seconds / 60),
        _ => format!("{seconds} seconds"),
    }
}

/// Days without their year.
fn short(days: &[(String, [u64; 2])]) -> Vec<(String, [u64; 2])> {
    let days = days
        .iter()
        .map(|(day, bytes)| (day.get(5..).unwrap_or(day).to_owned(), *bytes));
    days.collect()
}

/// Some of the days, in the middle of their time.
fn labels(plot: &Plot) -> Vec<(f64, String)> {
    let days = short(&plot.days);
    let count = f64::from(u32::try_from(days.len()).unwrap_or(u32::MAX)).max(1.0);
    let every = days.len().div_ceil(DATES).max(1);
    let mut at = 0.5;
    let mut labels = Vec::new();
    for (index, (day, _)) in days.into_iter().enumerate() {
        if index % every == 0 {
            labels.push((at / count, day));
        }
        at += 1.0;
    }
    labels
}
