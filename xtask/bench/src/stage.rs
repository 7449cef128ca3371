//! Where it is measured: a router with the rules and the receiver, and the wire that traffic comes
//! from, each on a core of its own.
//!
//! The kernel's part of a packet, netfilter and the batch, runs on the sender's core, as it runs on
//! the core of a network card's queue on a real router.

use std::{
    ffi::OsStr,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use testkit::{
    interrupt::Interrupt,
    link::Link,
    netns::Privilege,
    nft,
    process::Process,
    programs::bound_command,
    traffic::{Sent, Traffic, TrafficArgs},
};

use crate::setup::Setup;

/// The group that is logged to.
pub(crate) const GROUP: u16 = 5;

/// The cores of the generator and of the receiver.
const SENDING_CORE: usize = 0;
const RECEIVING_CORE: usize = 1;

/// How long a receiver may take to bind its group.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// It is configured soon after it is bound.
const CONFIGURED: Duration = Duration::from_millis(300);
/// By then the kernel has flushed its batch, and a receiver that keeps up has read it.
pub(crate) const FLUSHED: Duration = Duration::from_millis(1_300);

/// The longest time that a generator may take.
const SENDING_LIMIT: Duration = Duration::from_mins(5);

pub(crate) struct Stage {
    pub(crate) link: Link,
    /// A generator is on each of these cores.
    sending_cores: Vec<usize>,
    /// The receiver may be on each of these.
    receiving_cores: String,
}

impl Stage {
    pub(crate) fn set() -> Result<Self> {
        Ok(Self {
            link: Link::new(Privilege::Root, "router0", "wire0")?,
            sending_cores: vec![SENDING_CORE],
            receiving_cores: RECEIVING_CORE.to_string(),
        })
    }

    /// As `set`, with a generator on each core and the receiver wherever there is time for it.
    pub(crate) fn with_all_cores_sending(n_cores: usize) -> Result<Self> {
        Ok(Self {
            sending_cores: (0..n_cores).collect(),
            receiving_cores: format!("0-{}", n_cores - 1),
            ..Self::set()?
        })
    }

    /// Replaces the rules: packets of the setup are counted, then go to `statement`.
    pub(crate) fn rules(&self, setup: &Setup, objects: &str, statement: &str) -> Result<()> {
        self.load(&format!(
            "table inet bench {{
                counter seen {{}}
                {objects}
                chain prerouting {{
                    type filter hook prerouting priority raw
                    meta nfproto {} counter name seen {statement}
                    drop
                }}
            }}",
            setup.family.nft()
        ))
    }

    pub(crate) fn load(&self, ruleset: &str) -> Result<()> {
        nft::load(
            &self.link.host,
            &format!("add table inet bench\ndelete table inet bench\n{ruleset}"),
        )
    }

    /// Packets that have passed the rule.
    pub(crate) fn seen(&self) -> Result<u64> {
        let counters = nft::counters(&self.link.host)?;
        let seen = counters.get("seen").context("nft has lost the counter")?;
        Ok(seen.packets)
    }

    /// A command in the router, where the receiver may be.
    pub(crate) fn receiver(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = bound_command(&self.link.host, "taskset");
        command.args(["-c", &self.receiving_cores]).arg(program);
        command
    }

    /// Waits until each of the groups is bound.
    pub(crate) fn wait_until_bound(
        &self,
        groups: &[u16],
        receiver: &mut Process,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let end = Instant::now() + READY_LIMIT;
        loop {
            interrupt.check()?;
            if let Some(status) = receiver.try_wait()? {
                bail!("it ended before it had bound its group, {status}");
            }
            let table = self
                .link
                .host
                .run(&["cat", "/proc/net/netfilter/nfnetlink_log"])?;
            let bound: Vec<&str> = table
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .collect();
            if groups
                .iter()
                .all(|group| bound.contains(&group.to_string().as_str()))
            {
                thread::sleep(CONFIGURED);
                return Ok(());
            }
            if Instant::now() > end {
                bail!("it has not bound its group after {READY_LIMIT:?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts a generator on each of the generators' cores; all send the same.
    pub(crate) fn start_sending(&self, traffic: &TrafficArgs) -> Result<Sending> {
        let cores = self.sending_cores.iter();
        let generators = cores.map(|&core| self.link.start_sending(traffic, Some(core)));
        Ok(Sending(generators.collect::<Result<_>>()?))
    }

    /// Sends to the end.
    pub(crate) fn send(&self, traffic: &TrafficArgs, interrupt: &Interrupt) -> Result<Sent> {
        self.start_sending(traffic)?.finish(interrupt)
    }
}

/// Generators at work.
pub(crate) struct Sending(Vec<Traffic>);

impl Sending {
    /// What they have sent together, in the time that the slowest took.
    pub(crate) fn finish(self, interrupt: &Interrupt) -> Result<Sent> {
        let mut sum = Sent::default();
        for generator in self.0 {
            let sent = generator.finish_within(SENDING_LIMIT, interrupt)?;
            sum.packets += sent.packets;
            sum.bytes += sent.bytes;
            sum.straddled += sent.straddled;
            sum.seconds = sum.seconds.max(sent.seconds);
        }
        Ok(sum)
    }

    /// Ends them before they have sent everything.
    pub(crate) fn stop(self) -> Result<()> {
        for mut generator in self.0 {
            if let Some(status) = generator.process().try_wait()? {
                bail!("a generator has ended by itself, {status}");
            }
        }
        Ok(())
    }
}

/// What a process has said, for an error.
pub(crate) fn last_words(directory: &Path) -> String {
    let text = std::fs::read_to_string(directory.join("stderr")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
