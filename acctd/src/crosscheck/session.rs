//! A running cross-check: the programs, the interfaces that they are attached to, and their maps.

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
use crate::crosscheck::sampler::Sampler;
use crate::crosscheck::tc_netlink::index_of;
use crate::crosscheck::{addresses, object, vlans};
use crate::model::crosscheck_state::{InterfaceState, ProgramRun};
use crate::model::interval::{Interval, PeriodIndex, UnixNanos};
use crate::nflog::receive_stamps::ReceiveStamps;

/// How often to read the programs' log records.
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running cross-check. Dropping it detaches the programs.
pub(crate) struct CrossCheck {
    watched: Vec<Watched>,
    interfaces: Interfaces,
    // Dropped after the programs are detached, so that each attached program is claimed.
    _claims: Vec<Claim>,
    // Dropped before the maps, so that no pin outlives them.
    _pins: Option<Pins>,
    epochs: Epochs,
    vlans: Option<DeviceMap<VlanKey>>,
    addresses: Option<DeviceMap<AddressKey>>,
    delays: Delays,
    /// As of the last tick.
    runs: Vec<ProgramRun>,
    /// `None` if the object does not sample, or after [`CrossCheck::take_sampler`].
    sampler: Option<Sampler>,
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
    /// Loads the programs and attaches them to the interfaces that exist, and later to the others. What they
    /// count before [`CrossCheck::begin`] belongs to no period.
    pub(crate) fn start(config: &CrossCheckConfig, interval: Interval) -> Result<Self> {
        // First, because a lack of memory may be why the start fails.
        info!(
            "The cross-check uses up to {} MB of kernel memory for {} prefixes and sides per interval",
            config.memory(interval) / 1_000_000,
            config.max_prefixes
        );
        let stamps = ReceiveStamps::enable().context("cannot enable receive time stamps")?;
        let (mut ebpf, definition) = object::load(config)?;
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
        let mut epochs = Epochs::open(outer, clock, definition, interval, config)?;
        epochs.set_clock_offset(clock_offset())?;
        if config.debug {
            forward_program_logs(&mut ebpf);
        }
        let sampler = Sampler::take(&mut ebpf)?;
        let claims = programs(&ebpf)
            .map(|(_, info)| Claim::of(info.id()))
            .collect();
        // Before the programs see a frame, they must know the VLANs.
        refresh_maps(&mut vlans, &mut addresses, &config.watched);
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
            sampler,
            ebpf,
            _stamps: stamps,
        };
        crosscheck
            .delays
            .update(&config.watched, |one| index_of(&one.interface));
        crosscheck.epochs.prepare()?;
        Ok(crosscheck)
    }

    /// Begins the first period. The groups are open.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.epochs.begin()
    }

    /// What samples packets for `acctd explain`, once.
    pub(crate) fn take_sampler(&mut self) -> Option<Sampler> {
        self.sampler.take()
    }

    /// Called each second: the wall clock may have been set, and interfaces and VLAN devices may have
    /// changed.
    pub(crate) fn tick(&mut self) -> Result<()> {
        self.epochs.set_clock_offset(clock_offset())?;
        self.refresh_devices();
        self.runs = runs(&self.ebpf);
        Ok(())
    }

    /// As of the last tick.
    pub(crate) fn interfaces(&self) -> Vec<InterfaceState> {
        self.interfaces.states()
    }

    /// As of the last tick.
    pub(crate) fn runs(&self) -> &[ProgramRun] {
        &self.runs
    }

    /// Closes the periods before `first_open`, which has begun at `now`.
    pub(crate) fn close_before(
        &mut self,
        first_open: PeriodIndex,
        now: UnixNanos,
    ) -> Result<Vec<ClosedEpoch>> {
        // A change in these periods must be known before they are closed.
        self.refresh_devices();
        let closed = self.epochs.close_before(first_open, now)?;
        Ok(self.with_delays(closed))
    }

    /// The clock was set back to `now`: closes all periods and begins again.
    pub(crate) fn restart(&mut self, now: UnixNanos) -> Result<Vec<ClosedEpoch>> {
        self.epochs.set_clock_offset(clock_offset())?;
        let closed = self.epochs.restart(now)?;
        Ok(self.with_delays(closed))
    }

    /// Ends the last period at `now`. Later packets belong to no period.
    pub(crate) fn stop_at(&mut self, now: UnixNanos) -> Result<()> {
        // A change in this period must be known before it is closed.
        if self.interfaces.check_before_stop() {
            self.epochs.mark_inexact(now);
        }
        self.epochs.stop_at(now)
    }

    /// Detaches the programs and closes the remaining epochs.
    pub(crate) fn finish(self) -> Result<Vec<ClosedEpoch>> {
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

    /// Reads interfaces, VLAN devices and addresses again. If one of them changed or is missing, or a program
    /// does not run first, the two sides did not see the same packets in the periods that are open until then.
    fn refresh_devices(&mut self) {
        self.delays
            .update(&self.watched, |one| index_of(&one.interface));
        let watched = &self.watched;
        let are_maps_changed = refresh_maps(&mut self.vlans, &mut self.addresses, watched);
        if are_maps_changed {
            info!(
                "the VLAN or macvlan devices on the cross-check's interfaces have changed: the open interval is not comparable"
            );
        }
        if self.interfaces.check(&mut self.ebpf) || are_maps_changed {
            // Attaching takes time, in which another period may have begun.
            self.epochs.mark_inexact(UnixNanos::now());
        }
    }
}

/// Loads the programs and puts an epoch's map in place, as the start does, and removes all of it. Attaches nothing.
pub(crate) fn try_to_load(config: &CrossCheckConfig, interval: Interval) -> Result<()> {
    let (mut ebpf, definition) = object::load(config)?;
    let outer = take_map(&mut ebpf, contract::EPOCHS)?;
    let clock = take_map(&mut ebpf, contract::CLOCK)?;
    Epochs::open(outer, clock, definition, interval, config).map(drop)
}

/// Tells the programs which devices exist now; returns whether they changed.
fn refresh_maps(
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

/// Logs a failure, which counts as no change.
fn changed(what: &str, refreshed: Result<bool>) -> bool {
    refreshed.unwrap_or_else(|error| {
        debug!("cannot update the programs' map of {what}: {error:#}");
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

/// The difference between the wall clock and the programs' clock (`CLOCK_MONOTONIC`).
fn clock_offset() -> i64 {
    /// Two readings within this time are close enough: `EGRESS_LEAD_NANOS` allows for more.
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
        // The thread was interrupted between the readings.
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

fn runs(ebpf: &Ebpf) -> Vec<ProgramRun> {
    programs(ebpf)
        .map(|(program, info)| ProgramRun {
            program,
            n_runs: info.run_count(),
            time: info.run_time(),
        })
        .collect()
}

/// The loaded programs. One that is not loaded has no descriptor to read its information from.
fn programs(ebpf: &Ebpf) -> impl Iterator<Item = (&'static str, ProgramInfo)> {
    PROGRAMS.into_iter().filter_map(|name| {
        let Some(Program::SchedClassifier(classifier)) = ebpf.program(name) else {
            return None;
        };
        Some((name, classifier.info().ok()?))
    })
}

/// Writes the programs' log records to acctd's log until the runtime ends.
fn forward_program_logs(ebpf: &mut Ebpf) {
    let mut logger = match aya_log::EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        // A user's program may have no log.
        Err(error) => {
            debug!("the programs log nothing: {error}");
            return;
        }
    };
    tokio::spawn(async move {
        loop {
            logger.flush();
            tokio::time::sleep(LOG_POLL_INTERVAL).await;
        }
    });
}
