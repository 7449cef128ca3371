//! The flags of `acctd report`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use clap::builder::ArgPredicate;

use crate::cli::go_flags;
use crate::cli::server::{ServerFlags, ServerUrl};

/// Add up the files of one host or many: totals, percentiles, what is missing.
#[derive(Clone, Debug, clap::Args)]
pub struct ReportArgs {
    /// The directories of acctd's files, one for each host. With --from-clickhouse, names of hosts; default: all.
    #[arg(
        value_name = "DIR",
        default_value = "/var/log/accounting",
        default_value_if("from_clickhouse", ArgPredicate::IsPresent, None)
    )]
    pub directories: Vec<PathBuf>,

    /// Ask a database to which acctd ship has sent the files: `https://db.example.net:8443/acctd`.
    #[arg(long, value_name = "URL")]
    pub from_clickhouse: Option<ServerUrl>,

    /// How to ask it.
    #[command(flatten)]
    pub server: ServerFlags,

    /// A calendar month: 2026-11.
    #[arg(long, value_name = "MONTH", group = "when")]
    pub month: Option<Month>,

    /// The calendar month before this one.
    #[arg(long, group = "when")]
    pub last_month: bool,

    /// From this day or time on; default: from the first file on.
    #[arg(long, value_name = "TIME", conflicts_with = "when")]
    pub from: Option<When>,

    /// Until this day or time, which is not included; default: until the end of the last file.
    #[arg(long, value_name = "TIME", conflicts_with = "when")]
    pub to: Option<When>,

    /// The zone whose days and months are meant, and in which names of files are that no line of intervals.jsonl describes;
    /// default: the machine's.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,

    /// Divide the period into parts, each with its own totals and percentiles.
    #[arg(long, value_name = "PART", value_enum)]
    pub by: Option<Part>,

    /// What has a line; default: prefixes, with --customers customers.
    #[arg(long, value_name = "WHAT", value_enum)]
    pub group_by: Option<GroupBy>,

    /// A CSV file of who has which prefix.
    ///
    /// Its first line names the columns: prefix, customer, and if wanted `commit_mbit` (Mbit/s), `quota_gb` (10^9 bytes) and
    /// form (as --form). What belongs to nobody has a line of its own.
    #[arg(long, value_name = "FILE")]
    pub customers: Option<PathBuf>,

    /// Where prefixes of two customers overlap, the longer one has the address; without this flag it is an error.
    #[arg(long, requires = "customers")]
    pub nested: bool,

    /// The percentile of the samples: they are sorted, the largest 5 % (for 95) dropped, rounded down, and the largest
    /// that is left taken. Of 8,640 samples, the 433rd largest.
    #[arg(long, value_name = "PERCENT", default_value = "95")]
    pub percentile: Percentile,

    /// What the percentile is taken of.
    #[arg(long, value_enum, default_value_t = Form::Max)]
    pub form: Form,

    /// The length of a sample, a multiple of the files' interval; default: 5m, or the interval if that is longer.
    #[arg(long, value_name = "DURATION", value_parser = parse_sample_length)]
    pub sample: Option<Duration>,

    /// What samples are whose files are missing, or in which acctd was not running.
    #[arg(long, value_enum, default_value_t = Missing::Bound)]
    pub missing: Missing,

    /// The lines with the most; the others are one line.
    #[arg(long, value_name = "N")]
    pub top: Option<usize>,

    /// The order of the lines, the largest first.
    #[arg(long, value_enum, default_value_t = Sort::Bytes)]
    pub sort: Sort,

    /// The form of the output.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub format: Output,

    /// The title of the page (--format html).
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    /// Units of 1,024 (GiB), instead of 1,000 (GB).
    #[arg(long)]
    pub iec: bool,
}

/// In hundredths of a percent: 9,500 is the 95th.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentile(pub(crate) u32);

/// 100 %.
const WHOLE: u32 = 10_000;

impl Percentile {
    /// How many of the largest samples it drops.
    pub(crate) fn n_dropped(self, n_samples: u64) -> u64 {
        let rest = u64::from(WHOLE - self.0);
        let whole = u64::from(WHOLE);
        // It is asked for each row: without a division of 128 bits.
        n_samples / whole * rest + n_samples % whole * rest / whole
    }
}

