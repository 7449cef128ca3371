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
mod doctor_rules;
mod errors;
mod faults;
mod firewalls;
mod hooks;
mod listen;
mod logging;
mod overload;
mod prometheus;
mod rig;
mod rules;
mod rules_of_readme;
mod rules_replaced;
mod seeds_manual;
mod stopping;
mod unprivileged;

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use testkit::netns::Privilege;
use testkit::{programs::exit_code, traffic};

/// A test: whether it can only run as root, its name, and itself.
type Case = (Needs, &'static str, fn() -> anyhow::Result<()>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// A network namespace, in a user namespace if need be.
    Namespace,
    /// The real root.
    Root,
    /// Root, and a kernel with nft's flowtables.
    Flowtable,
    /// Root, and a kernel with `br_netfilter`.
    BridgeNetfilter,
    /// Root, and Debian's Prometheus.
    Prometheus,
    /// Root, and `DuckDB` and `ClickHouse`.
    Databases,
    /// A network namespace, and acctd built with the feature `fault-points`.
    FaultPoints,
}

fn main() -> ExitCode {
    if let Some(done) = traffic::run_if_asked() {
        return exit_code("traffic", done);
    }
    if std::env::args_os()
        .nth(1)
        .is_some_and(|word| word == "stream")
    {
        return exit_code(
            "stream",
            crosscheck::stream_main_from(std::env::args().skip(2)),
        );
    }
    let mut arguments = Arguments::from_args();
    // They measure what a machine can do at full speed, so not two at once.
    arguments.test_threads.get_or_insert(1);
    let firewalls = match firewalls::cases() {
        Ok(cases) => cases,
        Err(error) => {
            eprintln!("the set-ups of firewalls: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let firewalls = firewalls.into_iter().map(|(name, path)| {
        trial(&arguments, Needs::Root, &name, move || {
            firewalls::run(&path)
        })
    });
    let trials = [
        counting::CASES,
        &crosscheck::cases(),
        stopping::CASES,
        seeds_manual::CASES,
        overload::CASES,
        databases::CASES,
        prometheus::CASES,
        hooks::CASES,
        doctor::CASES,
        doctor_rules::CASES,
        doctor_live::CASES,
        errors::CASES,
        logging::CASES,
        listen::CASES,
        unprivileged::CASES,
        rules::CASES,
        rules_of_readme::CASES,
        rules_replaced::CASES,
        &faults::cases(),
    ]
    .concat()
    .into_iter()
    .map(|(needs, name, test)| trial(&arguments, needs, name, test))
    .chain(firewalls)
    .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Whether a test is among those that were asked for, so that nothing is fetched for others.
fn is_asked_for(arguments: &Arguments, name: &str) -> bool {
    arguments
        .filter
        .as_ref()
        .is_none_or(|part| name.contains(part))
        && !arguments.list
}

fn trial(
    arguments: &Arguments,
    needs: Needs,
    name: &str,
    test: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
) -> Trial {
    let privilege = match needs {
        Needs::Root
        | Needs::Flowtable
        | Needs::BridgeNetfilter
        | Needs::Prometheus
        | Needs::Databases => Privilege::Root,
        Needs::Namespace | Needs::FaultPoints => Privilege::of_this_process(),
    };
    let mut impossible = privilege.available().err();
    if impossible.is_none() && is_asked_for(arguments, name) {
        impossible = match needs {
            Needs::Prometheus => prometheus::available().err(),
            Needs::Databases => databases::available().err(),
            _ => None,
        };
    }
    // A kernel is as it is, in CI too, and so is a build.
    let missing = match needs {
        Needs::Flowtable if impossible.is_none() => crosscheck::flowtables().err(),
        Needs::BridgeNetfilter if !Path::new("/proc/sys/net/bridge").exists() => {
            Some("the kernel has no br_netfilter, or its module is not loaded".to_owned())
        }
        Needs::FaultPoints if !cfg!(feature = "fault-points") => {
            Some("acctd is built without --features acctd/fault-points".to_owned())
        }
        _ => None,
    };
    if let Some(reason) = impossible.as_ref().or(missing.as_ref()) {
        eprintln!("skipped: {name}: {reason}");
    }
    // Where all must run, what cannot is a failure.
    let may_skip = std::env::var_os("CI").is_none();
    Trial::test(name, move || {
        Ok(test().map_err(|error| format!("{error:#}"))?)
    })
    .with_ignored_flag(missing.is_some() || (impossible.is_some() && may_skip))
}
