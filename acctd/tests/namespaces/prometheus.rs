//! A real Prometheus scrapes acctd: what it has are the numbers of the files; its tool finds nothing to complain
//! about; each query of the dashboard returns data.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::process::{self, Process};
use testkit::traffic::TrafficArgs;
use testkit::unpacked;

use crate::rig::Rig;
use crate::{Case, Needs, crosscheck};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Alone(&Needs::Prometheus),
        "prometheus_has_the_numbers_of_the_files_and_the_dashboard_has_data",
        prometheus_has_the_numbers_of_the_files,
    ),
    (
        Needs::Prometheus,
        "prometheus_finds_nothing_wrong_with_metrics_and_alerts",
        promtool_finds_nothing_wrong,
    ),
];

const PACKAGE: &str = "prometheus";

/// Why it cannot be had, if so.
pub(crate) fn available() -> Result<(), String> {
    let programs = [program("prometheus"), program("promtool")];
    let found = programs.into_iter().collect::<Result<Vec<PathBuf>>>();
    found.map(drop).map_err(|error| format!("{error:#}"))
}

fn program(name: &str) -> Result<PathBuf> {
    unpacked::program(PACKAGE, &format!("usr/bin/{name}"))
}

/// Packets from lan0 are logged and dropped; what the router says to itself is left alone.
const RULES: &str = "
    table inet rig {
        counter v4 {}
        counter v6 {}
        chain prerouting {
            type filter hook prerouting priority raw
            iifname lo accept
            meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv6 counter name v6 log group 7 snaplen 40 queue-threshold 50
            drop
        }
    }";

const ADDRESS: &str = "127.0.0.1:9745";
const CONFIGURATION: &str = "
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [ALERTS]
scrape_configs:
  - job_name: acctd
    static_configs: [{targets: ['127.0.0.1:9745']}]
";
const SERVER: &str = "http://127.0.0.1:9090";

struct Prometheus<'a> {
    rig: &'a Rig,
    _process: Process,
}

impl<'a> Prometheus<'a> {
    fn start(rig: &'a Rig) -> Result<Self> {
        let file = rig.scratch().join("prometheus.yml");
        let alerts = dist("acctd-alerts.yml").display().to_string();
        fs::write(&file, CONFIGURATION.replace("ALERTS", &alerts))?;
        let mut command = rig.router.command(program("prometheus")?);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                rig.scratch().join("tsdb").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090")
            .arg("--log.level=error")
            .stdin(Stdio::null());
        let process = Process::spawn(&mut command)?;
        Ok(Self {
            rig,
            _process: process,
        })
    }

    /// Labels and value of each series.
    fn query(&self, expression: &str) -> Result<Vec<(Value, String)>> {
        let mut command = self.rig.router.command(program("promtool")?);
        command.args(["query", "instant", "-o", "json", SERVER, expression]);
        let output = process::output(&mut command).with_context(|| expression.to_owned())?;
        let series: Vec<Value> = serde_json::from_str(&output)?;
        let values = series.into_iter().map(|one| {
            let value = one["value"][1].as_str().unwrap_or_default().to_owned();
            (one["metric"].clone(), value)
        });
        Ok(values.collect())
    }

    /// The value of the only series.
    fn value(&self, expression: &str) -> Result<String> {
        let series = self.query(expression)?;
        let [(_, value)] = &series[..] else {
            anyhow::bail!("{expression}: {series:?}");
        };
        Ok(value.clone())
    }

