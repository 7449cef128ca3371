//! `acctd report` against sums and percentiles that are computed the long way, on files with and without holes.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod archive;
mod world;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::CommandCargoExt as _;
use chrono::{DateTime, TimeZone as _};
use chrono_tz::Tz;
use serde_json::{Value, json};

use world::{Interval, Random, Row, START, World, addresses, lose, overflow};

fn report(directory: &Path, zone: &str, args: &[&str]) -> Value {
    let output = Command::cargo_bin("acctd")
        .unwrap()
        .env("TZ", zone)
        .args(["report", "--format", "json"])
        .args(args)
        .arg(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn fails(directory: &Path, args: &[&str], code: i32, part: &str) {
    let mut command = Command::cargo_bin("acctd").unwrap();
    let output = command
        .args(["report"])
        .args(args)
        .arg(directory)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(part), "{part:?}: {text}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

fn line<'r>(part: &'r Value, name: &str) -> &'r Value {
    let mut lines = part["lines"].as_array().unwrap().iter();
    lines
        .find(|it| it["name"] == name)
        .unwrap_or_else(|| panic!("no {name}: {part:#}"))
}

#[track_caller]
fn assert_holds(bounds: &Value, truth: u64, what: &str) {
    let low = bounds["at_least"].as_u64().unwrap();
    let high = bounds["at_most"].as_u64().unwrap_or(u64::MAX);
    assert!(
        low <= truth && truth <= high,
        "{what}: {truth} is not in {bounds}"
    );
}

#[track_caller]
fn assert_exact(bounds: &Value, truth: u64, what: &str) {
    assert_eq!(
        *bounds,
        json!({ "at_least": truth, "at_most": truth }),
        "{what}"
    );
}

/// Months of 28 to 31 days, and those in which the clock changes: totals and percentiles of each prefix, in each form, and
/// of all together; and each day's.
#[test]
fn a_month_is_exact_in_each_form() {
    let random = &mut Random(1);
    for (month, zone, hours) in [
        ("2026-02", "UTC", 672),
        ("2028-02", "UTC", 696),
        ("2026-11", "America/New_York", 721),
        ("2026-12", "Asia/Kolkata", 744),
        ("2026-03", "Europe/Berlin", 743),
        ("2026-10", "Europe/Berlin", 745),
    ] {
        let zone: Tz = zone.parse().unwrap();
        let first = format!("{month}-01")
            .parse::<chrono::NaiveDate>()
            .unwrap()
            .and_hms_opt(0, 0, 0)
            .unwrap();
        let start = zone.from_local_datetime(&first).unwrap().timestamp();
        let scratch = tempfile::tempdir().unwrap();
        let addresses = addresses(9);
        // Files of 15 minutes: India's midnight is not one of an hour in UTC. A sample has two of them.
        let world = World::random(random, start, 900, hours * 4, &addresses);
        world.write(scratch.path(), zone);
        for form in ["in", "out", "max", "sum", "sample-max"] {
            let args = ["--month", month, "--form", form, "--sample", "30m"];
            let report = report(scratch.path(), zone.name(), &args);
            let part = &report["parts"][0];
            assert_eq!(
                (&part["samples"], &part["incomplete_samples"]),
                (&json!(hours * 2), &json!(0)),
                "{month}"
            );
            for address in &addresses {
                let found = line(part, &address.to_string());
                let total = world.total(*address);
                assert_exact(&found["in_bytes"], total.bytes[0], "in");
                assert_exact(&found["out_bytes"], total.bytes[1], "out");
                assert_eq!(
                    (found["in_packets"].as_u64(), found["out_packets"].as_u64()),
                    (Some(total.packets[0]), Some(total.packets[1]))
                );
                assert_exact(
                    &found["percentile"],
                    world.percentile(Some(*address), form, 2),
                    form,
                );
            }
            assert_exact(
                &part["all"]["percentile"],
                world.percentile(None, form, 2),
                form,
            );
        }
        let days = report(
            scratch.path(),
            zone.name(),
            &["--month", month, "--by", "day"],
        );
        let of_days = days["parts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|day| day["all"]["in_bytes"]["at_least"].as_u64().unwrap());
        let expected: u64 = addresses.iter().map(|it| world.total(*it).bytes[0]).sum();
        assert_eq!(of_days.sum::<u64>(), expected);
    }
}

/// Files that are gone, lost packets, a kill, an overflow row: the truth is within the bounds, in each of 200 worlds, and
/// figures that nothing touches are exact.
#[test]
fn bounds_hold_what_is_missing() {
    let random = &mut Random(2);
    let addresses = addresses(8);
    let of_ip4: Vec<IpAddr> = addresses.iter().copied().filter(IpAddr::is_ipv4).collect();
    let (mut n_unbounded, mut n_exact, mut n_between) = (0, 0, 0);
    for round in 0..200 {
        let scratch = tempfile::tempdir().unwrap();
        let truth = World::random(random, START, 300, 60, &addresses);
        let mut seen = World {
            start: truth.start,
            seconds: truth.seconds,
            intervals: truth.intervals.clone(),
        };
        // The ends stay, so that the period is the same.
        let n_holes = random.below(8);
        for _ in 0..n_holes {
            let at = 1 + usize::try_from(random.below(58)).unwrap();
            let interval = &mut seen.intervals[at];
            match random.below(4) {
                0 => interval.is_removed = true,
                1 => lose(interval, &of_ip4, random),
                2 => {
                    interval.is_killed = true;
                    for address in &of_ip4 {
                        if random.below(2) == 0 {
                            interval.rows.remove(address);
                        }
                    }
                }
                _ => overflow(interval, &of_ip4, random),
            }
        }
        seen.write(scratch.path(), chrono_tz::UTC);
        let is_removed = seen.intervals.iter().any(|it| it.is_removed);
        for form in ["in", "max", "sum", "sample-max"] {
            let report = report(scratch.path(), "UTC", &["--form", form]);
            let part = &report["parts"][0];
            assert_eq!(part["samples"], 60);
            for address in &addresses {
                let found = line(part, &address.to_string());
                let total = truth.total(*address);
                let what = format!("round {round}, {address}, {form}");
                assert_holds(&found["in_bytes"], total.bytes[0], &what);
                assert_holds(&found["out_bytes"], total.bytes[1], &what);
                let percentile = truth.percentile(Some(*address), form, 1);
                assert_holds(&found["percentile"], percentile, &what);
                let high = &found["percentile"]["at_most"];
                n_unbounded += u32::from(high.is_null());
                n_exact +=
                    u32::from(*high == percentile && found["percentile"]["at_least"] == percentile);
                n_between += u32::from(!high.is_null() && *high != found["percentile"]["at_least"]);
                if address.is_ipv6() && !is_removed {
                    assert_exact(&found["in_bytes"], total.bytes[0], &what);
                    assert_exact(&found["percentile"], percentile, &what);
                }
            }
        }
    }
    assert!(
        n_unbounded > 100 && n_exact > 100 && n_between > 100,
        "{n_unbounded} {n_exact} {n_between}"
    );
}

#[test]
fn customers_and_nobody_are_all_of_the_files() {
    let random = &mut Random(3);
    let scratch = tempfile::tempdir().unwrap();
    let addresses = addresses(20);
    let world = World::random(random, START, 300, 40, &addresses);
    world.write(scratch.path(), chrono_tz::UTC);
    let customers = scratch.path().join("customers.txt");
    fs::write(&customers, "prefix,customer,commit_mbit,quota_gb,form\n10.0.0.0/29,one,0.001,0.0001,sum\n2001:db8:8::/48,one,,,\n10.0.0.9,two,,,\n192.0.2.0/24,silent,1,,\n").unwrap();
    let found = report(
        scratch.path(),
        "UTC",
        &["--customers", customers.to_str().unwrap()],
    );
    let part = &found["parts"][0];
    let sum = |names: &[&str]| -> u64 {
        let totals = names
            .iter()
            .map(|name| world.total(name.parse().unwrap()).bytes[0]);
        totals.sum()
    };
    let bytes = |name: &str| line(part, name)["in_bytes"]["at_least"].as_u64().unwrap();
    let of_one = [
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.5",
        "10.0.0.6",
        "10.0.0.7",
        "2001:db8:8::",
    ];
    assert_eq!(bytes("one"), sum(&of_one));
    assert_eq!((bytes("two"), bytes("silent")), (sum(&["10.0.0.9"]), 0));
    let all: u64 = addresses.iter().map(|it| world.total(*it).bytes[0]).sum();
    assert_eq!(bytes("one") + bytes("two") + bytes("(nobody)"), all);
    assert_exact(&part["all"]["in_bytes"], all, "all");
    let one = line(part, "one");
    assert_eq!(one["form"], "sum");
    let over = one["percentile"]["at_least"].as_u64().unwrap() - 1_000;
    assert_exact(&one["contract"]["over_commit"], over, "above the commit");
    let used = one["in_bytes"]["at_least"].as_u64().unwrap()
        + one["out_bytes"]["at_least"].as_u64().unwrap();
    assert_exact(&one["contract"]["used_bytes"], used, "the quota");
    assert_exact(
        &one["contract"]["over_quota_bytes"],
        used - 100_000,
        "above the quota",
    );
    assert_eq!(one["contract"]["threshold_percent"], 100);
    assert!(one["contract"]["used_up"].is_null());
    let top = report(scratch.path(), "UTC", &["--top", "2"]);
    let names: Vec<&str> = top["parts"][0]["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), names[2]), (3, "(18 others)"));
}

#[test]
fn hosts_are_added_and_have_a_line_each() {
    let random = &mut Random(4);
    let scratch = tempfile::tempdir().unwrap();
    let addresses = addresses(6);
    let worlds = [0, 1].map(|host| {
        let world = World::random(random, START, 300, 20, &addresses);
        let directory = scratch.path().join(format!("router{host}"));
        fs::create_dir(&directory).unwrap();
        world.write(&directory, chrono_tz::UTC);
        world
    });
    let second = scratch.path().join("router1");
    let found = report(
        &scratch.path().join("router0"),
        "UTC",
        &["--group-by", "host", second.to_str().unwrap()],
    );
    let part = &found["parts"][0];
    for (host, world) in worlds.iter().enumerate() {
        let found = line(part, &format!("router{host}"));
        assert_exact(
            &found["percentile"],
            world.percentile(None, "max", 1),
            "host",
        );
    }
    let expected: u64 = worlds
        .iter()
        .flat_map(|world| addresses.iter().map(|it| world.total(*it).bytes[1]))
        .sum();
    assert_exact(&part["all"]["out_bytes"], expected, "all");
}

#[test]
fn what_cannot_be_read_is_one_line_and_no_report() {
    let random = &mut Random(5);
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path();
    fails(place, &[], 1, "has no file of acctd's");
    fails(&place.join("absent"), &[], 1, "No such file or directory");
    let world = World::random(random, START, 300, 3, &addresses(4));
    world.write(place, chrono_tz::UTC);
    let file = place.join("2026-01-01-000500_2026-01-01-001000.csv");
    let whole = fs::read_to_string(&file).unwrap();
    let name = "2026-01-01-000500_2026-01-01-001000.csv: ";
    for (text, part) in [
        (whole[..whole.len() - 3].to_owned(), "is cut off"),
        (
            whole.replace("DestBytes", "Bytes"),
            "does not name the columns",
        ),
        ("id;amount\n1;2\n".to_owned(), "does not name the columns"),
        ("\u{0}\u{1}\u{2}".to_owned(), "no whole line"),
        (
            format!("{whole}x,10.0.0.1,1,1,1,1\n"),
            "one of both was changed",
        ),
    ] {
        fs::write(&file, text).unwrap();
        fails(place, &[], 1, name);
        fails(place, &[], 1, part);
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fails(place, &[], 1, "Is a directory");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, &whole).unwrap();
    for (args, code, part) in [
        (["--month", "2026-13"], 2, "must be a month"),
        (
            ["--from", "tomorrow"],
            2,
            "must be a day or a time of a day",
        ),
        (
            ["--percentile", "101"],
            2,
            "must be above 0 and at most 100",
        ),
        (
            ["--sample", "1m"],
            1,
            "--sample must be a multiple of the files' interval, which is 300 s",
        ),
        (["--zone", "Europe/Atlantis"], 1, "is not a time zone"),
        (["--group-by", "customer"], 1, "needs --customers FILE"),
        (["--month", "2025-01"], 1, "no file begins in this period"),
        (
            ["--customers", "/nonexistent"],
            1,
            "/nonexistent: No such file",
        ),
    ] {
        fails(place, &args, code, part);
    }
    fails(
        place,
        &["--from", "2026-01-02", "--to", "2026-01-01"],
        1,
        "must be later than --from",
    );
    let customers = place.join("customers.txt");
    fs::write(&customers, "prefix,customer\n10.0.0.0/8,a\n10.0.0.0/16,b\n").unwrap();
    fails(
        place,
        &["--customers", customers.to_str().unwrap()],
        1,
        "lines 2 and 3: 10.0.0.0/16 (b) is part of 10.0.0.0/8 (a)",
    );
}

#[test]
fn a_page_has_all_that_it_needs_and_says_what_it_is_made_of() {
    let random = &mut Random(6);
    let scratch = tempfile::tempdir().unwrap();
    let mut world = World::random(random, START, 300, 600, &addresses(12));
    world.intervals[100].is_removed = true;
    world.write(scratch.path(), chrono_tz::UTC);
    let page = |title: &str| {
        let output = Command::cargo_bin("acctd")
            .unwrap()
            .env("TZ", "UTC")
            .args([
                "report",
                "--format",
                "html",
                "--group-by",
                "host",
                "--title",
                title,
            ])
            .arg(scratch.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = page("Q&A <b>");
    assert!(
        text.contains("<title>Q&#38;A &#60;b&#62;</title>"),
        "{}",
        &text[..400]
    );
    for outside in ["<script", "http:", "https:", "@import", "url("] {
        assert!(!text.contains(outside), "{outside}");
    }
    // All of it and the host: one plot each. Three days, and the sample that is missing.
    assert_eq!(text.matches("aria-label=\"traffic over time\"").count(), 2);
    assert_eq!(text.matches("<rect class=\"gap\"").count(), 2);
    for part in ["all but 1", "01-03", "599 files", "--format html"] {
        assert!(text.contains(part), "{part}");
    }
    // The same files have the same digest, and others another.
    let digest =
        |text: &str| text.split("digests of the files: <code>").nth(1).unwrap()[..64].to_owned();
    assert_eq!(digest(&text), digest(&page("another")));
    let file = scratch
        .path()
        .join("2026-01-01-000000_2026-01-01-000500.csv");
    let changed = fs::read_to_string(&file).unwrap().replacen(
        "2026-01-01 00:00:00",
        "2026-01-01 00:00:01",
        1,
    );
    fs::write(&file, changed).unwrap();
    assert_ne!(digest(&text), digest(&page("another")));
}

/// The month of which the first day has passed: a quota of ten days' use is used up then.
#[test]
fn a_quota_is_foretold_from_what_was_used() {
    let scratch = tempfile::tempdir().unwrap();
    let now = chrono::Utc::now();
    let month = now.format("%Y-%m").to_string();
    let first = format!("{month}-01T00:00:00Z")
        .parse::<DateTime<chrono::Utc>>()
        .unwrap();
    // Files that end in the future are taken as they are.
    let n_intervals = 2 + usize::try_from((now - first).num_minutes() / 5).unwrap();
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    let row = Row {
        bytes: [1_000_000, 0],
        packets: [1_000, 0],
    };
    let interval = Interval {
        rows: [(address, row)].into(),
        ..Interval::default()
    };
    let world = World {
        start: first.timestamp(),
        seconds: 300,
        intervals: vec![interval; n_intervals],
    };
    world.write(scratch.path(), chrono_tz::UTC);
    let customers = scratch.path().join("customers.txt");
    // 10^6 bytes in five minutes are 288 MB a day: used up after 3 hours, 27 days, and never in a month.
    fs::write(
        &customers,
        "prefix,customer,quota_gb,form\n10.0.0.1,a,7.776,in\n",
    )
    .unwrap();
    let args = [
        "--month",
        &month,
        "--customers",
        customers.to_str().unwrap(),
    ];
    let contract =
        || line(&report(scratch.path(), "UTC", &args)["parts"][0], "a")["contract"].clone();
    let used = contract();
    let percent = n_intervals * 100 / 7_776;
    let threshold = [100, 90, 80].into_iter().find(|it| percent >= *it);
    assert_eq!(
        used["threshold_percent"].as_u64(),
        threshold.map(|it| it as u64)
    );
    let expected = if n_intervals < 7_776 {
        json!(format!("{month}-28 00:00:00"))
    } else {
        Value::Null
    };
    assert_eq!(used["used_up"], expected);
    fs::write(
        &customers,
        "prefix,customer,quota_gb,form\n10.0.0.1,a,9,in\n",
    )
    .unwrap();
    assert!(contract()["used_up"].is_null());
}