impl FromStr for Percentile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "must be above 0 and at most 100, with at most two decimals: 95, 99.9".to_owned();
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(decimals) || decimals.len() > 2 {
            return Err(wrong());
        }
        let hundredths: u32 = format!("{whole}{decimals:0<2}")
            .parse()
            .map_err(|_large| wrong())?;
        if hundredths == 0 || hundredths > WHOLE {
            return Err(wrong());
        }
        Ok(Self(hundredths))
    }
}

impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, decimals) if decimals % 10 == 0 => write!(f, "{whole}.{}", decimals / 10),
            (whole, decimals) => write!(f, "{whole}.{decimals:02}"),
        }
    }
}

/// A day, or a time of a day, without a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When(pub(crate) NaiveDateTime);

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let formats = [
            "%Y-%m-%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%S",
            "%Y-%m-%d %H:%M",
            "%Y-%m-%dT%H:%M",
        ];
        let mut times = formats
            .iter()
            .filter_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let day = || {
            text.parse::<NaiveDate>()
                .ok()
                .map(|day| day.and_time(NaiveTime::MIN))
        };
        times.next().or_else(day).map(Self).ok_or_else(|| {
            "must be a day or a time of a day: 2026-11-01, 2026-11-01 06:00".to_owned()
        })
    }
}

/// A calendar month: its first day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Month(pub(crate) NaiveDate);

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let first = (text.len() == 7)
            .then(|| format!("{text}-01").parse().ok())
            .flatten();
        first
            .map(Self)
            .ok_or_else(|| "must be a month: 2026-11".to_owned())
    }
}

/// The parts of a report's period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// A calendar month.
    Month,
    /// From Monday to Sunday.
    Week,
    /// A calendar day.
    Day,
    /// An hour.
    Hour,
    /// A sample.
    Interval,
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.format("%Y-%m-%d %H:%M"))
    }
}

/// What to do with samples of which files are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Missing {
    /// They may have had anything: figures have bounds.
    Bound,
    /// They had nothing.
    Zero,
    /// They do not count: the percentile is one of the others.
    Skip,
}

/// What the percentile is taken of. `in` is what was sent to the prefixes (`DestBytes`), `out` what they sent
/// (`SourceBytes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// What was sent to them.
    In,
    /// What they sent.
    Out,
    /// The larger of both percentiles.
    Max,
    /// Both together in each sample.
    Sum,
    /// The larger of both in each sample.
    SampleMax,
}

/// What has a line of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GroupBy {
    /// As acctd counts them.
    Prefix,
    /// Those of --customers.
    Customer,
    /// A directory.
    Host,
}

/// The order of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Sort {
    /// In and out together.
    Bytes,
    /// What was sent to them.
    In,
    /// What they sent.
    Out,
    /// The percentile, or what it has at least.
    Percentile,
    /// The name, or the address.
    Name,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// A line for each part and line, exact numbers.
    Csv,
    /// Everything, exact numbers.
    Json,
    /// A table of Markdown.
    Md,
    /// A page with plots, to be printed or sent. It has all that it needs, and no scripts.
    Html,
}

fn parse_sample_length(text: &str) -> Result<Duration, String> {
    let length = go_flags::parse_duration(text).map_err(|error| error.to_string())?;
    if length.is_zero() || length.subsec_nanos() != 0 {
        return Err("must be whole seconds: use for example 5m".to_owned());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_written_as_it_is_read() {
        for text in ["95", "99.9", "99.99", "0.01", "100"] {
            assert_eq!(text.parse::<Percentile>().unwrap().to_string(), text);
        }
        assert_eq!("95.50".parse::<Percentile>().unwrap().to_string(), "95.5");
        for bad in [
            "",
            "0",
            "100.01",
            "95.123",
            "-5",
            "95%",
            ".5",
            "1e2",
            "99999999999",
        ] {
            assert!(bad.parse::<Percentile>().is_err(), "{bad}");
        }
    }
}
