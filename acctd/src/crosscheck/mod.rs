//! The cross-check: a TC program counts the same prefixes in the kernel, and both numbers stand
//! beside each other in the same file. This is the one door to eBPF; without `--crosscheck` nothing
//! here runs.
//!
//! ```text
//!  packets ─► TC program ─► epoch map ─► epochs (drain) ─► counts ─► reconcile ─► verdicts in the rows
//!             interfaces, object         stamps, vlans               (with the ledgers of NFLOG)
//! ```

pub mod addresses;
pub mod attach;
#[expect(unsafe_code, reason = "bpf(2) has no safe interface")]
pub mod bpf_syscall;
pub mod claims;
pub mod clsact;
pub mod counts;
pub mod delays;
pub mod device_map;
pub mod epochs;
pub mod interfaces;
pub mod link_events;
pub mod object;
pub mod pins;
pub mod reconcile;
pub mod report;
pub mod stamps;
pub mod tc_netlink;
pub mod verdicts;
pub mod vlans;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use acctd_common::contract::{
    self, AddressKey, EGRESS_DEST, EGRESS_SOURCE, INGRESS_DEST, INGRESS_SOURCE, VlanKey,
};
use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{Program, ProgramInfo, TcAttachType};
use log::{debug, info};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::time::ClockId;

use crate::close::timeline::SETTLE_TIME;
use crate::model::interval::{Interval, PeriodIndex, UnixNanos};
use crate::model::prefix::{PrefixLength, Side};
use claims::Claim;
use delays::Delays;
use device_map::DeviceMap;
use epochs::Epochs;
use interfaces::Interfaces;
use pins::Pins;
use stamps::ReceiveStamps;

pub use epochs::ClosedEpoch;
pub use interfaces::InterfaceState;

/// How often to look for what the programs have logged.
const LOG_PAUSE: Duration = Duration::from_millis(50);

/// All programs of the contract.
const PROGRAMS: [&str; 4] = [INGRESS_SOURCE, INGRESS_DEST, EGRESS_SOURCE, EGRESS_DEST];

/// An interface to cross-check, and whose addresses there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The interface's name.
    pub interface: String,
    /// Which end of it is accounted.
    pub end: End,
}

/// Which addresses of the packets on an interface are accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Those beyond it: sources of what comes in, destinations of what goes out.
    Far,
    /// Those on this side: destinations of what comes in, sources of what goes out.
    Near,
}

