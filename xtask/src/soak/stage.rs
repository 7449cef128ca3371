//! The router with acctd, the wire that traffic comes from, and acctd's small disk.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use testkit::{
    cgroup::CpuGroup,
    daemon::Daemon,
    interrupt::Interrupt,
    link::Link,
    netns::{Namespace, Privilege},
    nft::{self, Count},
    traffic::{Sizes, Traffic, TrafficArgs},
};

const RULES: &str = "
table inet soak {
    counter v4 {}
    counter v6 {}
    chain prerouting {
        type filter hook prerouting priority raw
        meta nfproto ipv4 counter name v4 log group 5 snaplen 20 queue-threshold 50
        meta nfproto ipv6 counter name v6 log group 7 snaplen 40 queue-threshold 50
        drop
    }
}";

/// Room for the files of a fault's time and some more.
const DISK: &str = "size=256m";
/// The length of one round of steady traffic, and of the other faults' traffic.
pub(super) const ROUND: Duration = Duration::from_secs(6);
/// By then the kernel has handed over what it held, and a checkpoint has it.
pub(super) const QUIET: Duration = Duration::from_millis(1_500);

pub(super) struct Stage {
    // Dropped in this order.
    pub(super) acctd: Daemon,
    /// acctd is in it, and has all the time there is but for one of the faults.
    pub(super) cpu: CpuGroup,
    program: PathBuf,
    pub(super) link: Link,
    work: TempDir,
}

impl Stage {
    pub(super) fn set(program: PathBuf, interrupt: &Interrupt) -> Result<Self> {
        let link = Link::new(Privilege::Root, "router0", "wire0")?;
        nft::load(&link.host, RULES)?;
        let work = TempDir::with_prefix("acctd-soak-")?;
        let directory = work.path().join("accounting");
        std::fs::create_dir(&directory)?;
        let shown = directory.to_str().context("a path of ASCII")?;
        link.host
            .run(&["mount", "-t", "tmpfs", "-o", DISK, "none", shown])?;
        let cpu = CpuGroup::make()?;
        let mut acctd = start(&link.host, &program, &work)?;
        acctd.wait_until_ready(interrupt)?;
        cpu.take_in(acctd.pid())?;
        Ok(Self {
            acctd,
            cpu,
            program,
            link,
            work,
        })
    }

    /// Starts acctd anew, once it has ended.
    pub(super) fn start_again(&mut self, interrupt: &Interrupt) -> Result<()> {
        self.acctd = start(&self.link.host, &self.program, &self.work)?;
        self.acctd.wait_until_ready(interrupt)?;
        self.cpu.take_in(self.acctd.pid())
    }

    /// Stops acctd when all that was sent has reached it.
    pub(super) fn finish(&mut self, interrupt: &Interrupt) -> Result<()> {
        interrupt.rest(QUIET)?;
        self.acctd.stop(interrupt)
    }

    /// The log directory, as it is seen from outside.
    pub(super) fn log_directory(&self) -> PathBuf {
        let inside = self.work.path().join("accounting");
        let root = PathBuf::from(format!("/proc/{}/root", self.link.host.pid()));
        root.join(inside.strip_prefix("/").unwrap_or(&inside))
    }

    /// Runs a command on the disk's mount point.
    pub(super) fn on_disk(&self, words: &[&str]) -> Result<()> {
        let inside = self.work.path().join("accounting");
        let shown = inside.to_str().context("a path of ASCII")?;
        self.link.host.run(&[words, &[shown]].concat()).map(drop)
    }

    pub(super) fn counters(&self) -> Result<BTreeMap<String, Count>> {
        nft::counters(&self.link.host)
    }

    /// Both families, all lengths, at rates that acctd keeps up with.
    pub(super) fn steady_traffic(&self, interrupt: &Interrupt) -> Result<()> {
        finish(self.start_steady_traffic()?, interrupt)
    }

    pub(super) fn start_steady_traffic(&self) -> Result<[Traffic; 2]> {
        let mixed = |traffic: TrafficArgs, rate: u32| TrafficArgs {
            sources: 5_000,
            rate,
            count: u64::from(rate) * ROUND.as_secs(),
            size: Sizes { min: 64, max: 1400 },
            ..traffic
        };
        let ip4 = mixed(self.link.traffic("10.0.0.0/8", "192.0.2.1/32")?, 20_000);
        let ip6 = mixed(
            self.link.traffic("2001:db8::/32", "2001:db8::1/128")?,
            10_000,
        );
        Ok([
            self.link.start_sending(&ip4, None)?,
            self.link.start_sending(&ip6, None)?,
        ])
    }

    pub(super) fn send(&self, traffic: &TrafficArgs, interrupt: &Interrupt) -> Result<()> {
        finish([self.link.start_sending(traffic, None)?], interrupt)
    }
}

/// Waits until they have sent everything.
pub(super) fn finish(
    generators: impl IntoIterator<Item = Traffic>,
    interrupt: &Interrupt,
) -> Result<()> {
    for generator in generators {
        generator.finish_within(20 * ROUND, interrupt)?;
    }
    Ok(())
}

fn start(router: &Namespace, program: &std::path::Path, work: &TempDir) -> Result<Daemon> {
    let directory = work.path().join("accounting");
    let flags = [
        "-interval=1s",
        "-checkpoint=500ms",
        "-ip4-src-group=5",
        "-ip6-src-group=7",
        "-max-prefixes=100000",
        "-crosscheck=router0",
        "-utc",
    ];
    let mut flags: Vec<String> = flags.map(str::to_owned).into();
    flags.push(format!("-log-directory={}", directory.display()));
    Daemon::start(router, program, flags)
}
