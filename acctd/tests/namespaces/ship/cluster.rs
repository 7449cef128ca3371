//! A cluster: two shards of two servers each, and Debian's `ZooKeeper`.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use testkit::netns::find_program;
use testkit::process::Process;

use super::host::{Host, assert_exact, reveal};
use super::server::{Server, clickhouse, free_port};
use crate::waiting::wait_until;

/// Of Debian's package libzookeeper-java, with what it needs.
const CLASS_PATH: &str = "/usr/share/java/zookeeper.jar:/usr/share/java/*";
const NAME: &str = "c1";

/// Why it cannot be had, if so.
pub(crate) fn zookeeper() -> Result<(), String> {
    clickhouse()?;
    if find_program("java").is_none() {
        return Err("java is not installed".to_owned());
    }
    let is_there = CLASS_PATH
        .split(':')
        .next()
        .is_some_and(|jar| Path::new(jar).exists());
    let missing = || "libzookeeper-java is not installed".to_owned();
    is_there.then_some(()).ok_or_else(missing)
}

struct Cluster {
    /// The first two are a shard, and the others.
    servers: Vec<Server>,
    _zookeeper: Process,
    _directory: TempDir,
}

impl Cluster {
    /// With the tables of `acctd ship`.
    fn start() -> Result<Self> {
        let directory = TempDir::new()?;
        let shown = directory.path().display();
        let port = free_port()?;
        let settings = directory.path().join("zoo.cfg");
        fs::write(
            &settings,
            format!(
                "dataDir={shown}/data\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\ntickTime=500\n"
            ),
        )?;
        let mut command = Command::new("java");
        command
            .args([
                "-Xmx128m",
                "-cp",
                CLASS_PATH,
                "org.apache.zookeeper.server.ZooKeeperServerMain",
            ])
            .arg(&settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let zookeeper = Process::spawn(&mut command)?;
        wait_until("ZooKeeper listens", || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        let ports: Vec<u16> = (0..4).map(|_| free_port()).collect::<Result<_>>()?;
        let mut shards = String::new();
        for replicas in ports.chunks(2) {
            shards.push_str("<shard><internal_replication>true</internal_replication>");
            for port in replicas {
                write!(
                    shards,
                    "<replica><host>127.0.0.1</host><port>{port}</port></replica>"
                )?;
            }
            shards.push_str("</shard>");
        }
        let mut servers = Vec::new();
        for (at, tcp) in ports.iter().enumerate() {
            let more = format!(
                "<interserver_http_port>{}</interserver_http_port><interserver_http_host>127.0.0.1</interserver_http_host>
                 <zookeeper><node><host>127.0.0.1</host><port>{port}</port></node></zookeeper>
                 <macros><shard>{}</shard><replica>{at}</replica></macros>
                 <remote_servers><{NAME}>{shards}</{NAME}></remote_servers>
                 <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>",
                free_port()?,
                at / 2
            );
            servers.push(Server::start_with(*tcp, &more, None)?);
        }
        // Of this version, a server ends now and then that gets a statement for the cluster while it connects to ZooKeeper.
        wait_until("the cluster has its tables", || {
            let loaded = servers[0].load_schema(&["--cluster", NAME]);
            if servers[0].query("SELECT 1").is_ok() {
                return loaded.map(|()| true);
            }
            servers[0].kill();
            servers[0].restart()?;
            Ok(false)
        })?;
        Ok(Self {
            servers,
            _zookeeper: zookeeper,
            _directory: directory,
        })
    }
}

/// Two shards of two replicas. All hosts send to one server of the first shard; a replica of each shard dies meanwhile.
pub(super) fn to_a_cluster() -> Result<()> {
    let scratch = TempDir::new()?;
    let staged = TempDir::new()?;
    let mut cluster = Cluster::start()?;
    let hosts: Vec<Host> = (0..6)
        .map(|number| Host::staged(staged.path(), scratch.path(), number))
        .collect::<Result<_>>()?;
    let port = cluster.servers[0].port;
    thread::scope(|scope| {
        let revealed: Vec<_> = hosts
            .iter()
            .map(|host| {
                let from = staged.path().join(&host.name);
                scope.spawn(move || reveal(&from, &host.directory))
            })
            .collect();
        let shippers: Vec<Process> = hosts
            .iter()
            .map(|host| Process::spawn(host.ship(port, &[]).stderr(Stdio::null())))
            .collect::<Result<_>>()?;
        for replica in [1, 2] {
            thread::sleep(Duration::from_secs(3));
            cluster.servers[replica].kill();
            thread::sleep(Duration::from_secs(3));
            cluster.servers[replica].lose_data()?;
            cluster.servers[replica].restart()?;
        }
        for revealed in revealed {
            revealed
                .join()
                .map_err(|_panicked| anyhow::anyhow!("panicked"))??;
        }
        drop(shippers);
        anyhow::Ok(())
    })?;
    // What a server took and no other had yet is gone with it: all that is kept is compared, and sent again.
    let shippers: Vec<Process> = hosts
        .iter()
        .map(|host| Process::spawn(host.ship(port, &["--reconcile=2s"]).stderr(Stdio::null())))
        .collect::<Result<_>>()?;
    for host in &hosts {
        wait_until("it has all files", || {
            Ok(host.ship(port, &["--verify"]).output()?.status.success())
        })?;
    }
    wait_until("the sums are right", || {
        Ok(assert_exact(&cluster.servers[0], &hosts).is_ok())
    })?;
    drop(shippers);
    // Both replicas of a shard have the same, and both shards have some.
    let mut n_rows = 0;
    for shard in [0, 2] {
        let count = |server: &Server| -> Result<u64> {
            let count = server.query("SELECT count() FROM acctd.traffic_local FINAL")?;
            Ok(count.trim().parse()?)
        };
        let [first, second] = [shard, shard + 1].map(|at| &cluster.servers[at]);
        wait_until("replicas are the same", || {
            Ok(count(first)? == count(second)?)
        })?;
        ensure!(count(first)? > 0, "a shard has nothing");
        n_rows += count(first)?;
    }
    ensure!(n_rows == hosts.iter().map(Host::n_rows).sum::<usize>() as u64);
    Ok(())
}