impl Watched {
    /// The hooks and the programs for them.
    fn programs(&self) -> [(TcAttachType, &'static str); 2] {
        match self.end {
            End::Far => [
                (TcAttachType::Ingress, INGRESS_SOURCE),
                (TcAttachType::Egress, EGRESS_DEST),
            ],
            End::Near => [
                (TcAttachType::Ingress, INGRESS_DEST),
                (TcAttachType::Egress, EGRESS_SOURCE),
            ],
        }
    }

    /// The hook whose packets are counted for this side, as text: `eth0 egress`.
    #[must_use]
    pub fn hook_of(&self, side: Side) -> String {
        let hook = match (self.end, side) {
            (End::Far, Side::Source) | (End::Near, Side::Dest) => "ingress",
            (End::Far, Side::Dest) | (End::Near, Side::Source) => "egress",
        };
        format!("{} {hook}", self.interface)
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Far => "far",
            End::Near => "near",
        };
        write!(f, "{}:{end}", self.interface)
    }
}

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AttachMode {
    /// TCX where the kernel has it, else clsact.
    Auto,
    /// TCX links (Linux 6.6), in front of all others; they go with the process.
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// What the command line says of the cross-check.
#[derive(Clone, Debug)]
pub struct CrossCheckConfig {
    /// At least one; no interface twice.
    pub watched: Vec<Watched>,
    /// How to attach.
    pub attach: AttachMode,
    /// The most prefixes and sides that an epoch's map holds.
    pub max_prefixes: u32,
    /// A program of the user's own.
    pub object: Option<PathBuf>,
    /// Where to pin the maps.
    pub pin: Option<PathBuf>,
    /// Those of the families that have a group.
    pub prefix_lengths: Vec<PrefixLength>,
    /// The families and sides that have a group, as [`contract::accounted_bit`] numbers them.
    pub accounted: u8,
    /// Whether the program logs each packet.
    pub debug: bool,
}

impl CrossCheckConfig {
    /// Kernel memory that the maps take at the most, in bytes: the tables of all that are in place,
    /// and the prefixes of those that may be full. Measured within 5 %.
    #[must_use]
    pub fn memory(&self, interval: Interval) -> u64 {
        // An entry with its key and value takes a piece of the kernel's next size.
        const ENTRY: u64 = 192;
        const BUCKET: u64 = 16;
        let prefixes = u64::from(self.max_prefixes);
        let buckets = u64::from(epochs::n_entries(self.max_prefixes)).next_power_of_two();
        // The one being read, the open one, and those ahead.
        let n_maps = 2 + u64::from(epochs::n_ahead(interval));
        let n_full = 1 + SETTLE_TIME
            .as_nanos()
            .div_ceil(interval.length().as_nanos().max(1));
        let n_full = u64::try_from(n_full).unwrap_or(n_maps).min(n_maps);
        n_maps * buckets * BUCKET + n_full * prefixes * ENTRY
    }
}

/// What a program has done, where the kernel measures it (`kernel.bpf_stats_enabled`).
#[derive(Clone, Copy, Debug)]
pub struct ProgramRun {
    /// Its name.
    pub program: &'static str,
    /// How often it ran.
    pub n_runs: u64,
    /// For how long.
    pub time: Duration,
}

/// A cross-check at work. Dropping it takes the programs off.
pub struct CrossCheck {
    watched: Vec<Watched>,
    interfaces: Interfaces,
    // After the programs are off: whoever sees one of them there sees that it is claimed.
    _claims: Vec<Claim>,
    // Before the programs' maps go, so that pins never name maps of nobody.
    _pins: Option<Pins>,
    epochs: Epochs,
    vlans: Option<DeviceMap<VlanKey>>,
    addresses: Option<DeviceMap<AddressKey>>,
    delays: Delays,
    /// As of the last look.
    runs: Vec<ProgramRun>,
    ebpf: Ebpf,
    _stamps: ReceiveStamps,
}

impl fmt::Debug for CrossCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrossCheck")
            .field("interfaces", &self.interfaces)
            .field("epochs", &self.epochs)
            .finish_non_exhaustive()
    }
}

impl CrossCheck {
    /// Loads the programs and attaches them to the interfaces that are there; to others when they come. What
    /// they count until [`CrossCheck::begin`] belongs to no period.
    pub fn start(config: &CrossCheckConfig, interval: Interval) -> Result<Self> {
        // First, as that may be what is wrong.
        info!(
            "The cross-check takes up to {} MB of kernel memory for {} prefixes and sides an interval",
            config.memory(interval) / 1_000_000,
            config.max_prefixes
        );
        let stamps = ReceiveStamps::ask_for().context("cannot have received packets stamped")?;
        let mut needed: Vec<&str> = Vec::new();
        for (_, program) in config.watched.iter().flat_map(Watched::programs) {
            if !needed.contains(&program) {
                needed.push(program);
            }
        }
        let mut ebpf = object::load(config, &needed)?;
        let outer = take_map(&mut ebpf, contract::EPOCHS)?;
        let clock = take_map(&mut ebpf, contract::CLOCK)?;
        let mut vlans = ebpf.take_map(contract::VLANS).map(DeviceMap::new);
        let mut addresses = ebpf.take_map(contract::ADDRESSES).map(DeviceMap::new);
        let maps = [
            (contract::EPOCHS, Some(&outer)),
            (contract::CLOCK, Some(&clock)),
            (contract::VLANS, vlans.as_ref().map(|it| &it.map)),
            (contract::ADDRESSES, addresses.as_ref().map(|it| &it.map)),
        ];
        let pins = config
            .pin
            .as_deref()
            .map(|directory| Pins::pin(directory, &maps))
            .transpose()?;
        let is_half = config
            .prefix_lengths
            .iter()
            .all(|length| matches!(length, PrefixLength::Ip4(_)) || length.bits() <= 64);
        let mut epochs = Epochs::open(outer, clock, interval, config.max_prefixes, is_half)?;
        epochs.set_clock_offset(clock_offset())?;
        if config.debug {
            log_of_programs(&mut ebpf);
        }
        let claims = programs(&ebpf)
            .map(|(_, info)| Claim::of(info.id()))
            .collect();
        // So that no frame comes before it is known of which VLANs there are.
        refresh(&mut vlans, &mut addresses, &config.watched);
        let interfaces = Interfaces::start(config, &mut ebpf)?;
        let mut crosscheck = Self {
            watched: config.watched.clone(),
            interfaces,
            _claims: claims,
            _pins: pins,
            epochs,
            vlans,
            addresses,
            delays: Delays::default(),
            runs: runs(&ebpf),
            ebpf,
            _stamps: stamps,
        };
        crosscheck
            .delays
            .look(&config.watched, |one| index_of(&one.interface));
        crosscheck.epochs.prepare()?;
        Ok(crosscheck)
    }

