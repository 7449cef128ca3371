//! acctd against a real kernel: namespaces, veth, nft rules, NFLOG. The truth is the nft counter
//! in front of the log statement, and numbers are compared for equality.
//!
//! As root the tests use plain network namespaces, for anyone else user namespaces; what cannot
//! run is reported as ignored, by name, with the reason. The program is its own traffic generator
//! (`namespaces traffic …`), so that nothing needs to be built beside it.

#![expect(clippy::print_stderr, reason = "the reason why tests are skipped")]

mod counting;
mod crosscheck;
mod databases;
mod doctor;
mod doctor_live;
mod doctor_machine;
mod doctor_rules;
mod errors;
mod faults;
mod firewalls;
mod go_manual;
mod hooks;
mod kernel;
mod listen;
mod listen_clients;
mod live;
mod logging;
mod overload;
mod prometheus;
mod report;
mod rig;
mod rules;
mod rules_of_readme;
mod rules_printed;
mod rules_replaced;
mod ship;
mod stopping;
mod time_zones;
mod unprivileged;
mod unwritable;
mod waiting;
#[path = "../report/world.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "it is written for the tests of acctd report"
)]
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{OnceLock, PoisonError, RwLock};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use testkit::netns::Privilege;
use testkit::{programs::exit_code, traffic};

