//! Debian's ClickHouse, 18.16, on a port of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use testkit::process::{self, Process};
use testkit::unpacked;

use crate::waiting::wait_until;

/// Why it cannot be had, if so.
pub(crate) fn clickhouse() -> Result<(), String> {
    program().map(drop).map_err(|error| format!("{error:#}"))
}

fn program() -> Result<PathBuf> {
    unpacked::program("clickhouse-server", "usr/sbin/clickhouse-server")
}

/// A server with its data in a temporary directory. It is killed when dropped.
pub(super) struct Server {
    pub(super) port: u16,
    directory: TempDir,
    process: Option<Process>,
    /// Options of a tmpfs that has its data.
    disk: Option<&'static str>,
}

impl Server {
    pub(super) fn start() -> Result<Self> {
        Self::start_with(free_port()?, "", None)
    }

    /// On a disk of this size: `size=20m`.
    pub(super) fn start_on(disk: &'static str) -> Result<Self> {
        Self::start_with(free_port()?, "", Some(disk))
    }

    /// `more` is part of its configuration.
    pub(super) fn start_with(tcp: u16, more: &str, disk: Option<&'static str>) -> Result<Self> {
        let directory = TempDir::new()?;
        let port = free_port()?;
        let shown = directory.path().display();
        fs::write(
            directory.path().join("config.xml"),
            format!(
                "<yandex><logger><level>none</level></logger><http_port>{port}</http_port><tcp_port>{tcp}</tcp_port>
                 <listen_host>127.0.0.1</listen_host><path>{shown}/data/</path><tmp_path>{shown}/tmp/</tmp_path>
                 <mark_cache_size>67108864</mark_cache_size><users_config>users.xml</users_config>
                 <default_profile>default</default_profile><default_database>default</default_database>{more}</yandex>"
            ),
        )?;
        fs::write(
            directory.path().join("users.xml"),
            "<yandex><profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>
             <networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default></users></yandex>",
        )?;
        let mut server = Self {
            port,
            directory,
            process: None,
            disk,
        };
        server.restart()?;
        Ok(server)
    }

    /// Another program, which listens there.
    pub(super) fn of(port: u16) -> Result<Self> {
        Ok(Self {
            port,
            directory: TempDir::new()?,
            process: None,
            disk: None,
        })
    }

    /// After it was killed.
    pub(super) fn restart(&mut self) -> Result<()> {
        let mut command = match self.disk {
            None => Command::new(program()?),
            Some(options) => {
                // Gone with the process.
                let script = "mkdir data; mount -t tmpfs -o \"$0\" none data; exec \"$@\"";
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "sh", "-ec", script, options])
                    .arg(program()?);
                command
            }
        };
        let config = self.directory.path().join("config.xml");
        command
            .arg(format!("--config-file={}", config.display()))
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command)?;
        wait_until("ClickHouse answers", || {
            ensure!(process.try_wait()?.is_none(), "ClickHouse has ended");
            Ok(self.query("SELECT 1").is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    pub(super) fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("it is not running")?.pid())
    }

    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Rows, with tabs between their fields.
    pub(super) fn query(&self, statement: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "POST / HTTP/1.0\r\nContent-Length: {}\r\n\r\n{statement}",
            statement.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let answered = answer.split_once("\r\n\r\n");
        let (head, body) = answered.with_context(|| format!("no answer to {statement}"))?;
        if !head.contains(" 200 ") {
            bail!("{statement}: {body}");
        }
        Ok(body.to_owned())
    }

    /// Deletes rows of a table of acctd ship, and waits until they are gone.
    pub(super) fn delete(&self, table: &str, rows: &str) -> Result<()> {
        self.query(&format!("ALTER TABLE acctd.{table} DELETE WHERE {rows}"))?;
        wait_until("the rows are deleted", || {
            let left = format!("SELECT count() FROM acctd.{table} WHERE {rows}");
            Ok(self.query(&left)?.trim() == "0")
        })
    }

    /// Gives its disk another size.
    pub(super) fn resize(&self, options: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        let target = format!("--target={}", self.pid()?);
        command.args(["--mount", &target, "mount", "-o"]);
        command.arg(format!("remount,{options}"));
        process::run(command.arg(self.directory.path().join("data")))
    }

    /// Its tables are there, and their rows are not: as after a disk was replaced. It must have been killed.
    pub(super) fn lose_data(&self) -> Result<()> {
        let data = self.directory.path().join("data");
        for entry in fs::read_dir(data.join("data/acctd"))? {
            fs::remove_dir_all(entry?.path())?;
        }
        fs::create_dir_all(data.join("flags"))?;
        Ok(fs::write(data.join("flags/force_restore_data"), "")?)
    }

    /// As `acctd ship --schema` prints it.
    pub(super) fn load_schema(&self, more: &[&str]) -> Result<()> {
        let mut command = Command::new(super::ACCTD);
        let schema = process::output(command.args(["ship", "--schema"]).args(more))?;
        for statement in schema.split(";\n").filter(|it| !it.trim().is_empty()) {
            self.query(statement)?;
        }
        Ok(())
    }
}

/// Of this process nobody else gets it: a port that is free may be taken before the server has it.
pub(super) fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
        ensure!(port < 30_000, "no port is free");
    }
}