    /// The first period begins now: the groups are open.
    pub fn begin(&mut self) -> Result<()> {
        self.epochs.begin()
    }

    /// What is to be done every second: the wall clock may have been set, interfaces and VLAN devices
    /// come and go.
    pub fn look_around(&mut self) -> Result<()> {
        self.epochs.set_clock_offset(clock_offset())?;
        self.look_at_devices(UnixNanos::now());
        self.runs = runs(&self.ebpf);
        Ok(())
    }

    /// Which interfaces are attached to, as of the last look, and which are waited for.
    #[must_use]
    pub fn interfaces(&self) -> Vec<InterfaceState> {
        self.interfaces.states()
    }

    /// What the programs that are loaded have done until the last look.
    #[must_use]
    pub fn runs(&self) -> &[ProgramRun] {
        &self.runs
    }

    /// Closes the periods before `first_open`, which has begun at `now`.
    pub fn close_before(
        &mut self,
        first_open: PeriodIndex,
        now: UnixNanos,
    ) -> Result<Vec<ClosedEpoch>> {
        // What has changed before these periods ended must be known before they are handed over.
        self.look_at_devices(now);
        let closed = self.epochs.close_before(first_open, now)?;
        Ok(self.with_delays(closed))
    }

    /// The clock was set back to `now`: closes all, and begins anew.
    pub fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>> {
        self.epochs.set_clock_offset(clock_offset())?;
        let closed = self.epochs.restart(now)?;
        Ok(self.with_delays(closed))
    }

    /// The last period ends at `now`; what comes later is counted apart.
    pub fn stop_at(&mut self, now: UnixNanos) -> Result<()> {
        // What has changed since the last look must be known before the period is handed over.
        if self.interfaces.look_a_last_time() {
            self.epochs.mark_inexact(now);
        }
        self.epochs.stop_at(now)
    }

    /// Takes the programs off and hands over what is left.
    pub fn finish(self) -> Result<Vec<ClosedEpoch>> {
        let Self {
            interfaces,
            epochs,
            mut delays,
            watched,
            ..
        } = self;
        drop(interfaces);
        let mut closed = epochs.close_all()?;
        mark_delayed(&mut closed, delays.take(&watched));
        Ok(closed)
    }

    fn with_delays(&mut self, mut closed: Vec<ClosedEpoch>) -> Vec<ClosedEpoch> {
        if !closed.is_empty() {
            mark_delayed(&mut closed, self.delays.take(&self.watched));
        }
        closed
    }

