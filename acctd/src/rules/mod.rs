//! `acctd rules`: nftables or iptables rules that log each packet once to acctd's groups.
//!
//! ```text
//!  flags ─► plan ─► nft       prints, loads, removes, compares rules
//!              └──► iptables  the same
//! ```

mod compare;
pub(crate) mod devices;
pub(crate) mod doctor_table;
pub(crate) mod external;
pub(crate) mod interfaces;
pub(crate) mod iptables;
pub(crate) mod loaded;
pub(crate) mod names;
pub(crate) mod nft;
pub(crate) mod nft_json;
mod nft_loaded;
pub(crate) mod nft_objects;
mod nft_table;
pub(crate) mod plan;
pub(crate) mod ruleset;

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Result;
use plan::{Hook, Plan};

use crate::cli::commands::{Format, RulesArgs};
use crate::cli::flags::GroupList;
use crate::rules::plan::list_text;

/// Contradictory flags.
const USAGE: u8 = 2;
/// The loaded rules differ from the needed ones.
const DIFFERS: u8 = 1;

/// Prints, loads, removes or checks the rules.
pub fn run(args: &RulesArgs) -> Result<ExitCode> {
    if args.remove {
        // In all formats, because rules that stay would log each packet a second time.
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
        // A pattern may match interfaces that do not exist yet.
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
        // The rules of the other format are removed first: if both log a packet, it is counted twice.
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
            "acctd: warning: if an interface of the egress hook does not exist, this kernel rejects the whole file; for \
             /etc/nftables.conf, print those rules to a separate file with{}, and omit these groups here",
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

/// The acctd command that reads the groups.
fn command_line(plan: &Plan) -> String {
    let mut line = "acctd".to_owned();
    for (flag, .., list) in plan.groups.directions() {
        if !list.0.is_empty() {
            // Writing to a string cannot fail.
            let _always = write!(line, " -{flag}={}", list_text(list));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use crate::rules::compare::compare;

    #[test]
    fn missing_and_unneeded_rules_are_differences() {
        let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(compare(&lines("a b c"), &lines("c b a")), [""; 0]);
        assert_eq!(
            compare(&lines("a b b"), &lines("b c")),
            ["missing: a", "missing: b", "not needed: c"]
        );
    }
}