    fn wait_for(&self, expression: &str, wanted: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let value = self.value(expression);
            if value.as_deref().is_ok_and(|value| value == wanted) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{expression}: {value:?}, not {wanted}"
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}

fn dist(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dist")
        .join(name)
}

/// The kernel measures the TC programs meanwhile.
struct BpfStatistics(String);

const BPF_STATISTICS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl BpfStatistics {
    fn on() -> Result<Self> {
        let before = fs::read_to_string(BPF_STATISTICS)?;
        fs::write(BPF_STATISTICS, "1")?;
        Ok(Self(before))
    }
}

impl Drop for BpfStatistics {
    fn drop(&mut self) {
        // It costs some time and does no harm.
        let _stays_on = fs::write(BPF_STATISTICS, &self.0);
    }
}

fn prometheus_has_the_numbers_of_the_files() -> Result<()> {
    let _statistics = BpfStatistics::on()?;
    let rig = Rig::new()?;
    rig.rules(RULES)?;
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    let listen = format!("-listen={ADDRESS}");
    let args = [
        "-interval=1s",
        "-checkpoint=100ms",
        "-ip4-src-group=5",
        "-ip6-src-group=7",
        "-crosscheck=lan0",
        &listen,
    ];
    let acctd = rig.acctd(&args)?;
    let prometheus = Prometheus::start(&rig)?;
    prometheus.wait_for("up", "1")?;
    let mut load = Vec::new();
    for (source, dest, count, rate) in [
        ("10.1.0.0/16", "10.255.0.1/32", 40_000, 10_000),
        ("fd00:1::/48", "fd00:2::1/128", 20_000, 5_000),
    ] {
        load.push(rig.send_in_background(&TrafficArgs {
            sources: 100,
            count,
            rate,
            ..rig.traffic(source, dest)?
        })?);
    }
    for traffic in load {
        traffic.finish()?;
    }
    prometheus.wait_for("sum(acctd_crosscheck_packets_total)", "60000")?;
    // All is in files then. What was scraped last is that or newer.
    prometheus.wait_for("sum(acctd_packets_total)", "60000")?;
    each_query_of_the_dashboard_has_data(&prometheus)?;
    // None of a healthy acctd whose files come in time.
    let firing = prometheus.query("ALERTS")?;
    ensure!(firing.is_empty(), "{firing:?}");
    // While acctd answers: what is not there any more has no value.
    let logged = [rig.counter("v4")?, rig.counter("v6")?];
    for (group, logged) in [5, 7].into_iter().zip(logged) {
        for (metric, number) in [("packets", logged.packets), ("bytes", logged.bytes)] {
            let expression = format!("acctd_{metric}_total{{group=\"{group}\"}}");
            ensure!(prometheus.value(&expression)? == number.to_string());
        }
    }
    let matching = "acctd_crosscheck_prefixes_total{verdict!=\"match\"}";
    for (labels, value) in prometheus.query(matching)? {
        ensure!(value == "0", "{labels} {value}");
    }
    let runs = "acctd_crosscheck_program_runs_total{program=\"acctd_ingress_source\"}";
    ensure!(prometheus.value(runs)?.parse::<u64>()? == 60_000);
    acctd.finish()?;
    for (is_ip4, logged) in [true, false].into_iter().zip(logged) {
        ensure!(crosscheck::sources(&rig, is_ip4)? == (logged, logged));
    }
    Ok(())
}

fn each_query_of_the_dashboard_has_data(prometheus: &Prometheus<'_>) -> Result<()> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(dist("grafana-acctd.json"))?)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut n_queries = 0;
    for target in targets {
        let query = target["expr"].as_str().context("a query")?;
        let query = query
            .replace("$__rate_interval", "10s")
            .replace("$instance", ".*");
        let series = prometheus.query(&query)?;
        ensure!(!series.is_empty(), "no data: {query}");
        n_queries += 1;
    }
    ensure!(n_queries >= 30, "{n_queries} queries");
    Ok(())
}

fn promtool_finds_nothing_wrong() -> Result<()> {
    let rig = Rig::new()?;
    let listen = format!("-listen=unix:{}", rig.scratch().join("s").display());
    let acctd = rig.acctd(&["-ip4-src-group=5", "-crosscheck=lan0", &listen])?;
    acctd.wait_for_line("Listening on")?;
    let (code, metrics) = crate::listen::ask(&rig.scratch().join("s"), "GET /metrics HTTP/1.1")?;
    ensure!(code == 200);
    let file = rig.scratch().join("metrics");
    fs::write(&file, metrics)?;
    let check = |words: &[&str], input: Stdio| -> Result<()> {
        let mut command = Command::new(program("promtool")?);
        let output = command.args(words).stdin(input).output()?;
        let said =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        ensure!(output.status.success(), "{words:?}: {said:?}");
        ensure!(
            words[1] != "metrics" || said.iter().all(String::is_empty),
            "{said:?}"
        );
        Ok(())
    };
    check(&["check", "metrics"], fs::File::open(&file)?.into())?;
    let alerts = dist("acctd-alerts.yml").display().to_string();
    check(&["check", "rules", &alerts], Stdio::null())?;
    let tests = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/prometheus/alerts.test.yml"
    );
    check(&["test", "rules", tests], Stdio::null())?;
    acctd.finish()?;
    Ok(())
}