    /// An interface or a VLAN device that came, went or is away, or a program that is not in front of all
    /// others: then the two sides did not see the same in the periods that are open at `now`.
    fn look_at_devices(&mut self, now: UnixNanos) {
        self.delays
            .look(&self.watched, |one| index_of(&one.interface));
        let watched = &self.watched;
        let are_maps_changed = refresh(&mut self.vlans, &mut self.addresses, watched);
        if self.interfaces.look(&mut self.ebpf) || are_maps_changed {
            self.epochs.mark_inexact(now);
        }
    }
}

/// Tells the programs of the devices that there are now; returns whether they have changed.
fn refresh(
    vlans: &mut Option<DeviceMap<VlanKey>>,
    addresses: &mut Option<DeviceMap<AddressKey>>,
    watched: &[Watched],
) -> bool {
    let mut is_changed = false;
    if let Some(vlans) = vlans {
        let refreshed = vlans::read().map_err(Into::into);
        is_changed |= changed("VLAN devices", refreshed.and_then(|it| vlans.refresh(it)));
    }
    if let Some(addresses) = addresses {
        let indices = watched.iter();
        let indices = indices.filter_map(|watched| index_of(&watched.interface));
        let read: io::Result<Vec<_>> = indices.map(addresses::read).collect();
        let refreshed = read.map_err(Into::into);
        let refreshed = refreshed.and_then(|it| addresses.refresh(it.into_iter().flatten()));
        is_changed |= changed("further addresses", refreshed);
    }
    is_changed
}

/// Whether what the programs know of has changed, as far as they can be told.
fn changed(what: &str, refreshed: Result<bool>) -> bool {
    refreshed.unwrap_or_else(|error| {
        debug!("cannot tell the programs of the interfaces' {what}: {error:#}");
        false
    })
}

fn mark_delayed(closed: &mut [ClosedEpoch], sides: [bool; 2]) {
    for epoch in closed {
        epoch.is_delayed = sides;
    }
}

fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    match ebpf.take_map(name) {
        Some(map) => Ok(map),
        None => bail!("the object has no map {name}"),
    }
}

/// What to add to the clock of the programs (`CLOCK_MONOTONIC`) to get the wall clock.
fn clock_offset() -> i64 {
    /// Two clocks are read at once if that took no longer: the lead on egress makes up for it.
    const AT_ONCE: i64 = 100_000;
    const TRIES: usize = 10;
    let mut offset = 0;
    let mut before = uptime_nanos();
    for _ in 0..TRIES {
        let wall = UnixNanos::now().0;
        let after = uptime_nanos();
        offset = wall.saturating_sub(before);
        if after.saturating_sub(before) <= AT_ONCE {
            break;
        }
        // This thread was kept from running in between.
        before = after;
    }
    offset
}

fn uptime_nanos() -> i64 {
    let uptime = rustix::time::clock_gettime(ClockId::Monotonic);
    uptime
        .tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(uptime.tv_nsec)
}

fn index_of(interface: &str) -> Option<u32> {
    let any = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .ok()?;
    rustix::net::netdevice::name_to_index(&any, interface).ok()
}

/// Of the programs that are loaded.
fn runs(ebpf: &Ebpf) -> Vec<ProgramRun> {
    programs(ebpf)
        .map(|(program, info)| ProgramRun {
            program,
            n_runs: info.run_count(),
            time: info.run_time(),
        })
        .collect()
}

/// Those that are loaded. One that is not has no descriptor to ask.
fn programs(ebpf: &Ebpf) -> impl Iterator<Item = (&'static str, ProgramInfo)> {
    PROGRAMS.into_iter().filter_map(|name| {
        let Some(Program::SchedClassifier(classifier)) = ebpf.program(name) else {
            return None;
        };
        Some((name, classifier.info().ok()?))
    })
}

/// Passes on what the programs log. Ends with the runtime.
fn log_of_programs(ebpf: &mut Ebpf) {
    let mut logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        // A program of the user's own need not log.
        Err(error) => {
            debug!("the programs log nothing: {error}");
            return;
        }
    };
    tokio::spawn(async move {
        loop {
            logger.flush();
            tokio::time::sleep(LOG_PAUSE).await;
        }
    });
}
