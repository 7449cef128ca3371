//! Who sends now: `/top`, `acctd top`, and the page in a real browser.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use testkit::process;
use testkit::traffic::TrafficArgs;

use crate::kernel::scaled;
use crate::listen::{ONE_INTERVAL, get, listening, socket};
use crate::rig::{LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "top_shows_who_sends_and_how_much",
        top_shows_who_sends,
    ),
    (
        Needs::Alone(&Needs::Namespace),
        "top_of_a_million_prefixes_at_full_speed_loses_no_packet",
        top_of_a_million_prefixes,
    ),
    (
        Needs::Browser,
        "the_page_shows_who_sends_in_a_browser_without_an_error",
        the_page_in_a_browser,
    ),
];

/// Much longer than any of these tests.
const LONG: u64 = 1_000_000;

/// Of 20 sources, those of 10.1.0.0/28 are 16.
fn sending(rig: &Rig) -> Result<testkit::traffic::Traffic> {
    rig.send_in_background(&TrafficArgs {
        sources: 20,
        count: LONG,
        rate: 1_000,
        ..rig.traffic("10.1.0.0/24", "10.255.0.1/32")?
    })
}

fn top(rig: &Rig, args: &[&str]) -> Result<String> {
    let mut command = rig.router.command(rig.acctd_path());
    command.args(["top", "--once"]).args(args);
    command.arg(format!("--listen=unix:{}", socket(rig).display()));
    process::output(&mut command)
}

fn rate(prefix: &Value, field: &str) -> f64 {
    prefix[field].as_f64().unwrap_or_default()
}

fn top_shows_who_sends() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = listening(&rig, ONE_INTERVAL)?;
    let idle: Value = serde_json::from_str(&top(&rig, &["--json"])?)?;
    ensure!(idle["prefixes"] == serde_json::json!([]), "{idle}");
    let traffic = sending(&rig)?;
    // The kernel hands over a batch each second at the latest.
    wait_until("all senders are there", || {
        let answer: Value = serde_json::from_str(&top(&rig, &["--json", "-n=100"])?)?;
        let prefixes = answer["prefixes"].as_array().context("prefixes")?;
        let all = rate(&answer["all"], "out_packets_per_second");
        let sum: f64 = prefixes
            .iter()
            .map(|it| rate(it, "out_packets_per_second"))
            .sum();
        // Each is rounded to a tenth.
        ensure!((all - sum).abs() <= 2.0, "{answer}");
        Ok(prefixes.len() == 20 && all > 500.0)
    })?;
    let filtered: Value =
        serde_json::from_str(&top(&rig, &["--json", "--filter=10.1.0.0/28", "-n=100"])?)?;
    let prefixes = filtered["prefixes"].as_array().context("prefixes")?;
    ensure!(!prefixes.is_empty() && prefixes.len() <= 16, "{filtered}");
    ensure!(filtered["status"]["groups"][0]["group"] == 5, "{filtered}");
    let text = top(&rig, &["-n=3", "--sort=packets"])?;
    let lines: Vec<&str> = text.lines().collect();
    ensure!(lines.len() == 2 + 3, "{text}");
    ensure!(
        lines[0].contains("lost 0, undecodable 0") && lines[2].starts_with("10.1.0."),
        "{text}"
    );
    let mut on_no_terminal = rig.router.command(rig.acctd_path());
    let output = on_no_terminal.arg("top").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(1) && said.contains("use --once"),
        "{said}"
    );
    let (code, said) = get(&rig, "/top?sort=size")?;
    ensure!(code == 400 && said.contains("sort must be"), "{said}");
    drop(traffic);
    acctd.finish()?;
    Ok(())
}

fn top_of_a_million_prefixes() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = listening(&rig, ONE_INTERVAL)?;
    let is_over = AtomicBool::new(false);
    let count = scaled(2_000_000);
    let n_answers = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut n_answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                let (code, text) = get(&rig, "/top?n=1000")?;
                ensure!(code == 200, "{text}");
                n_answers += 1;
                // Each answer has a new copy.
                thread::sleep(Duration::from_secs(1));
            }
            Ok::<_, anyhow::Error>(n_answers)
        });
        // First all prefixes, then all of them again and again at full speed.
        let sent = [100_000, Rig::fastest_rate()]
            .into_iter()
            .try_for_each(|rate| {
                let args = TrafficArgs {
                    sources: scaled(1_000_000),
                    count,
                    rate,
                    ..rig.traffic("10.0.0.0/8", "192.0.2.1/32")?
                };
                rig.send(&args).map(drop)
            });
        is_over.store(true, Ordering::Relaxed);
        let joined = asking.join();
        sent?;
        joined.unwrap_or_else(|_panicked| bail!("the thread that asks has panicked"))
    })?;
    ensure!(n_answers >= 5, "{n_answers} answers");
    acctd.finish()?;
    let logged = rig.counter("v4")?;
    ensure!(logged.packets == 2 * count);
    ensure!(totals(&rig.files()?, true) == (logged, NONE));
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

/// Debian's.
const BROWSER: &str = "chromium";
const PAGE: &str = "http://127.0.0.1:9746/";

/// Why there is none, if so.
pub(crate) fn browser() -> Result<(), String> {
    let found = testkit::netns::find_program(BROWSER);
    found
        .map(drop)
        .ok_or_else(|| format!("{BROWSER} is not installed"))
}

/// What the browser prints, its console included.
fn browse(rig: &Rig, args: &[&str]) -> Result<(String, String)> {
    let profile = rig.scratch().join("browser");
    let mut command = rig.router.command(BROWSER);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--enable-logging=stderr",
        "--virtual-time-budget=6000",
    ]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    let output = command.args(args).arg(PAGE).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "{}", text(&output.stderr));
    Ok((text(&output.stdout), text(&output.stderr)))
}

fn the_page_in_a_browser() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            chain prerouting {
                type filter hook prerouting priority raw
                iifname lo accept
                meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
                drop
            }
        }",
    )?;
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5", "-listen=127.0.0.1:9746"])?;
    acctd.wait_for_line("Listening on 127.0.0.1:9746")?;
    let traffic = sending(&rig)?;
    wait_until("the page has the senders, and files", || {
        let (page, console) = browse(&rig, &["--dump-dom"])?;
        // The browser's own pages have others.
        let is_of_page = |line: &&str| line.contains("CONSOLE") && line.contains(PAGE);
        let errors = console.lines().filter(is_of_page);
        let errors: Vec<&str> = errors.collect();
        ensure!(errors.is_empty(), "{errors:#?}");
        ensure!(page.contains("lost 0"), "{page}");
        Ok(page.contains("<td>10.1.0.") && page.contains("files since"))
    })?;
    // Kept for whoever wants to see it.
    let picture = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    let screenshot = format!("--screenshot={}", picture.display());
    browse(&rig, &[&screenshot, "--window-size=1000,1200"])?;
    ensure!(std::fs::metadata(&picture)?.len() > 10_000);
    drop(traffic);
    acctd.finish()?;
    Ok(())
}
