//! A cross-check at work: the programs, the interfaces that they are attached to, and their maps.

use std::time::Duration;
use std::{fmt, io};

use acctd_common::contract::{self, AddressKey, VlanKey};
use anyhow::{Context, Result, bail};
use aya::Ebpf;
use aya::maps::Map;
use aya::programs::{Program, ProgramInfo};
use log::{debug, info};
use rustix::time::ClockId;

use crate::config::crosscheck::{CrossCheckConfig, Watched};
use crate::crosscheck::attach::PROGRAMS;
use crate::crosscheck::claims::Claim;
use crate::crosscheck::delays::Delays;
use crate::crosscheck::device_map::DeviceMap;
use crate::crosscheck::epochs::{ClosedEpoch, Epochs};
use crate::crosscheck::interfaces::Interfaces;
use crate::crosscheck::pins::Pins;
use crate::crosscheck::stamps::ReceiveStamps;
use crate::crosscheck::tc_netlink::index_of;
use crate::crosscheck::{addresses, object, vlans};
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::interval::{Interval, PeriodIndex, UnixNanos};
use crate::model::prefix::PrefixLength;

/// How often to look for what the programs have logged.
const LOG_PAUSE: Duration = Duration::from_millis(50);

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
    pub fn tick(&mut self) -> Result<()> {
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
