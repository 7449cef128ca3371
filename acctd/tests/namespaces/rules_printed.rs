//! Rules that are printed and loaded, and loaded again.

use acctd::process::kernel::kernel_version;
use anyhow::{Context as _, Result, ensure};

use crate::errors::complains;
use crate::kernel;
use crate::rig::Rig;
use crate::rules::{rules, rules_ok};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "rules_that_were_changed_are_found",
        || {
            changed_rules_are_found(
                "nft",
                "nft delete chain inet acctd input; nft add rule inet acctd output accept",
            )
        },
    ),
    (
        Needs::Namespace,
        "rules_that_were_changed_are_found_by_iptables",
        || {
            changed_rules_are_found(
                "iptables",
                "iptables -t mangle -D INPUT -j ACCTD-INPUT; iptables -t mangle -A ACCTD-OUTPUT -j ACCEPT",
            )
        },
    ),
    (
        Needs::Namespace,
        "rules_of_another_scenario_take_the_place_of_those_before",
        another_scenario,
    ),
    (
        Needs::Namespace,
        "rules_printed_can_be_loaded_as_they_are",
        printed_rules_can_be_loaded,
    ),
    (
        Needs::Namespace,
        "rules_that_cannot_be_are_a_usage_error",
        rules_that_cannot_be,
    ),
    (
        Needs::Before((5, 16)),
        "rules_with_an_egress_hook_name_the_kernel_that_they_need",
        an_egress_hook_needs_a_kernel,
    ),
];

fn changed_rules_are_found(format: &str, change: &str) -> Result<()> {
    let rig = Rig::new()?;
    let format = format!("--format={format}");
    rules_ok(&rig, &["--apply", &format])?;
    rig.router.run(&["sh", "-e", "-c", change])?;
    let check = rules(&rig, &["--check", &format])?;
    ensure!(check.status.code() == Some(1));
    let lines = String::from_utf8(check.stdout)?;
    let n_of = |part: &str| lines.lines().filter(|line| line.contains(part)).count();
    ensure!(n_of("not needed: ") == 1, "{lines}");
    ensure!(
        n_of("missing: ") == if format.ends_with("nft") { 3 } else { 1 },
        "{lines}"
    );
    rules_ok(&rig, &["--apply", &format])?;
    ensure!(rules_ok(&rig, &["--check", &format])?.is_empty());
    Ok(())
}

fn another_scenario() -> Result<()> {
    let rig = Rig::new()?;
    let steps: [&[&str]; 4] = [
        &["router", "--lan=lan0", "--egress-hook=lan0"],
        &["host"],
        &["bridge", "--lan=lan0", "-ip4-src-group=9"],
        &["router", "--lan=lan0"],
    ];
    let first = usize::from(kernel::netdev_egress().is_err());
    for step in &steps[first..] {
        rules_ok(&rig, &[step, &["--apply"][..]].concat())?;
        ensure!(rules_ok(&rig, &[step, &["--check"][..]].concat())?.is_empty());
    }
    // nft's go with the first of them.
    for step in [steps[1], steps[3], &["host", "-ip6-src-group=7"]] {
        let iptables = ["--format=iptables"];
        rules_ok(&rig, &[step, &iptables, &["--apply"]].concat())?;
        ensure!(rules_ok(&rig, &[step, &iptables, &["--check"]].concat())?.is_empty());
    }
    let tables = rig.router.run(&["nft", "list", "tables"])?;
    ensure!(!tables.contains("acctd"), "{tables}");
    let ip4 = rig.router.run(&["iptables-save", "-t", "mangle"])?;
    ensure!(!ip4.contains("ACCTD"), "{ip4}");
    rules_ok(&rig, &["--apply"])?;
    let ip6 = rig.router.run(&["ip6tables-save", "-t", "mangle"])?;
    ensure!(!ip6.contains("ACCTD"), "{ip6}");
    Ok(())
}

fn printed_rules_can_be_loaded() -> Result<()> {
    for (format, load) in [("nft", "nft -f -"), ("iptables", "sh -e")] {
        let rig = Rig::new()?;
        let mut args = vec!["router", "--lan=lan0,wan*", "--format", format];
        if kernel::processors().is_ok() {
            args.push("--fan-out=2");
        }
        let printed = rules_ok(&rig, &args)?;
        let file = rig.scratch().join("rules");
        std::fs::write(&file, printed)?;
        let load = format!("{load} < {}", file.display());
        // Again it changes nothing, be there something in front meanwhile.
        for _ in 0..2 {
            rig.router.run(&["sh", "-e", "-c", &load])?;
            ensure!(rules_ok(&rig, &[&args[..], &["--check"]].concat())?.is_empty());
            let in_front = "iptables -t mangle -I FORWARD -j ACCEPT";
            rig.router.run(&["sh", "-e", "-c", in_front])?;
        }
    }
    Ok(())
}

fn an_egress_hook_needs_a_kernel() -> Result<()> {
    let rig = Rig::new()?;
    let loaded = rules(
        &rig,
        &["router", "--lan=lan0", "--egress-hook=lan0", "--apply"],
    )?;
    complains(&loaded, 1, "the egress hook needs Linux 5.16, and this is ")
}

fn rules_that_cannot_be() -> Result<()> {
    let rig = Rig::new()?;
    let refused = |args: &[&str], part: &str| complains(&rules(&rig, args)?, 2, part);
    refused(&["router"], "--lan eth1,eth2")?;
    refused(&["bridge", "--lan=p1", "--format=iptables"], "needs nft")?;
    refused(&["--apply", "--remove"], "cannot be used with")?;
    refused(&["upstream"], "invalid value 'upstream'")?;
    let output = rules(&rig, &["--egress-hook=nowhere0"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (first, others) = stderr.split_once('\n').context("no line")?;
    ensure!(
        output.status.success()
            && first == "acctd: warning: there is no interface nowhere0 (yet)"
            && others.contains("this kernel rejects the whole file")
                == (kernel_version() < (6, 16)),
        "{output:?}"
    );
    Ok(())
}
