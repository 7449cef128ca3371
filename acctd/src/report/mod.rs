//! `acctd report`: adds up the files of a period, with bounds where something is missing.
//!
//! ```text
//!  directories ─► files (with intervals.jsonl) ─► plan: samples ─► read (rows, tally) ─► outcome ─► text
//! ```

mod archived;
mod columns;
mod customers;
mod database;
mod html;
mod outcome;
mod percentile;
mod plan;
mod plot;
mod read;
mod sums;
mod tally;
mod text;

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use customers::Customers;
use database::Database;
use outcome::{Making, Plot, Report, SpanReport};
use plan::{Plan, Span};

use sha2::{Digest as _, Sha256};
use sums::{Grouping, HostLoss, Sums};

use crate::cli::report::{GroupBy, Output, ReportArgs};
use crate::files::calendar::Calendar;
use crate::files::directory::{self, Host};
use crate::model::interval::{Period, UnixNanos};
use crate::model::prefix::Family;

/// Prints the report of these files.
pub fn run(args: &ReportArgs) -> Result<ExitCode> {
    let calendar = Calendar::of(args.zone.as_deref())?;
    let database = Database::of(args)?;
    let (hosts, planned) = if let Some(database) = &database {
        let planned = planned_period(args, || database.covered(), &calendar)?;
        (database.hosts(planned)?, planned)
    } else {
        let hosts = read_directories(args, &calendar)?;
        let planned = planned_period(args, || directory::covered(&hosts), &calendar)?;
        (hosts, planned)
    };
    let whole = until_now(planned, &hosts)?;
    let asked = args
        .sample
        .map(|length| i64::try_from(length.as_nanos()))
        .transpose()?;
    let length = plan::sample_length(asked, directory::usual_length(&hosts))?;
    let grouping = grouping(args)?;
    check_prefix_lengths(&grouping, &hosts)?;
    let plan = Plan::new(&hosts, whole, args.by, &calendar, length, args.missing)?;
    ensure!(!plan.samples.is_empty(), "no file begins in this period");
    if plan.n_across > 0 {
        warn(&format!(
            "{} files are partly outside of the period; each counts where it begins",
            plan.n_across
        ));
    }
    let sums = match &database {
        Some(database) => database.read(&plan, &hosts, &grouping)?,
        None => read::read(&plan, &hosts, &grouping)?,
    };
    let report = make(
        args,
        &calendar,
        &hosts,
        &grouping,
        &plan,
        planned.end,
        &sums,
    )?;
    let mut out = BufWriter::new(io::stdout().lock());
    match args.format {
        Output::Html => html::write(&mut out, &report, args)?,
        _ => text::write(&mut out, &report, args)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn warn(text: &str) {
    // A closed standard error does not affect the report.
    let _ignored = writeln!(io::stderr(), "acctd: warning: {text}");
}

fn read_directories(args: &ReportArgs, calendar: &Calendar) -> Result<Vec<Host>> {
    let directories = args.directories.iter();
    let hosts = directories.map(|directory| Host::read(directory, calendar));
    let hosts: Vec<Host> = hosts.collect::<Result<_>>()?;
    for other in hosts.iter().flat_map(|host| &host.others) {
        warn(&format!(
            "{} is not read: its name is not one of acctd's (START_END.csv)",
            other.display()
        ));
    }
    Ok(hosts)
}

/// What the flags say; without one, what the files cover.
fn planned_period(
    args: &ReportArgs,
    covered: impl FnOnce() -> Result<Period>,
    calendar: &Calendar,
) -> Result<Period> {
    match (args.month, args.last_month) {
        (Some(month), _) => calendar.month(month),
        (None, true) => calendar.month(calendar.last_month(UnixNanos::now())?),
        (None, false) => calendar.between(args.from, args.to, covered()?),
    }
}

/// What is yet to come is not missing.
fn until_now(planned: Period, hosts: &[Host]) -> Result<Period> {
    let mut whole = planned;
    if whole.end > UnixNanos::now() {
        whole.end = whole.end.min(directory::covered(hosts)?.end);
    }
    ensure!(whole.start < whole.end, "no file begins in this period");
    Ok(whole)
}

fn grouping(args: &ReportArgs) -> Result<Grouping> {
    let customers = match &args.customers {
        None => Customers::default(),
        Some(path) => File::open(path)
            .map_err(Into::into)
            .and_then(|file| Customers::read(file, args.nested))
            .with_context(|| path.display().to_string())?,
    };
    let default = if args.customers.is_some() {
        GroupBy::Customer
    } else {
        GroupBy::Prefix
    };
    let by = args.group_by.unwrap_or(default);
    ensure!(
        by != GroupBy::Customer || args.customers.is_some(),
        "--group-by customer needs --customers FILE"
    );
    Ok(Grouping {
        by,
        customers: if by == GroupBy::Customer {
            customers
        } else {
            Customers::default()
        },
        percentile: args.percentile,
        form: args.form,
        is_plotted: args.format == Output::Html,
    })
}

fn check_prefix_lengths(grouping: &Grouping, hosts: &[Host]) -> Result<()> {
    let described = hosts
        .iter()
        .flat_map(|host| &host.files)
        .filter_map(|file| file.described.as_ref());
    let mut seen = [None; 2];
    for described in described {
        for (family, index) in [(Family::Ip4, 0), (Family::Ip6, 1)] {
            let length = described.prefix_lengths[index];
            if length != seen[index]
                && let Some(length) = length
            {
                grouping.customers.check_length(family, length)?;
                seen[index] = Some(length);
            }
        }
    }
    Ok(())
}

fn make(
    args: &ReportArgs,
    calendar: &Calendar,
    hosts: &[Host],
    grouping: &Grouping,
    plan: &Plan<'_>,
    planned_end: UnixNanos,
    sums: &Sums,
) -> Result<Report> {
    let mut losses = sums.losses.clone();
    // Samples without any file.
    let read: std::collections::HashSet<u32> = plan.samples.iter().map(|it| it.number).collect();
    let unread = plan
        .missing
        .iter()
        .filter(|((number, _), _)| !read.contains(number));
    losses.extend(unread.map(|(&(number, host), &loss)| HostLoss {
        number,
        host,
        loss,
        is_counted: true,
    }));
    losses.sort_by_key(|it| (it.number, it.host));
    let files = || plan.samples.iter().flat_map(|sample| &sample.files);
    let hosts: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let making = Making {
        grouping,
        hosts: &hosts,
        sample_seconds: u64::try_from(plan.length / 1_000_000_000)?,
        has_kernel: sums.has_kernel,
        sort: args.sort,
        top: args.top,
        calendar,
        planned_end,
    };
    let mut parts = Vec::new();
    let mut rest = &losses[..];
    for (index, span) in plan.spans.iter().enumerate() {
        let next = plan
            .spans
            .get(index + 1)
            .map_or(u32::MAX, |next| next.first);
        let n_of_span = rest.partition_point(|it| it.number < next);
        let (of_span, later) = rest.split_at(n_of_span);
        rest = later;
        let incomplete = of_span.chunk_by(|a, b| a.number == b.number).count();
        let (lines, all) = making.entries(plan, sums, index, of_span);
        parts.push(SpanReport {
            name: span.name.clone(),
            from: calendar.text(span.period.start)?,
            to: calendar.text(span.period.end)?,
            samples: span.n_samples,
            incomplete_samples: u64::try_from(incomplete)?,
            lines,
            all,
            plot: plot_of(span, of_span, plan, &sums.days),
        });
    }
    Ok(Report {
        acctd: env!("CARGO_PKG_VERSION"),
        command: std::env::args().collect(),
        zone: calendar.name().to_owned(),
        from: calendar.text(plan.whole.start)?,
        to: calendar.text(plan.whole.end)?,
        sample_seconds: making.sample_seconds,
        percentile: args.percentile.to_string(),
        files: files().count(),
        rows: sums.n_rows,
        undescribed_files: files().filter(|(_, file)| file.described.is_none()).count(),
        files_from_to: from_to(plan),
        digest: digest_of(&sums.digests),
        parts,
        hosts,
    })
}

fn plot_of(span: &Span, losses: &[HostLoss], plan: &Plan<'_>, days: &[[u64; 2]]) -> Plot {
    let mut incomplete: Vec<u32> = losses.iter().map(|it| span.point(it.number)).collect();
    incomplete.dedup();
    let days = plan.days.iter().zip(days);
    let is_in = |day: &Period| span.period.start <= day.start && day.end <= span.period.end;
    let days = days.filter(|((_, day), _)| is_in(day));
    let samples_per_point = span.samples_per_point();
    Plot {
        n_points: u32::try_from(span.n_samples.div_ceil(u64::from(samples_per_point)))
            .unwrap_or(u32::MAX),
        samples_per_point,
        incomplete,
        days: days
            .map(|((name, _), bytes)| (name.clone(), *bytes))
            .collect(),
    }
}

/// The names of the first file and of the last.
fn from_to(plan: &Plan<'_>) -> Option<[String; 2]> {
    let name = |file: &(usize, &directory::File)| {
        Some(file.1.path.file_name()?.to_string_lossy().into_owned())
    };
    let (first, last) = (plan.samples.first()?, plan.samples.last()?);
    Some([name(first.files.first()?)?, name(last.files.last()?)?])
}

/// `None` without files that have one.
fn digest_of(digests: &[[u8; 32]]) -> Option<String> {
    let mut sorted = digests.to_vec();
    sorted.sort_unstable();
    let whole = Sha256::digest(sorted.concat());
    (!digests.is_empty()).then(|| hex::encode(whole))
}
