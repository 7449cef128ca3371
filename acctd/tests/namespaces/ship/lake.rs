//! Archives into a directory, and into S3 (SeaweedFS): each once, whatever is killed, and never replaced.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testkit::process::{self, Process};

use super::ACCTD;
use super::host::Host;
use super::proxy::Proxy;
use super::server::free_port;
use crate::databases;
use crate::errors::complains;
use crate::waiting::wait_until;

const CREDENTIALS: [&str; 2] = ["acctd", "not a secret"];

/// Where archives are sent to, and read from.
enum Lake {
    Directory(PathBuf),
    S3(Box<SeaweedFs>),
}

impl Lake {
    /// By which `acctd ship` finds it.
    fn flags(&self) -> Vec<String> {
        match self {
            Self::Directory(directory) => vec![format!("--to=file://{}", directory.display())],
            Self::S3(server) => server.flags(server.port),
        }
    }

    fn ship(&self, host: &Host, more: &[&str]) -> Command {
        ship(host, &self.flags(), more)
    }

    fn once(&self, host: &Host) -> Result<String> {
        let output = self.ship(host, &["--once"]).output()?;
        let log = String::from_utf8(output.stderr)?;
        ensure!(output.status.success(), "{log}");
        Ok(log)
    }

    fn is_verified(&self, host: &Host) -> Result<bool> {
        Ok(self.ship(host, &["--verify"]).output()?.status.success())
    }

    /// A directory with what it has of a host.
    fn copy(&self, host: &Host, scratch: &Path) -> Result<PathBuf> {
        match self {
            Self::Directory(directory) => Ok(directory.join(&host.name)),
            Self::S3(server) => {
                let copy = scratch.join(format!("copy-{}", host.name));
                fs::create_dir_all(&copy)?;
                for name in archives(&host.directory)? {
                    let object = format!("lake/accounting/{}/{name}", host.name);
                    let mut command = server.curl(&object);
                    command.arg("--output").arg(copy.join(name));
                    process::run(&mut command)?;
                }
                Ok(copy)
            }
        }
    }
}

fn ship(host: &Host, flags: &[String], more: &[&str]) -> Command {
    let mut command = Command::new(ACCTD);
    command
        .arg("ship")
        .arg(&host.directory)
        .args(["--host", &host.name])
        .args(flags)
        .args(more);
    command
}

/// The names of archives, and of the lines beside them.
fn archives(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let is_csv = Path::new(&name).extension().is_some_and(|it| it == "csv");
        if !is_csv && name != "intervals.jsonl" {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn report(directory: &Path) -> Result<String> {
    let mut command = Command::new(ACCTD);
    command.args(["report", "--zone=UTC", "--format=csv", "--by=hour"]);
    process::output(command.arg(directory))
}

/// S3 on a port of its own.
struct SeaweedFs {
    port: u16,
    directory: TempDir,
    process: Option<Process>,
}

impl SeaweedFs {
    fn start() -> Result<Self> {
        let directory = TempDir::new()?;
        let [user, secret] = CREDENTIALS;
        fs::write(
            directory.path().join("s3.json"),
            format!(
                r#"{{"identities": [{{"name": "{user}", "actions": ["Admin"],
                    "credentials": [{{"accessKey": "{user}", "secretKey": "{secret}"}}]}}]}}"#
            ),
        )?;
        fs::write(directory.path().join("key"), secret)?;
        let mut server = Self {
            port: free_port()?,
            directory,
            process: None,
        };
        server.restart()?;
        // Its volumes come after its port.
        wait_until("it makes a bucket", || {
            Ok(server
                .curl("lake")
                .args(["-X", "PUT"])
                .output()?
                .status
                .success())
        })?;
        Ok(server)
    }

    /// After it was killed.
    fn restart(&mut self) -> Result<()> {
        let mut command = Command::new(databases::python()?.with_file_name("weed"));
        command.args(["server", "-filer", "-s3", "-dir=.", "-s3.config=s3.json"]);
        command.args([
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
        ]);
        command.args([
            "-master.volumeSizeLimitMB=64",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
        ]);
        command.arg(format!("-s3.port={}", self.port));
        for part in ["master.port", "volume.port", "filer.port"] {
            command.arg(format!("-{part}={}", free_port()?));
            command.arg(format!("-{part}.grpc={}", free_port()?));
        }
        command.arg(format!("-s3.port.grpc={}", free_port()?));
        command
            .current_dir(self.directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command)?;
        wait_until("S3 answers", || {
            ensure!(process.try_wait()?.is_none(), "it has ended");
            Ok(self.curl("").output()?.status.success())
        })?;
        self.process = Some(process);
        Ok(())
    }

    fn flags(&self, port: u16) -> Vec<String> {
        vec![
            "--to=s3://lake/accounting".to_owned(),
            format!("--endpoint=http://127.0.0.1:{port}"),
            format!("--user={}", CREDENTIALS[0]),
            format!(
                "--password-file={}",
                self.directory.path().join("key").display()
            ),
        ]
    }

    /// A signed request for an object, which fails if its answer is an error.
    fn curl(&self, object: &str) -> Command {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["--user", &CREDENTIALS.join(":")])
            .arg(format!("http://127.0.0.1:{}/{object}", self.port));
        command
    }
}

