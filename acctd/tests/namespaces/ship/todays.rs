//! The engine of today: reports, and the dashboard's queries.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testkit::process::{self, Process};

use super::ACCTD;
use super::host::{Host, assert_exact};
use super::server::{self, Server};
use crate::databases;
use crate::waiting::wait_until;
use crate::world::START;

/// The engine of today, in Python, behind a server that passes statements on to it.
pub(super) fn to_todays() -> Result<()> {
    let scratch = TempDir::new()?;
    let port = server::free_port()?;
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/namespaces/ship/todays.py"
    );
    let mut command = Command::new(databases::python()?);
    command
        .args([script, &port.to_string()])
        .stderr(Stdio::null());
    let mut front = Process::spawn(&mut command)?;
    let server = Server::of(port)?;
    wait_until("it answers", || {
        ensure!(front.try_wait()?.is_none(), "it has ended");
        Ok(server.query("SELECT 1").is_ok())
    })?;
    for _ in 0..2 {
        server.load_schema(&[])?;
    }
    let host = Host::new(scratch.path(), 1)?;
    for n_files in [289, 0] {
        let output = host
            .ship(port, &["--once", "--compression=gzip"])
            .output()?;
        let log = String::from_utf8(output.stderr)?;
        let expected = format!(" {n_files} files with");
        ensure!(output.status.success() && log.contains(&expected), "{log}");
    }
    assert_exact(&server, std::slice::from_ref(&host))?;
    let report = |words: &[&str]| -> Result<String> {
        let mut command = Command::new(ACCTD);
        command.args(["report", "--zone=UTC", "--format=csv", "--by=hour"]);
        process::output(command.args(words))
    };
    let url = format!("--from-clickhouse=http://127.0.0.1:{port}");
    let directory = host.directory.display().to_string();
    ensure!(report(&[&url, "--user=default"])? == report(&[&directory])?);
    each_query_of_the_dashboard_has_data(&server)
}

/// With the macros of Grafana's data source for ClickHouse as it expands them.
fn each_query_of_the_dashboard_has_data(server: &Server) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist/grafana-acctd-clickhouse.json");
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(path)?)?;
    let panels = dashboard["panels"].as_array().context("panels")?.iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut n_queries = 0;
    for target in targets {
        let mut query = target["rawSql"].as_str().context("a query")?.to_owned();
        for table in ["files", "traffic", "traffic_day"] {
            query = query.replace(&format!("FROM {table} "), &format!("FROM acctd.{table} "));
        }
        for column in ["Time", "start"] {
            let filter = format!(
                "{column} >= toDateTime({START}) AND {column} <= toDateTime({})",
                START + 200_000
            );
            let interval = format!("toStartOfInterval(toDateTime({column}), INTERVAL 300 second)");
            query = query
                .replace(&format!("$__timeFilter({column})"), &filter)
                .replace(&format!("$__timeInterval({column})"), &interval);
        }
        let query = query
            .replace("$__interval_s", "300")
            .replace("${host:singlequote}", "'r1'");
        ensure!(!query.contains('$'), "{query}");
        let rows = server.query(&query).context("a query of the dashboard")?;
        ensure!(!rows.trim().is_empty(), "no data: {query}");
        n_queries += 1;
    }
    ensure!(n_queries == 9, "{n_queries} queries");
    Ok(())
}
