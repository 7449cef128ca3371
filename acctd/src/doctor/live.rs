//! `acctd doctor --live 10s`: measures how many packets passed the interfaces, matched the rules and were logged, and
//! which findings explain a difference.
//!
//! ```text
//!  interface ─► TC program ─► hooks ─► rule ─► NFLOG ─► acctd, or this process
//!               passed        own      its     logged
//!               (crosscheck)  table    counter (logged)
//!                             (hooks)  (rules)
//! ```
//!
//! acctd adds a table, `acctd_doctor_PID`, and removes it on every exit. The kernel detaches the TC programs when the
//! process ends. If doctor is killed, its next run or `acctd rules --remove` removes the table.

pub(crate) mod count;
pub(crate) mod hooks;
pub(crate) mod logged;
pub(crate) mod measured;
pub(crate) mod rules;

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

use acctd_common::Counters;
use anyhow::{Context as _, Result, bail};
use hooks::{CounterTable, Snapshot};
use logged::Readers;
use measured::{Measured, Passed};

use super::facts::Facts;
use crate::config::Config;
use crate::config::crosscheck::{AttachMode, CrossCheckConfig, End, Watched};
use crate::crosscheck::session::CrossCheck;
use crate::doctor::finding::Finding;
use crate::fault_points;
use crate::model::entries::Entry;
use crate::model::group::GroupConfig;
use crate::model::interval::{Interval, UnixNanos};
use crate::model::kernel_counts::{EpochCounts, KernelFamily};
use crate::model::prefix::{Family, PrefixKey, PrefixLength, Side};
use crate::process::signals::Shutdown;
use crate::rules::doctor_table;

/// More than enough: with prefixes of length 0 there is one per family and side.
const MAX_PREFIXES: u32 = 1_000;
/// So a measurement is in one interval, or in two if it runs across midnight.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Measures for `length`, or until a signal. `found` are the findings that may explain a difference.
pub(crate) fn measure(
    config: &Config,
    facts: &Facts,
    found: &[Finding],
    length: Duration,
) -> Result<Measured> {
    let watched = match &config.crosscheck {
        Some(crosscheck) => crosscheck.watched.clone(),
        None => default_routes(),
    };
    if watched.is_empty() {
        bail!("no interface has a default route: name those to measure with --crosscheck");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Before there is anything to remove.
    let _entered = runtime.enter();
    let mut signals = Shutdown::listen().context("cannot take over signals")?;

    let mut notes = Vec::new();
    let names: Vec<&str> = watched.iter().map(|it| it.interface.as_str()).collect();
    doctor_table::remove_left_over().context("cannot read the rules to measure")?;
    let table = CounterTable::load(&names)?;
    let added = table.add_counters(&config.groups)?;
    let mut crosscheck = match start_crosscheck(config, &watched) {
        Ok(crosscheck) => Some(crosscheck),
        Err(error) => {
            notes.push(format!(
                "no TC program counts what passes the interfaces: {error:#}"
            ));
            None
        }
    };
    let readers = Readers::open(config, facts);

    let begun = Instant::now();
    if let Some(crosscheck) = &mut crosscheck {
        crosscheck.begin()?;
    }
    let first = Snapshot::take(&table, &added)?;
    let readers = readers.begin();
    let reading = begun.elapsed();
    let begun = Instant::now();
    // A closed standard error does not affect the measurement.
    let _ignored = writeln!(
        io::stderr(),
        "measuring on {} for {length:?}; Ctrl-C ends it earlier",
        names.join(", ")
    );
    fault_points::panic_at("measuring");
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(length) => {}
            _ = signals.signal() => {}
        }
    });
    let took = begun.elapsed();
    let ending = Instant::now();
    if let Some(crosscheck) = &mut crosscheck {
        crosscheck.stop_at(UnixNanos::now())?;
    }
    let last = Snapshot::take(&table, &added)?;
    let logged = readers.end(&first, &last);
    let uncertain = reading.max(ending.elapsed());
    let passed = match crosscheck {
        Some(crosscheck) => Some(passed(crosscheck)?),
        None => None,
    };
    drop(table);
    Ok(Measured::new(measured::Parts {
        config,
        watched: &watched,
        took,
        uncertain,
        notes,
        passed,
        snapshots: [&first, &last],
        logged: &logged,
        found,
    }))
}

