//! `acctd rules`: the nftables or iptables rules that log what acctd is to count, each packet once.
//!
//! ```text
//!  flags ─► plan ─► nft       text, loaded, removed, compared
//!              └──► iptables  the same
//! ```

pub mod external;
pub mod iptables;
pub mod nft;
pub mod plan;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::flags::{GroupFlags, GroupList};
use plan::{Hook, Plan, Scenario};

/// The flags of `acctd rules`.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags")]
pub struct Args {
    /// Whose packets are counted.
    #[arg(value_enum, default_value_t = Scenario::Host)]
    pub scenario: Scenario,

    /// Interfaces behind which the accounted addresses are; ports, for a bridge.
    ///
    /// A list. A name may end in * for all that begin so (ppp*).
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    pub lan: Vec<String>,

    /// Only what passes from one interface to another, not what the router itself receives or sends.
    #[arg(long)]
    pub forwarded: bool,

    /// Log what goes out on the netdev egress hook of these interfaces, where packets carry a time stamp.
    ///
    /// It takes Linux 5.16. Packets are counted when they are given to the interface, behind all other
    /// rules and with the addresses that NAT gives them. Without it they are counted in the interval in which
    /// they are received: up to a second late.
    #[arg(long, value_name = "IFACE", value_delimiter = ',')]
    pub egress_hook: Vec<String>,

    /// Spread each direction over this many groups, by CPU: the one given and those behind it.
    ///
    /// A direction whose flag has a list is spread over that.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    pub fan_out: Option<u16>,

    /// Bytes to copy of each packet; without it, the IP header and no more.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(20..=65_535))]
    pub snaplen: Option<u32>,

    /// Packets that the kernel collects before it hands them over.
    #[arg(long, value_name = "PACKETS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub threshold: u32,

    /// What to write them for.
    #[arg(long, value_enum, default_value_t = Format::Nft)]
    pub format: Format,

    /// Load them, in the place of those that were loaded before, be it for the other program.
    #[arg(long, group = "what")]
    pub apply: bool,

    /// Take away those that were loaded before.
    #[arg(long, group = "what")]
    pub remove: bool,

    /// Say how what is loaded differs from them; exit code 1 if it does.
    #[arg(long, group = "what")]
    pub check: bool,

    /// The groups that the rules log to; without any, 4 to 7 as in go-nflog-acctd's manual.
    #[command(flatten)]
    pub groups: GroupFlags,
}

/// The program that loads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table of its own for nft.
    Nft,
    /// Chains of their own for iptables and ip6tables, in the table mangle.
    Iptables,
}

/// Flags that do not fit together.
const USAGE: u8 = 2;
/// What is loaded differs.
const DIFFERS: u8 = 1;

/// Prints, loads, removes or checks the rules.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.remove {
        // Of all programs, whatever the format: what is left would log each packet a second time.
        nft::remove()?;
        iptables::remove()?;
        nft::remove_of_doctor()?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = match Plan::new(args) {
        Ok(plan) => plan,
        Err(error) => {
            writeln!(io::stderr(), "acctd: error: {error}")?;
            return Ok(ExitCode::from(USAGE));
        }
    };
    let devices = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    for name in plan.interfaces() {
        let is_there = |line: &str| line.split(':').next().map(str::trim) == Some(name);
        // One that ends in * stands for any number.
        if !name.ends_with('*') && !devices.lines().any(is_there) {
            writeln!(
                io::stderr(),
                "acctd: warning: there is no interface {name} (yet)"
            )?;
        }
    }
    let without_cpu = plan.without_cpu();
    if !without_cpu.is_empty() {
        writeln!(
            io::stderr(),
            "acctd: warning: rules spread packets by CPU, and this machine has {}: nothing is logged to group {}",
            plan.n_cpus,
            list_text(&GroupList(without_cpu))
        )?;
    }
    if args.apply {
        // Those for the other program go first: a packet that both log is counted twice.
        match args.format {
            Format::Nft => {
                iptables::remove()?;
                nft::apply(&plan)?;
            }
            Format::Iptables => {
                nft::remove()?;
                iptables::apply(&plan)?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        let (mut differences, of_the_other) = match args.format {
            Format::Nft => (nft::differences(&plan)?, iptables::left_over(true)?),
            Format::Iptables => (iptables::differences(&plan)?, nft::left_over()?),
        };
        differences.extend(of_the_other);
        for difference in &differences {
            writeln!(io::stdout(), "{difference}")?;
        }
        return Ok(if differences.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(DIFFERS)
        });
    }
    let has_egress = |rule: &plan::Rule| matches!(rule.hook, Hook::Egress(_));
    if plan.rules.iter().any(has_egress)
        && !plan.rules.iter().all(has_egress)
        && nft::needs_all_devices()
    {
        writeln!(
            io::stderr(),
            "acctd: warning: this kernel refuses a whole file if an interface of the egress hook is not there; for \
             /etc/nftables.conf, print those rules to a file of their own with{}, and leave these groups out here",
            nft::flags_of_egress(&plan)
        )?;
    }
    let rules = match args.format {
        Format::Nft => nft::script(&plan),
        Format::Iptables => iptables::script(&plan),
    };
    write!(io::stdout(), "# {}\n{rules}", command_line(&plan))?;
    Ok(ExitCode::SUCCESS)
}

/// The acctd that reads the groups.
fn command_line(plan: &Plan) -> String {
    let mut line = "acctd".to_owned();
    for (flag, .., list) in plan.groups.directions() {
        if !list.0.is_empty() {
            // A string takes what is written to it.
            let _always = write!(line, " -{flag}={}", list_text(list));
        }
    }
    line
}

fn list_text(list: &GroupList) -> String {
    let numbers: Vec<String> = list.0.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

/// What is needed and not loaded, and what is loaded and not needed, each a line.
fn compare(needed: &[String], loaded: &[String]) -> Vec<String> {
    let mut left = loaded.to_vec();
    let mut differences = Vec::new();
    for line in needed {
        match left.iter().position(|other| other == line) {
            Some(at) => drop(left.remove(at)),
            None => differences.push(format!("missing: {line}")),
        }
    }
    differences.extend(left.iter().map(|line| format!("not needed: {line}")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_what_is_missing_and_what_is_too_much() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(compare(&lines("a b c"), &lines("c b a")), [""; 0]);
        assert_eq!(
            compare(&lines("a b b"), &lines("b c")),
            ["missing: a", "missing: b", "not needed: c"]
        );
    }
}
