//! Where it is measured: a router with the rules and the receiver, and the wire that traffic comes
//! from, each on a core of its own.
//!
//! The kernel's part of a packet, netfilter and the batch, runs on the sender's core, as it runs on
//! the core of a network card's queue on a real router.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use xtask::{
    netns::{Namespace, Privilege},
    nft,
    process::Process,
    traffic::{Sent, TrafficArgs},
    veth::Veth,
};

use super::setup::Setup;
use crate::{
    interrupt::Interrupt,
    programs::{bound_command, this_program},
};

/// The group that is logged to.
pub(super) const GROUP: u16 = 5;

/// The cores of the generator and of the receiver.
pub(super) const SENDING_CORE: usize = 0;
pub(super) const RECEIVING_CORE: usize = 1;

/// How long a receiver may take to bind its group.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// It is configured soon after it is bound.
const CONFIGURED: Duration = Duration::from_millis(300);
/// By then the kernel has flushed its batch, and a receiver that keeps up has read it.
pub(super) const FLUSHED: Duration = Duration::from_millis(1_300);

/// The longest time that a generator may take.
const SENDING_LIMIT: Duration = Duration::from_mins(5);

pub(super) struct Stage {
    pub(super) router: Namespace,
    pub(super) wire: Namespace,
    pub(super) veth: Veth,
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        let router = Namespace::new(Privilege::Root)?;
        let wire = router.peer()?;
        let veth = Veth::new(&router, "router0", &wire, "wire0")?;
        Ok(Self { router, wire, veth })
    }

    /// Replaces the rules: packets of the setup are counted, then go to `statement`.
    pub(super) fn rules(&self, setup: &Setup, objects: &str, statement: &str) -> Result<()> {
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

    pub(super) fn load(&self, ruleset: &str) -> Result<()> {
        nft::load(
            &self.router,
            &format!("add table inet bench\ndelete table inet bench\n{ruleset}"),
        )
    }

    /// Packets that have passed the rule.
    pub(super) fn seen(&self) -> Result<u64> {
        let counters = nft::counters(&self.router)?;
        let seen = counters.get("seen").context("nft has lost the counter")?;
        Ok(seen.packets)
    }

    /// A command in the router, on the receiver's core.
    pub(super) fn receiver(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = bound_command(&self.router, "taskset");
        command
            .args(["-c", &RECEIVING_CORE.to_string()])
            .arg(program);
        command
    }

    /// Waits until each of the groups is bound.
    pub(super) fn wait_until_bound(
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
                .router
                .run(&["cat", "/proc/net/netfilter/nfnetlink_log"])?;
            let mut bound = table
                .lines()
                .filter_map(|line| line.split_whitespace().next());
            let bound: Vec<&str> = bound.by_ref().collect();
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

    /// Starts the generator on a core.
    pub(super) fn start_sending(&self, traffic: &TrafficArgs, core: usize) -> Result<Sending> {
        let mut command = bound_command(&self.wire, "taskset");
        command
            .args(["-c", &core.to_string()])
            .arg(this_program()?)
            .arg("traffic")
            .args(traffic.to_args())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(Sending(Process::spawn(&mut command)?))
    }

    /// Sends, on the generator's core, to the end.
    pub(super) fn send(&self, traffic: &TrafficArgs, interrupt: &Interrupt) -> Result<Sent> {
        self.start_sending(traffic, SENDING_CORE)?.finish(interrupt)
    }
}

/// A generator at work.
pub(super) struct Sending(Process);

impl Sending {
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<Sent> {
        interrupt.wait(&mut self.0, SENDING_LIMIT)?;
        let json = self.0.output()?;
        serde_json::from_str(&json).context("what the generator printed")
    }
}

/// What a process has said, for an error.
pub(super) fn last_words(directory: &Path) -> String {
    let text = std::fs::read_to_string(directory.join("stderr")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
