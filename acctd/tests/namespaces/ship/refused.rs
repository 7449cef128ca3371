//! What keeps files from being sent is said in one line, and nothing is lost by it.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use testkit::process::{self, Process};

use super::host::{Host, assert_exact, nth_file, sums_of};
use super::proxy;
use super::server::{self, Server};
use crate::errors::complains;
use crate::waiting::wait_until;

pub(super) fn what_is_wrong() -> Result<()> {
    let scratch = TempDir::new()?;
    let mut server = Server::start()?;
    let host = Host::new(scratch.path(), 1)?;
    let port = server.port;
    let ship_complains = |more: &[&str], code: i32, part: &str| -> Result<()> {
        let output = host.ship(port, &[&["--once"], more].concat()).output()?;
        complains(&output, code, part).with_context(|| format!("{more:?}, {part}"))
    };
    ship_complains(
        &[],
        1,
        "acctd ship --schema prints the statements that make the tables",
    )?;
    let password = scratch.path().join("password");
    fs::write(&password, "wrong\n")?;
    let password = format!("--password-file={}", password.display());
    ship_complains(&[&password], 1, "see --user and --password-file")?;
    ship_complains(&["--password-file=/nonexistent"], 1, "/nonexistent")?;
    ship_complains(
        &["--to=https://127.0.0.1:1", "--ca-file=/etc/passwd"],
        1,
        "it has no certificate (PEM)",
    )?;
    ship_complains(
        &["--to=http://127.0.0.1:1"],
        1,
        "cannot reach http://127.0.0.1:1",
    )?;
    ship_complains(&["--to=http://u:p@127.0.0.1:1"], 2, "--password-file")?;
    server.load_schema(&[])?;
    server.query("DROP TABLE acctd.schema_version")?;
    server.query("CREATE VIEW acctd.schema_version AS SELECT toUInt32(2) AS version")?;
    ship_complains(&[], 1, "install a newer acctd on this host")?;
    server.load_schema(&[])?;

    // A damaged file is not sent, and the others are.
    let damaged = nth_file(&host.directory, 5)?;
    let whole = fs::read_to_string(&damaged)?;
    let last = whole.trim_end().rfind('\n').context("a row")?;
    fs::write(&damaged, &whole[..=last])?;
    ship_complains(&[], 1, "one of both was changed")?;
    ensure!(
        server
            .query("SELECT count() FROM acctd.files FINAL")?
            .trim()
            == "288"
    );
    fs::write(&damaged, &whole)?;
    host.once(server.port)?;
    assert_exact(&server, std::slice::from_ref(&host))?;

    // A file that is changed after it was sent, with its line.
    fs::write(&damaged, whole.replacen(",10.0.1.", ",10.0.9.", 1))?;
    let output = host.ship(server.port, &["--verify"]).output()?;
    let table = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.code() == Some(1) && table.contains("it is not the file that was sent"),
        "{table}"
    );
    fs::write(&damaged, &whole)?;

    // Another machine with the name of this host.
    let mut other = Host::new(scratch.path(), 2)?;
    other.name.clone_from(&host.name);
    fs::write(scratch.path().join("machine-id"), "another\n")?;
    let of_other = other.ship(server.port, &["--once"]);
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "sh",
            "-ec",
            "mount --bind \"$0\" /etc/machine-id; exec \"$@\"",
        ])
        .arg(scratch.path().join("machine-id"))
        .arg(of_other.get_program())
        .args(of_other.get_args());
    complains(
        &command.output()?,
        1,
        "another machine has sent files as r1",
    )
    .context("another machine")?;
    ensure!(sums_of(&server, "traffic")? == host.sums());

    // A connection that breaks is not taken for a closed output.
    let closing = format!("--to=http://127.0.0.1:{}", proxy::close_always()?);
    for _ in 0..5 {
        ship_complains(&[&closing], 1, "cannot reach")?;
    }
    // A server that answers 200, and says in its answer that it failed.
    let fake = proxy::answer_always("Code: 999. DB::Exception: of a test")?;
    let output = host.ship(fake, &["--once"]).output()?;
    complains(&output, 1, "answered: Code: 999. DB::Exception: of a test").context("fake")?;
    server.kill();
    ship_complains(&[], 1, "Connection refused")
}

pub(super) fn the_servers_disk_is_full() -> Result<()> {
    let scratch = TempDir::new()?;
    let server = Server::start_on("size=700k")?;
    server.load_schema(&[])?;
    let hosts = [Host::new(scratch.path(), 1)?];
    let output = hosts[0].ship(server.port, &["--once"]).output()?;
    complains(&output, 1, "No space left on device")?;
    let shipper = Process::spawn(hosts[0].ship(server.port, &[]).stderr(Stdio::null()))?;
    server.resize("size=1g")?;
    wait_until("all is there", || Ok(assert_exact(&server, &hosts).is_ok()))?;
    drop(shipper);
    Ok(())
}

pub(super) fn certificates() -> Result<()> {
    let scratch = TempDir::new()?;
    let place = |name: &str| scratch.path().join(name).display().to_string();
    fs::write(place("names"), "subjectAltName=IP:127.0.0.1\n")?;
    let make = |name: &str, days: &str| -> Result<()> {
        let script = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.csr -subj /CN=db 2> /dev/null
            openssl x509 -req -in $1.csr -signkey $1.key -days $2 -extfile names -out $1.pem 2> /dev/null";
        let mut command = Command::new("sh");
        command.args(["-ec", script, "sh", name, days]);
        process::run(command.current_dir(scratch.path()))
    };
    make("good", "1")?;
    make("other", "1")?;
    make("expired", "-1")?;
    let host = Host::new(scratch.path(), 1)?;
    for (served, trusted, expected) in [
        (
            "expired",
            "expired",
            Some("invalid peer certificate: Expired"),
        ),
        ("good", "other", Some("cannot reach https://127.0.0.1")),
        ("good", "good", None),
    ] {
        let port = server::free_port()?;
        let tls = format!(
            "<https_port>{port}</https_port><openSSL><server><privateKeyFile>{}</privateKeyFile>
             <certificateFile>{}</certificateFile><verificationMode>none</verificationMode>
             <loadDefaultCAFile>false</loadDefaultCAFile></server></openSSL>",
            place(&format!("{served}.key")),
            place(&format!("{served}.pem"))
        );
        let server = Server::start_with(server::free_port()?, &tls, None)?;
        server.load_schema(&[])?;
        let to = format!("--to=https://127.0.0.1:{port}");
        let authority = format!("--ca-file={}", place(&format!("{trusted}.pem")));
        let output = host
            .ship(server.port, &["--once", &to, &authority])
            .output()?;
        if let Some(expected) = expected {
            complains(&output, 1, expected)?;
        } else {
            ensure!(output.status.success(), "{output:?}");
            assert_exact(&server, std::slice::from_ref(&host))?;
        }
        // Those of the system do not have it either.
        let output = host.ship(server.port, &["--once", &to]).output()?;
        complains(&output, 1, "cannot reach https://127.0.0.1")?;
    }
    Ok(())
}
