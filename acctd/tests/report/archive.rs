//! `acctd archive`: what was a report of files is the same report of their archives, to the last byte; and nothing is lost
//! on the way.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::CommandCargoExt as _;

use super::world::{Interval, Random, START, World, addresses, lose, overflow};

fn acctd(args: &[&str], directories: &[&Path]) -> Command {
    let mut command = Command::cargo_bin("acctd").unwrap();
    command.env("TZ", "Europe/Berlin").args(args);
    command.args(directories);
    command
}

#[track_caller]
fn text_of(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn archive(args: &[&str], directories: &[&Path]) -> String {
    let mut command = acctd(&["archive"], directories);
    text_of(&command.args(args).output().unwrap())
}

/// An error; with what it says.
#[track_caller]
fn fails(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

/// Reports of many kinds.
fn reports(directories: &[&Path], customers: &Path) -> Vec<String> {
    let customers = customers.to_str().unwrap();
    let kinds: [&[&str]; 7] = [
        &["--format=json"],
        &["--format=json", "--by=day", "--form=sum", "--sample=5h"],
        &["--format=json", "--by=hour", "--group-by=host"],
        &["--format=json", "--customers", customers],
        &[
            "--format=json",
            "--missing=skip",
            "--from=2026-01-01 18:00",
            "--to=2026-01-03 07:00",
        ],
        &["--format=html", "--group-by=host"],
        &["--format=html", "--customers", customers, "--by=day"],
    ];
    kinds
        .iter()
        .map(|kind| {
            let mut command = acctd(&["report"], directories);
            text_of(&command.args(*kind).output().unwrap())
        })
        .collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> = entries
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn n_csv(directory: &Path) -> usize {
    let names = names(directory);
    let endings = names.iter().filter_map(|it| it.rsplit_once('.'));
    endings.filter(|(_, ending)| *ending == "csv").count()
}

/// Three days, with holes.
fn world(random: &mut Random, seconds: i64) -> World {
    let addresses = addresses(12);
    let n = usize::try_from(3 * 86_400 / seconds).unwrap();
    let mut world = World::random(random, START, seconds, n, &addresses);
    for _ in 0..random.below(8) {
        let at = usize::try_from(random.below(n as u64)).unwrap();
        let interval = &mut world.intervals[at];
        match random.below(5) {
            0 => interval.is_removed = true,
            1 => lose(interval, &addresses, random),
            2 => interval.is_killed = true,
            3 => interval.rows.clear(),
            _ => overflow(interval, &addresses, random),
        }
    }
    world
}

struct Scratch {
    directory: tempfile::TempDir,
    customers: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let customers = directory.path().join("customers.csv");
        let text = "prefix,customer,commit_mbit,quota_gb,form\n10.0.0.0/29,one,0.001,0.0001,sum\n2001:db8:8::/48,one,,,\n10.0.0.9,two,,,\n";
        fs::write(&customers, text).unwrap();
        Self {
            directory,
            customers,
        }
    }

    fn host(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

/// Two hosts with different intervals and holes: both as files; one archived; its files deleted; a file that came late; both
/// archived.
#[test]
fn a_report_of_archives_is_that_of_their_files() {
    let random = &mut Random(11);
    for _ in 0..12 {
        let scratch = Scratch::new();
        let (one, two) = (scratch.host("one"), scratch.host("two"));
        let hosts = [one.as_path(), two.as_path()];
        world(random, 300).write(&one, chrono_tz::Europe::Berlin);
        world(random, 600).write(&two, chrono_tz::Europe::Berlin);
        let n_files = n_csv(&one);
        let before = reports(&hosts, &scratch.customers);
        let check = |what: &str| {
            let now = reports(&hosts, &scratch.customers);
            for (at, (before, now)) in before.iter().zip(&now).enumerate() {
                assert!(
                    before == now,
                    "{what}: report {at} differs:\n{before}\n{now}"
                );
            }
        };
        // One file comes late.
        let late = names(&one)[usize::try_from(random.below(300)).unwrap()].clone();
        let away = scratch.directory.path().join(&late);
        fs::rename(one.join(&late), &away).unwrap();
        archive(&[], &[&one]);
        fs::rename(&away, one.join(&late)).unwrap();
        check("archived");
        assert_eq!(n_csv(&one), n_files);
        archive(&["--keep=0d"], &[&one]);
        check("deleted");
        assert_eq!(n_csv(&one), 0);
        let archives: Vec<String> = names(&one)
            .into_iter()
            .filter(|it| it.ends_with(".parquet"))
            .collect();
        assert_eq!(archives.len(), 4, "{archives:?}");
        assert!(archives.iter().any(|it| it.ends_with("-1.parquet")));
        archive(&["--keep=36500d"], &hosts);
        check("both archived");
        assert_ne!(n_csv(&two), 0);
        archive(&["--keep=0d"], &hosts);
        check("both deleted");
        // Nothing is left to do.
        assert_eq!(archive(&["--keep=0d"], &hosts), "");
    }
}

/// Files of go-nflog-acctd, which are in no order and have no journal; the kernel's columns from the second day on, and
/// those of the wire from the third.
#[test]
fn files_of_each_kind_are_archived() {
    let scratch = Scratch::new();
    let host = scratch.host("r1");
    let nflog = "Time,IP,SourceBytes,SourcePackets,DestBytes,DestPackets";
    let kernel = ",TcSourceBytes,TcSourcePackets,TcDestBytes,TcDestPackets,Verdict";
    let wire = ",WireSourceBytes,WireSourcePackets,WireDestBytes,WireDestPackets";
    for (day, hour) in (1..=3).flat_map(|day| (0..24).map(move |hour| (day, hour))) {
        let (header, more) = match (day, hour) {
            (1, _) | (2, 0..12) => (nflog.to_owned(), ""),
            (2, _) => (format!("{nflog}{kernel}"), ",7,2,3,4,uncovered"),
            _ => (format!("{nflog}{kernel}{wire}"), ",7,2,3,4,match,9,9,9,9"),
        };
        let next = if hour == 23 {
            format!("2026-01-{:02}-000000", day + 1)
        } else {
            format!("2026-01-{day:02}-{:02}0000", hour + 1)
        };
        let name = format!("2026-01-{day:02}-{hour:02}0000_{next}.csv");
        let row = |address: &str, n: u64| {
            format!("2026-01-{day:02} {hour:02}:00:00,{address},{n},2,18446744073709551,4{more}\n")
        };
        let rows = [
            row("2001:db8::", 5),
            row("10.0.0.10", hour),
            row("10.0.0.9", 6),
        ];
        fs::write(host.join(name), format!("{header}\n{}", rows.concat())).unwrap();
    }
    let before = reports(&[&host], &scratch.customers);
    // One comes late.
    let late = "2026-01-02-100000_2026-01-02-110000.csv";
    let away = scratch.directory.path().join(late);
    fs::rename(host.join(late), &away).unwrap();
    let said = archive(&["--keep", "0d"], &[&host]);
    // Berlin's first day begins on UTC's day before.
    assert!(
        said.contains("2025-12-31.parquet: 3 rows of 1 files"),
        "{said}"
    );
    assert!(
        said.contains("2026-01-02.parquet: 69 rows of 23 files"),
        "{said}"
    );
    assert!(
        said.contains("2026-01-03.parquet: 23 of its files deleted"),
        "{said}"
    );
    assert_eq!(n_csv(&host), 0);
    fs::rename(&away, host.join(late)).unwrap();
    assert!(before == reports(&[&host], &scratch.customers));
}

/// Wherever it is killed, no report changes, no file is deleted that is in no archive, and the next run ends it.
#[test]
fn killed_at_each_step_nothing_is_lost_or_doubled() {
    let random = &mut Random(12);
    let world = world(random, 3_600);
    for point in [
        "archive written",
        "archive verified",
        "journal named",
        "archive named",
        "archive named#2",
        "file deleted",
        "file deleted#30",
    ] {
        let scratch = Scratch::new();
        let host = scratch.host("r1");
        world.write(&host, chrono_tz::Europe::Berlin);
        let n_files = n_csv(&host);
        let before = reports(&[&host], &scratch.customers);
        let mut command = acctd(&["archive", "--keep=0d"], &[&host]);
        let killed = command.env("ACCTD_KILL_AT", point).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{point}");
        assert!(point.starts_with("file") || n_csv(&host) == n_files);
        assert!(before == reports(&[&host], &scratch.customers), "{point}");
        archive(&["--keep=0d"], &[&host]);
        assert!(before == reports(&[&host], &scratch.customers), "{point}");
        let left = names(&host);
        let expected = [
            "2026-01-01.jsonl",
            "2026-01-01.parquet",
            "2026-01-02.jsonl",
            "2026-01-02.parquet",
            "2026-01-03.jsonl",
            "2026-01-03.parquet",
            "intervals.jsonl",
        ];
        assert_eq!(left, expected, "{point}");
    }
}

/// A write that fails, as on a full disk, leaves everything as it was.
#[test]
fn without_space_everything_stays() {
    let scratch = Scratch::new();
    let host = scratch.host("r1");
    world(&mut Random(13), 300).write(&host, chrono_tz::Europe::Berlin);
    let before = names(&host);
    // Of 512 bytes: no file may be larger.
    let script = "ulimit -f 8; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]);
    command.arg(acctd(&[], &[]).get_program());
    command.args(["archive", "--keep=0d"]).arg(&host);
    let text = fails(&mut command);
    assert!(text.contains("2026-01-01 is not archived"), "{text}");
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(names(&host), before);
}

#[test]
fn what_was_changed_is_found_and_stays() {
    let scratch = Scratch::new();
    let host = scratch.host("r1");
    let mut world = world(&mut Random(14), 3_600);
    world.intervals[0] = Interval {
        rows: world.intervals[1].rows.clone(),
        ..Interval::default()
    };
    world.write(&host, chrono_tz::Europe::Berlin);
    archive(&[], &[&host]);
    let csv = host.join("2026-01-01-010000_2026-01-01-020000.csv");
    let text = fs::read_to_string(&csv).unwrap();
    let report = || fails(&mut acctd(&["report"], &[&host]));
    let keep = || fails(&mut acctd(&["archive", "--keep=0d"], &[&host]));

    // A file that has another size than the one that was archived, and one with other numbers.
    fs::write(&csv, format!("{text}\n")).unwrap();
    assert!(report().contains("010000_2026-01-01-020000.csv is not the file that was archived"));
    let mut changed = text.clone().into_bytes();
    let last = changed.len() - 2;
    changed[last] ^= 1;
    fs::write(&csv, changed).unwrap();
    let said = keep();
    assert!(
        said.contains("it is not the file that was archived under its name: it stays"),
        "{said}"
    );
    assert!(csv.exists() && n_csv(&host) == 1);
    fs::write(&csv, text).unwrap();

    let beside = host.join("2026-01-01.jsonl");
    let lines = fs::read_to_string(&beside).unwrap();
    fs::write(&beside, lines.replacen("\"rows\":", "\"rows\":1", 1)).unwrap();
    assert!(report().contains("2026-01-01.jsonl, were changed"));
    fs::remove_file(&beside).unwrap();
    assert!(keep().contains("2026-01-01.jsonl, cannot be read"));
    fs::write(&beside, lines).unwrap();

    // Each byte of the rows matters: the file that is still there is not deleted.
    let archived = host.join("2026-01-01.parquet");
    let whole = fs::read(&archived).unwrap();
    for at in (100..whole.len() - 2_000).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        fs::write(&archived, &damaged).unwrap();
        let mut command = acctd(&["archive", "--keep=0d"], &[&host]);
        let output = command.output().unwrap();
        // What is no part of a row, as a statistic or the filter, harms none.
        let is_deleted = !csv.exists();
        assert_eq!(output.status.success(), is_deleted, "byte {at}");
        if is_deleted {
            fs::write(&archived, &whole).unwrap();
            assert!(
                acctd(&["report"], &[&host])
                    .output()
                    .unwrap()
                    .status
                    .success()
            );
            return;
        }
    }
}

#[test]
fn directories_that_cannot_be_archived_are_one_line_each() {
    let scratch = Scratch::new();
    let (one, empty) = (scratch.host("one"), scratch.host("empty"));
    world(&mut Random(15), 3_600).write(&one, chrono_tz::Europe::Berlin);
    fs::write(one.join("2026-01-09.parquet"), "text").unwrap();
    let missing = scratch.directory.path().join("missing");
    let text = fails(&mut acctd(&["archive"], &[&one, &empty, &missing]));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].contains("2026-01-09.parquet: it is damaged, or not a Parquet file"),
        "{text}"
    );
    assert!(lines[1].contains("has no file of acctd's"), "{text}");
    assert!(lines[2].contains("missing"), "{text}");
}
