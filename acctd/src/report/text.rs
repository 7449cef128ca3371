//! The report as text: a table, CSV, JSON, Markdown.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use super::outcome::{Bounds, Contract, Entry, Report, SpanReport};
use crate::cli::report::{Output, ReportArgs};
use crate::model::human::Scale;

pub(super) fn write(out: &mut impl Write, report: &Report, args: &ReportArgs) -> Result<()> {
    match args.format {
        Output::Json => {
            serde_json::to_writer_pretty(&mut *out, report)?;
            writeln!(out)?;
        }
        Output::Csv => write_csv(out, report)?,
        Output::Table => {
            writeln!(out, "{}", head(report))?;
            for part in &report.parts {
                writeln!(out, "\n{}", title(part))?;
                write_table(out, report, part, args.iec, terminal_width())?;
            }
        }
        // `html` writes a page.
        Output::Md | Output::Html => {
            writeln!(out, "{}", head(report))?;
            for part in &report.parts {
                writeln!(out, "\n{}\n", title(part))?;
                let rows = rows(report, part, args.iec);
                for (at, row) in rows.iter().enumerate() {
                    writeln!(out, "| {} |", row.join(" | "))?;
                    if at == 0 {
                        let lines = row
                            .iter()
                            .enumerate()
                            .map(|(column, _)| if column == 0 { "---" } else { "---:" });
                        writeln!(out, "| {} |", lines.collect::<Vec<_>>().join(" | "))?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn head(report: &Report) -> String {
    let mut text = format!(
        "{} to {} ({}), {} files of {}; the {}th percentile of {} s",
        report.from,
        report.to,
        report.zone,
        report.files,
        report.hosts.join(", "),
        report.percentile,
        report.sample_seconds
    );
    if report.undescribed_files > 0 {
        text = format!(
            "{text}\nof {} files nothing is known but their rows (no line in intervals.jsonl)",
            report.undescribed_files
        );
    }
    text
}

fn title(part: &SpanReport) -> String {
    let name = if part.name.is_empty() {
        "all of it"
    } else {
        &part.name
    };
    match part.incomplete_samples {
        0 => format!("{name}: {} samples, all complete", part.samples),
        incomplete => format!("{name}: {} samples, {incomplete} incomplete", part.samples),
    }
}

pub(super) fn rows(report: &Report, part: &SpanReport, is_iec: bool) -> Vec<Vec<String>> {
    let percentile = format!("{}th bit/s", report.percentile);
    let has_kernel = part.all.matched_bytes.is_some();
    let has_contract = part.lines.iter().any(|it| it.contract.is_some());
    let mut head = vec![String::new(), "in".into(), "out".into(), percentile];
    head.extend(has_kernel.then(|| "match".into()));
    head.extend(has_contract.then(|| "above commit".to_owned()));
    head.extend(has_contract.then(|| "quota".to_owned()));
    let mut rows = vec![head];
    for entry in part.lines.iter().chain([&part.all]) {
        let mut row = vec![
            entry.name.clone(),
            shown(entry.in_bytes, is_iec, "B"),
            shown(entry.out_bytes, is_iec, "B"),
            if entry.form.is_empty() {
                "-".into()
            } else {
                shown(entry.percentile, false, "bit/s")
            },
        ];
        row.extend(has_kernel.then(|| share(entry)));
        if has_contract {
            let contract = entry.contract.as_deref();
            row.push(
                contract
                    .and_then(|it| it.over_commit)
                    .map_or_else(String::new, |over| shown(over, false, "bit/s")),
            );
            row.push(contract.and_then(quota_text).unwrap_or_default());
        }
        rows.push(row);
    }
    rows
}

fn share(entry: &Entry) -> String {
    let whole = entry
        .in_bytes
        .at_least
        .saturating_add(entry.out_bytes.at_least);
    match entry
        .matched_bytes
        .map(|it| u128::from(it) * 1_000)
        .and_then(|it| it.checked_div(u128::from(whole)))
    {
        None => "-".into(),
        Some(per_mille) => format!("{}.{} %", per_mille / 10, per_mille % 10),
    }
}

/// `83.2 % of 500 GB, used up on 2026-11-27 10:30:00`, `194.1 % of 4000 GB, 3.76 TB above`.
#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn quota_text(contract: &Contract) -> Option<String> {
    let (used, quota_gb) = (contract.used_bytes?, contract.quota_gb?);
    let percent = used.at_least as f64 / (quota_gb * 1e7);
    let text = format!("{percent:.1} % of {quota_gb} GB");
    if let Some(above) = contract.over_quota_bytes
        && above.at_most != Some(0)
    {
        return Some(format!("{text}, {} above", shown(above, false, "B")));
    }
    Some(match &contract.used_up {
        Some(at) => format!("{text}, used up on {at}"),
        None => text,
    })
}

/// Of the terminal, if the output is one.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// The narrowest column of names.
const NAME: usize = 12;

fn write_table(
    out: &mut impl Write,
    report: &Report,
    part: &SpanReport,
    is_iec: bool,
    room: Option<usize>,
) -> Result<()> {
    let rows = rows(report, part, is_iec);
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let mut widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    // Figures are whole; names give way to them.
    let others: usize = widths[1..].iter().map(|width| width + 2).sum();
    if let Some(room) = room {
        widths[0] = widths[0].min(room.saturating_sub(others).max(NAME));
    }
    for row in &rows {
        let mut name = row[0].clone();
        if name.chars().count() > widths[0] {
            name = name.chars().take(widths[0] - 1).collect();
            name.push('…');
        }
        let mut line = format!("{name:<0$}", widths[0]);
        for (text, width) in row.iter().zip(&widths).skip(1) {
            line = format!("{line}  {text:>width$}");
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A line of the CSV form.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CsvLine<'r> {
    from: &'r str,
    to: &'r str,
    name: &'r str,
    in_bytes: u64,
    in_bytes_at_most: Option<u64>,
    in_packets: u64,
    out_bytes: u64,
    out_bytes_at_most: Option<u64>,
    out_packets: u64,
    percentile: Option<u64>,
    percentile_at_most: Option<u64>,
    form: &'static str,
    samples: u64,
    incomplete_samples: u64,
}

fn write_csv(out: &mut impl Write, report: &Report) -> Result<()> {
    let mut csv = csv::Writer::from_writer(out);
    for part in &report.parts {
        for entry in part.lines.iter().chain([&part.all]) {
            csv.serialize(CsvLine {
                from: &part.from,
                to: &part.to,
                name: &entry.name,
                in_bytes: entry.in_bytes.at_least,
                in_bytes_at_most: entry.in_bytes.at_most,
                in_packets: entry.in_packets,
                out_bytes: entry.out_bytes.at_least,
                out_bytes_at_most: entry.out_bytes.at_most,
                out_packets: entry.out_packets,
                percentile: (!entry.form.is_empty()).then_some(entry.percentile.at_least),
                percentile_at_most: entry.percentile.at_most,
                form: entry.form,
                samples: part.samples,
                incomplete_samples: part.incomplete_samples,
            })?;
        }
    }
    csv.flush()?;
    Ok(())
}

/// `1.23 GB`, `412.3 to 418.0 Mbit/s`, `at least 5.00 MB`.
pub(super) fn shown(bounds: Bounds, is_iec: bool, unit: &str) -> String {
    let scale = Scale::of(bounds.at_most.unwrap_or(bounds.at_least), is_iec);
    let low = |decimals| scale.text(bounds.at_least, decimals);
    let Some(most) = bounds.at_most else {
        let scale = Scale::of(bounds.at_least, is_iec);
        let low = scale.text(bounds.at_least, scale.decimals);
        return format!("at least {low} {}{unit}", scale.prefix);
    };
    if bounds.is_exact() {
        return format!("{} {}{unit}", low(scale.decimals), scale.prefix);
    }
    // With as many decimals as show a difference.
    let mut decimals = scale.decimals;
    while decimals < MAX_DECIMALS && low(decimals) == scale.text(most, decimals) {
        decimals += 1;
    }
    format!(
        "{} to {} {}{unit}",
        low(decimals),
        scale.text(most, decimals),
        scale.prefix
    )
}

const MAX_DECIMALS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_their_bounds() {
        let bounds = |at_least, at_most| Bounds { at_least, at_most };
        assert_eq!(shown(bounds(999, Some(999)), false, "B"), "999 B");
        assert_eq!(
            shown(bounds(1_234_567, Some(1_234_567)), false, "B"),
            "1.23 MB"
        );
        assert_eq!(
            shown(bounds(412_300_000, Some(418_000_000)), false, "bit/s"),
            "412.3 to 418.0 Mbit/s"
        );
        assert_eq!(
            shown(bounds(76_691_000, Some(76_712_000)), false, "bit/s"),
            "76.69 to 76.71 Mbit/s"
        );
        assert_eq!(
            shown(bounds(999, Some(1_000_000)), false, "B"),
            "0.00 to 1.00 MB"
        );
        assert_eq!(shown(bounds(0, None), false, "bit/s"), "at least 0 bit/s");
        assert_eq!(
            shown(bounds(1_073_741_824, Some(1_073_741_824)), true, "B"),
            "1.00 GiB"
        );
    }
}