/// A test: what it needs, its name, and itself.
type Case = (Needs, &'static str, fn() -> Result<()>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// A network namespace, in a user namespace if need be.
    Namespace,
    /// The real root.
    Root,
    /// Root, and a kernel with devices of this kind (ip-link(8)).
    Device(&'static str),
    /// Root, and a kernel with nft's flowtables.
    Flowtable,
    /// Root, and a kernel before this version.
    Before((u32, u32)),
    /// Root, and a kernel of this version or later.
    Since((u32, u32)),
    /// Root, and a kernel with TCX.
    Tcx,
    /// A network namespace, and more than one processor.
    Processors,
    /// Root, and a processor that is not emulated.
    RealProcessor,
    /// A network namespace, and a kernel with nft's hook egress.
    NetdevEgress,
    /// Root, and that hook, for the counters around the rules.
    Firewall,
    /// Root, and a kernel with `br_netfilter`.
    BridgeNetfilter,
    /// Root, and Debian's Prometheus.
    Prometheus,
    /// Root, and Debian's chromium.
    Browser,
    /// Root, and `DuckDB` and `ClickHouse`, as Python's packages.
    Databases,
    /// Root, and Debian's `ClickHouse`.
    ClickHouse,
    /// That, and Debian's `ZooKeeper`.
    ZooKeeper,
    /// A network namespace, and acctd built with the feature `fault-points`.
    FaultPoints,
    /// That, and no other test beside it: it sends at full speed, measures time, or changes what all namespaces share.
    Alone(&'static Needs),
    /// Root, no other test beside it, and minutes: `cargo xtask soak` runs it.
    Soak,
}

/// The tests that tell whether acctd works at all on a kernel.
const CORE: &str = include_str!("../kernels/core");

/// How many tests run beside each other on each core. Most of them wait most of the time.
const TESTS_PER_CORE: usize = 3;

/// Held by every test, and by one that runs alone for itself.
static MACHINE: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    if let Some(done) = traffic::run_if_asked() {
        return exit_code("traffic", done);
    }
    let mut args = std::env::args_os();
    let word = args.by_ref().nth(1).unwrap_or_default();
    match word.to_str() {
        Some("stream") => {
            let done = crosscheck::stream_main_from(std::env::args().skip(2));
            exit_code("stream", done)
        }
        Some(faults::HAND_OVER) => exit_code(faults::HAND_OVER, faults::hand_over_from(args)),
        _ => run_tests(),
    }
}

fn run_tests() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    arguments
        .test_threads
        .get_or_insert(n_cores * TESTS_PER_CORE);
    let firewalls = match firewalls::cases() {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("the set-ups of firewalls: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let firewalls = firewalls.into_iter().map(|(name, path)| {
        let test = trial(&arguments, Needs::Firewall, &name, move || {
            firewalls::run(&path)
        });
        (Needs::Firewall, test)
    });
    let cases = [
        counting::CASES,
        &crosscheck::cases(),
        stopping::CASES,
        go_manual::CASES,
        overload::CASES,
        databases::CASES,
        ship::CASES,
        prometheus::CASES,
        report::CASES,
        hooks::CASES,
        doctor::CASES,
        doctor_rules::CASES,
        doctor_live::CASES,
        doctor_machine::CASES,
        errors::CASES,
        time_zones::CASES,
        unwritable::CASES,
        logging::CASES,
        listen::CASES,
        listen_clients::CASES,
        live::CASES,
        unprivileged::CASES,
        rules::CASES,
        rules_of_readme::CASES,
        rules_printed::CASES,
        rules_replaced::CASES,
        &faults::cases(),
    ]
    .concat();
    let cases = cases.into_iter();
    let trials = cases.map(|(needs, name, test)| (needs, trial(&arguments, needs, name, test)));
    // Some of the firewalls have thousands of rules, and so take the longest.
    let mut trials: Vec<(Needs, Trial)> = firewalls.chain(trials).collect();
    // They begin in this order: one that runs alone would hold up those behind it.
    trials.sort_by_key(|(needs, _)| needs.is_alone());
    let mut trials: Vec<Trial> = trials.into_iter().map(|(_, trial)| trial).collect();
    if std::env::var_os("ACCTD_TESTS_CORE").is_some() {
        trials.retain(|trial| CORE.lines().any(|name| name == trial.name()));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

impl Needs {
    fn is_alone(self) -> bool {
        matches!(self, Self::Alone(_) | Self::Soak)
    }

    /// The same for a test that may run beside others.
    fn beside_others(self) -> Self {
        match self {
            Self::Alone(needs) => *needs,
            needs => needs,
        }
    }
}

/// Whether a test is among those that were asked for, so that nothing is fetched for others.
fn is_asked_for(arguments: &Arguments, name: &str) -> bool {
    arguments
        .filter
        .as_ref()
        .is_none_or(|part| name.contains(part))
        && !arguments.list
}

/// Whether namespaces can be made: as root, and as whoever runs this.
struct Available {
    root: Result<(), String>,
    own: Result<(), String>,
}

/// Found out once: each of them starts a program.
fn available() -> &'static Available {
    static AVAILABLE: OnceLock<Available> = OnceLock::new();
    AVAILABLE.get_or_init(|| Available {
        root: Privilege::Root.available(),
        own: Privilege::of_this_process().available(),
    })
}

fn trial(
    arguments: &Arguments,
    needs: Needs,
    name: &str,
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    let is_alone = needs.is_alone();
    let needs = needs.beside_others();
    let mut impossible = match needs {
        Needs::Namespace | Needs::FaultPoints | Needs::NetdevEgress | Needs::Processors => {
            available().own.clone().err()
        }
        _ => available().root.clone().err(),
    };
    if impossible.is_none() && is_asked_for(arguments, name) {
        impossible = match needs {
            Needs::Prometheus => prometheus::available().err(),
            Needs::Databases => databases::available().err(),
            Needs::ClickHouse => ship::clickhouse().err(),
            Needs::ZooKeeper => ship::zookeeper().err(),
            Needs::Browser => live::browser().err(),
            _ => None,
        };
    }
    // A kernel is as it is, in CI too, and so is a build.
    let missing = match needs {
        Needs::Flowtable if impossible.is_none() => kernel::flowtables().err(),
        Needs::Device(kind) if impossible.is_none() => kernel::device(kind).err(),
        Needs::Before(version) => kernel::is_before(version).err(),
        Needs::Since(version) => kernel::is_since(version).err(),
        Needs::Tcx => kernel::tcx().err(),
        Needs::Processors => kernel::processors().err(),
        Needs::RealProcessor if kernel::is_emulated() => {
            Some("it measures time, and the processor is emulated".to_owned())
        }
        Needs::NetdevEgress | Needs::Firewall if impossible.is_none() => {
            kernel::netdev_egress().err()
        }
        Needs::BridgeNetfilter if !Path::new("/proc/sys/net/bridge").exists() => {
            Some("the kernel has no br_netfilter, or its module is not loaded".to_owned())
        }
        Needs::FaultPoints if !cfg!(feature = "fault-points") => {
            Some("acctd is built without --features acctd/fault-points".to_owned())
        }
        Needs::Soak => Some("it takes minutes; `cargo xtask soak` runs it".to_owned()),
        _ => None,
    };
    if let Some(reason) = impossible.as_ref().or(missing.as_ref()) {
        eprintln!("skipped: {name}: {reason}");
    }
    // Where all must run, what cannot is a failure.
    let may_skip = std::env::var_os("CI").is_none();
    let failed = format!("failed: {name}");
    Trial::test(name, move || {
        let result = if is_alone {
            let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
            test()
        } else {
            let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
            test()
        };
        // At once: a run takes an hour where the processor is emulated, and may be cut off.
        let result = result.inspect_err(|error| eprintln!("{failed}: {error:#}"));
        Ok(result.map_err(|error| format!("{error:#}"))?)
    })
    .with_ignored_flag(missing.is_some() || (impossible.is_some() && may_skip))
}
