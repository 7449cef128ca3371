//! Those who ask acctd: how many there may be, who comes before them, and where nobody can ask.

use std::fs;
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use acctd::observe::http::MAX_CLIENTS;
use anyhow::{Context as _, Result, ensure};

use crate::errors::{complains, fails};
use crate::listen::{ONE_INTERVAL, get, listening, socket, status};
use crate::rig::{Acctd, Rig, within};
use crate::waiting::wait_until;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "clients_that_say_nothing_keep_nobody_from_an_answer",
        clients_that_say_nothing,
    ),
    (
        Needs::Namespace,
        "clients_are_answered_behind_the_readers_and_not_in_front_of_other_programs",
        the_nice_value,
    ),
    (
        Needs::Namespace,
        "where_nobody_can_listen_is_said_in_one_line",
        where_nobody_can_listen,
    ),
    (
        Needs::Namespace,
        "a_sockets_file_is_private_and_goes_with_acctd",
        a_sockets_file,
    ),
];

/// Those of these clients that acctd has parted with.
fn n_parted_with<S: Read>(clients: &mut [S]) -> usize {
    let answers = clients.iter_mut().map(|client| client.read(&mut [0]));
    let parted = answers
        .filter(|answer| !matches!(answer, Err(error) if error.kind() == ErrorKind::WouldBlock));
    parted.count()
}

/// Every place of either address is taken, after many more clients have waited for one. Who asks takes the place of one.
fn clients_that_say_nothing() -> Result<()> {
    const CLIENTS: usize = 3 * MAX_CLIENTS;
    const TCP: &str = "127.0.0.1:9745";
    let rig = Rig::new()?;
    let listen = format!("-listen={TCP}");
    let acctd = listening(&rig, &[ONE_INTERVAL, &[&listen]].concat())?;
    let mut on_tcp = within(&rig.router, || {
        let clients = (0..CLIENTS).map(|_| TcpStream::connect(TCP));
        Ok(clients.collect::<io::Result<Vec<_>>>()?)
    })?;
    let on_unix = (0..CLIENTS).map(|_| {
        let mut client = UnixStream::connect(socket(&rig))?;
        client.write_all(b"GET /metrics HT")?;
        client.set_nonblocking(true)?;
        Ok(client)
    });
    let mut on_unix = on_unix.collect::<io::Result<Vec<_>>>()?;
    for client in &on_tcp {
        client.set_nonblocking(true)?;
    }
    let surplus = CLIENTS - MAX_CLIENTS;
    wait_until("all places are taken", || {
        let parted_with = [n_parted_with(&mut on_tcp), n_parted_with(&mut on_unix)];
        Ok(parted_with == [surplus; 2])
    })?;
    ensure!(get(&rig, "/healthz")?.0 == 200);
    ensure!(status(&rig, &["--listen", TCP])?.status.success());
    // Had they waited for silence to be punished, it would have taken all of them.
    for parted_with in [n_parted_with(&mut on_tcp), n_parted_with(&mut on_unix)] {
        ensure!(parted_with == surplus + 1, "{parted_with}");
    }
    acctd.finish()?;
    Ok(())
}

/// The nice value of each thread by its name.
fn nice_values(acctd: &Acctd) -> Result<Vec<(String, i32)>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", acctd.pid()))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (name, fields) = stat.rsplit_once(") ").context("a name")?;
        let (_, name) = name.split_once('(').context("a name")?;
        // The 19th field of proc_pid_stat(5); these begin with the third.
        let nice = fields.split(' ').nth(16).context("a nice value")?;
        threads.push((name.to_owned(), nice.parse()?));
    }
    Ok(threads)
}

fn the_nice_value() -> Result<()> {
    let rig = Rig::new()?;
    for (of_readers, of_listener) in [(-19, 0), (-7, 0), (-2, 3), (7, 12), (19, 19)] {
        let priority = format!("-priority={of_readers}");
        let acctd = listening(&rig, &[ONE_INTERVAL, &[&priority]].concat())?;
        let listener = || -> Result<Option<i32>> {
            let threads = nice_values(&acctd)?;
            let listener = threads.iter().find(|(name, _)| name == "listen");
            Ok(listener.map(|(_, nice)| *nice))
        };
        // It has its value when it answers.
        ensure!(get(&rig, "/healthz")?.0 == 200);
        ensure!(
            listener()? == Some(of_listener),
            "{priority}: {:?}",
            listener()?
        );
        for (name, nice) in nice_values(&acctd)? {
            let expected = match name.as_str() {
                // It comes and goes, and may not have set its own yet.
                "disk" => continue,
                "listen" => of_listener,
                // Behind the readers, but in front of other programs where they are.
                "rules" => of_readers.max((of_readers + 5).min(0)),
                _ => of_readers,
            };
            ensure!(nice == expected, "{priority}: {name} has {nice}");
        }
        acctd.finish()?;
    }
    Ok(())
}

fn where_nobody_can_listen() -> Result<()> {
    let rig = Rig::new()?;
    let fails_with = |listen: &str, code, part: &str| {
        let listen = format!("-listen={listen}");
        fails(&rig, &[ONE_INTERVAL, &[&listen]].concat(), code, part)
    };
    fails_with("nowhere", 2, "is neither ADDRESS:PORT")?;
    fails_with(
        "192.0.2.77:9745",
        1,
        "this machine does not have the address",
    )?;
    fails_with(
        "unix:/nowhere/acctd.sock",
        1,
        "its directory does not exist",
    )?;
    let plain = rig.scratch().join("plain");
    fs::write(&plain, "")?;
    let plain = format!("unix:{}", plain.display());
    fails_with(&plain, 1, "there is a file that is no socket")?;
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    let acctd = listening(&rig, &[ONE_INTERVAL, &["-listen=127.0.0.1:9745"]].concat())?;
    let unix = format!("unix:{}", socket(&rig).display());
    for taken in ["127.0.0.1:9745", &unix] {
        let listen = format!("-listen={taken}");
        let elsewhere = rig.scratch().join("elsewhere");
        let mut command = rig.router.command(rig.acctd_path());
        command.args(["-ip4-src-group=6", &listen, "-log-directory"]);
        complains(
            &command.arg(elsewhere).output()?,
            1,
            "another program listens there",
        )?;
    }
    acctd.finish()?;
    Ok(())
}

fn a_sockets_file() -> Result<()> {
    let rig = Rig::new()?;
    // As one that was killed leaves it. A process that another test starts at this moment may still have a copy.
    let killed = UnixListener::bind(socket(&rig))?;
    rustix::net::shutdown(&killed, rustix::net::Shutdown::Both)?;
    drop(killed);
    let acctd = listening(&rig, ONE_INTERVAL)?;
    let mode = fs::metadata(socket(&rig))?.permissions().mode();
    ensure!(mode & 0o777 == 0o660, "{mode:o}");
    ensure!(get(&rig, "/healthz")?.0 == 200);
    acctd.finish()?;
    ensure!(!socket(&rig).exists());
    Ok(())
}