/// Both TC programs on each interface, with prefixes of length 0.
fn start_crosscheck(config: &Config, watched: &[Watched]) -> Result<CrossCheck> {
    let of_group = |group: &GroupConfig| PrefixLength::new(group.prefix_length.family(), 0);
    let prefix_lengths = config.groups.iter().map(of_group);
    let mut prefix_lengths: Vec<PrefixLength> = prefix_lengths.collect::<Result<_, _>>()?;
    prefix_lengths.sort_by_key(|it| it.family().version());
    prefix_lengths.dedup();
    let given = config.crosscheck.as_ref();
    let crosscheck = CrossCheckConfig {
        watched: watched.to_vec(),
        attach: given.map_or(AttachMode::Auto, |it| it.attach),
        max_prefixes: MAX_PREFIXES,
        object: None,
        pin: None,
        prefix_lengths,
        accounted: u8::MAX,
        wire: false,
        explain: false,
        debug: false,
    };
    let crosscheck = CrossCheck::start(&crosscheck, Interval::new(DAY)?)?;
    // The daemon waits for an absent interface; a measurement cannot.
    for one in crosscheck.interfaces() {
        if !one.is_attached || one.problem.is_some() {
            let problem = one
                .problem
                .unwrap_or_else(|| "it does not exist".to_owned());
            bail!("cannot count on {}: {problem}", one.interface);
        }
    }
    Ok(crosscheck)
}

fn passed(crosscheck: CrossCheck) -> Result<Vec<Passed>> {
    let closed = crosscheck.finish()?;
    let mut passed = Vec::new();
    for family in [Family::Ip4, Family::Ip6] {
        for side in [Side::Source, Side::Dest] {
            let mut all = Passed {
                family,
                side,
                packets: 0,
                bytes: 0,
                fragments: 0,
            };
            for epoch in closed.iter().filter(|epoch| epoch.period.is_some()) {
                all.add(&epoch.counts);
            }
            passed.push(all);
        }
    }
    Ok(passed)
}

impl Passed {
    fn add(&mut self, counts: &EpochCounts) {
        match self.family {
            Family::Ip4 => self.add_family(&counts.ip4),
            Family::Ip6 => {
                self.add_family(&counts.ip6_half);
                self.add_family(&counts.ip6);
            }
        }
    }

    fn add_family<K: PrefixKey>(&mut self, family: &KernelFamily<K>) {
        let side = family.side(self.side);
        let mut sum = Counters::default();
        for counters in side.totals.iter().map(Entry::counters) {
            sum.add(counters);
        }
        self.packets += sum.packets;
        self.bytes += sum.bytes;
        let fragments = side.allowances.iter().map(|(_, it)| it.fragments.packets);
        self.fragments += fragments.sum::<u64>();
    }
}

/// The interfaces of the default routes for IPv4 and IPv6.
fn default_routes() -> Vec<Watched> {
    let read = |name| {
        let path = Path::new("/proc/thread-self/net").join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    let (ip4, ip6) = (read("route"), read("ipv6_route"));
    let mut names: Vec<&str> = Vec::new();
    // Interface, destination, gateway, flags, …, mask at 7; proc_net(5), net/ipv4/fib_trie.c.
    for line in ip4.lines().skip(1) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000") {
            names.extend(columns.first());
        }
    }
    // Destination, its prefix length, …, interface; net/ipv6/route.c. Unreachable ones are on lo.
    for line in ip6.lines() {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if columns.get(1) == Some(&"00") {
            names.extend(columns.last().filter(|it| **it != "lo"));
        }
    }
    names.sort_unstable();
    names.dedup();
    let watched = names.into_iter().map(|name| Watched {
        interface: name.to_owned(),
        end: End::Far,
    });
    watched.collect()
}
