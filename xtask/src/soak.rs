//! `cargo xtask soak`: acctd for a long time, with mixed traffic and one fault after the other, and at
//! the end every packet accounted for.
//!
//! ```text
//!  wire ── veth ── router: a counter in front of each log statement, acctd with 1 s intervals,
//!                          its files in a small file system of their own
//! ```
//!
//! Faults that lose packets without a number (acctd is killed) come while nothing is sent and all is
//! saved, so that the sum must be exact all the same. They come in the first half only: in the second
//! one process lives, whose memory must not grow.
//!
//! Before that run those tests that take minutes each: of the same as others, but longer.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testkit::{interrupt::Interrupt, netns::Privilege, print, programs};

use crate::setup;

mod accounts;
mod faults;
mod stage;
mod watch;

use accounts::Accounts;
use faults::FAULTS;
use stage::Stage;
use watch::Watch;

/// Run acctd for long, with mixed traffic and rotating faults, and account for every packet
///
/// Needs root. Fails if rows and known losses are not what nftables' counters say, if memory
/// grows, or if descriptors or BPF maps are leaked.
#[derive(Debug, clap::Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
}

/// By their names, with which they say why they are ignored otherwise.
fn long_tests() -> Result<()> {
    let status = Command::new(programs::cargo())
        .args(["test", "-p", "acctd", "--features", "acctd/fault-points"])
        .args(["--test", "namespaces", "--", "--ignored", "soak_"])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("the long tests failed, {status}");
    }
    Ok(())
}

impl Soak {
    pub(crate) fn run(&self) -> Result<()> {
        setup::run()?;
        Privilege::Root
            .available()
            .map_err(anyhow::Error::msg)
            .context("the soak needs root")?;
        long_tests()?;
        let interrupt = Interrupt::catch()?;
        interrupt.instead_of_error(self.soak(&interrupt))
    }

    fn soak(&self, interrupt: &Interrupt) -> Result<()> {
        print::line("soak: building acctd")?;
        let [acctd] = programs::build([("--bin", "acctd")], interrupt)?;
        let mut stage = Stage::set(acctd, interrupt)?;
        let begun = Instant::now();
        let length = Duration::from_secs(60 * self.minutes);
        let mut accounts = Accounts::default();
        let mut watch = Watch::default();
        let mut counts = vec![0_u32; FAULTS.len()];
        for (n, fault) in (0..FAULTS.len()).cycle().map(|n| (n, &FAULTS[n])) {
            let elapsed = begun.elapsed();
            if elapsed >= length {
                break;
            }
            let is_second_half = elapsed >= length / 2;
            if fault.ends_acctd && is_second_half {
                continue;
            }
            (fault.strike)(&mut stage, interrupt).with_context(|| fault.name)?;
            counts[n] += 1;
            stage.steady_traffic(interrupt)?;
            accounts.collect(&stage.log_directory())?;
            if is_second_half {
                watch.look(&stage.acctd)?;
            }
        }
        stage.finish(interrupt)?;
        accounts.collect(&stage.log_directory())?;
        let (counters, lost) = (stage.counters()?, accounts.lost(&stage.log_directory())?);

        print::line(format!("soak: {} minutes", begun.elapsed().as_secs() / 60))?;
        for (fault, count) in FAULTS.iter().zip(&counts) {
            print::line(format!("  {count:4} x {}", fault.name))?;
        }
        let is_exact = accounts.compare(&counters, &lost)?;
        let is_flat = watch.report()?;
        if !is_exact {
            bail!("rows and known losses are not what nftables has counted");
        }
        if !is_flat {
            bail!("acctd grows or leaks");
        }
        Ok(())
    }
}