pub(super) fn each_once() -> Result<()> {
    let scratch = TempDir::new()?;
    let hosts = [Host::new(scratch.path(), 1)?, Host::new(scratch.path(), 2)?];
    for host in &hosts {
        process::output(Command::new(ACCTD).arg("archive").arg(&host.directory))?;
        ensure!(
            archives(&host.directory)?.len() == 4,
            "two days, and lines of each"
        );
    }
    let directory = scratch.path().join("lake");
    for lake in [
        Lake::Directory(directory),
        Lake::S3(Box::new(SeaweedFs::start()?)),
    ] {
        for point in ["ship-send", "ship-compare"] {
            for nth in ["1", "2"] {
                let mut command = lake.ship(&hosts[0], &["--once"]);
                let killed = command
                    .env("ACCTD_KILL_AT", format!("{point}#{nth}"))
                    .output()?;
                ensure!(killed.status.code() != Some(1), "{killed:?}");
            }
        }
        for host in &hosts {
            lake.once(host)?;
            let log = lake.once(host)?;
            ensure!(log.contains(" 0 files with 0 rows are sent"), "{log}");
            ensure!(lake.is_verified(host)?);
            let copy = lake.copy(host, scratch.path())?;
            for name in archives(&host.directory)? {
                let [sent, kept] = [&copy, &host.directory].map(|it| fs::read(it.join(&name)));
                ensure!(sent? == kept?, "{name}");
            }
            ensure!(report(&copy)? == report(&host.directory)?);
        }
        nothing_is_replaced(&lake, &hosts)?;
    }
    Ok(())
}

/// A damaged archive, and another machine with the name of a host.
fn nothing_is_replaced(lake: &Lake, hosts: &[Host; 2]) -> Result<()> {
    let lines = hosts[0].directory.join("2026-01-01.jsonl");
    let whole = fs::read_to_string(&lines)?;
    fs::write(&lines, format!("{whole}\n"))?;
    let output = lake.ship(&hosts[0], &["--verify"]).output()?;
    let table = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.code() == Some(1) && table.contains("2026-01-01.jsonl, were changed"),
        "{table}"
    );
    let output = lake.ship(&hosts[0], &["--once"]).output()?;
    complains(&output, 1, "2026-01-01.jsonl, were changed")?;
    fs::write(&lines, whole)?;

    let output = lake
        .ship(&hosts[1], &["--once", "--host", &hosts[0].name])
        .output()?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let log = String::from_utf8(output.stderr)?;
    ensure!(
        log.matches("another file is there, which is not replaced")
            .count()
            == 2,
        "{log}"
    );
    ensure!(lake.is_verified(&hosts[0])?);
    let output = lake.ship(&hosts[0], &["--once", "--host=../r2"]).output()?;
    complains(&output, 1, "cannot be the name of a directory")
}

/// Connections that are cut, answers that are lost, a server that is killed, a wrong key, two senders at once.
pub(super) fn s3_fails() -> Result<()> {
    let scratch = TempDir::new()?;
    let mut server = SeaweedFs::start()?;
    let proxy = Proxy::start(server.port)?;
    let host = Host::new(scratch.path(), 3)?;
    process::output(Command::new(ACCTD).arg("archive").arg(&host.directory))?;
    let days: Vec<String> = archives(&host.directory)?;
    let staged = TempDir::new_in(scratch.path())?;
    let later: Vec<&String> = days.iter().filter(|it| it.contains("01-02")).collect();
    for name in &later {
        fs::rename(host.directory.join(name), staged.path().join(name))?;
    }

    let output = ship(&host, &server.flags(1), &["--once"]).output()?;
    complains(&output, 1, "cannot reach http://127.0.0.1:1")?;
    fs::write(scratch.path().join("wrong"), "wrong")?;
    let wrong = format!("--password-file={}", scratch.path().join("wrong").display());
    let output = ship(&host, &server.flags(server.port), &["--once", &wrong]).output()?;
    complains(
        &output,
        1,
        "see --user (the access key) and --password-file",
    )?;

    let shippers: Vec<Process> = (0..2)
        .map(|_| {
            let mut command = ship(&host, &server.flags(proxy.port), &["--reconcile=0"]);
            Process::spawn(command.stderr(Stdio::null()))
        })
        .collect::<Result<_>>()?;
    let verified = |server: &SeaweedFs| -> Result<bool> {
        let mut command = ship(&host, &server.flags(server.port), &["--verify"]);
        Ok(command.output()?.status.success())
    };
    wait_until("the first day is there", || verified(&server))?;
    // A day comes while the server is away.
    server.process = None;
    for name in later.iter().rev() {
        fs::rename(staged.path().join(name), host.directory.join(name))?;
    }
    ensure!(!verified(&server)?);
    server.restart()?;
    wait_until("the second day is there", || verified(&server))?;
    drop(shippers);
    let copy = Lake::S3(Box::new(server)).copy(&host, scratch.path())?;
    ensure!(report(&copy)? == report(&host.directory)?);
    Ok(())
}

pub(super) fn the_disk_is_full() -> Result<()> {
    let scratch = TempDir::new()?;
    let host = Host::new(scratch.path(), 1)?;
    process::output(Command::new(ACCTD).arg("archive").arg(&host.directory))?;
    let lake = scratch.path().join("lake");
    fs::create_dir(&lake)?;
    let to = vec![format!("--to=file://{}", lake.display())];
    // First without room, then with it.
    let script = "mount -t tmpfs -o size=64k none \"$0\"; ! \"$@\" || exit 9; \
        [ -z \"$(ls \"$0\"/r1/*.parquet)\" ] || exit 8; mount -o remount,size=10m \"$0\"; exec \"$@\"";
    let command = ship(&host, &to, &["--once"]);
    let mut isolated = Command::new("unshare");
    isolated
        .args(["--mount", "sh", "-c", script])
        .arg(&lake)
        .arg(command.get_program())
        .args(command.get_args());
    let output = isolated.output()?;
    let log = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{log}");
    ensure!(log.contains("No space left on device"), "{log}");
    let sent = log.lines().last().context("a line")?;
    ensure!(sent.contains(" 2 files with"), "{log}");
    Ok(())
}
