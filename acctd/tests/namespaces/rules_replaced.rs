//! `acctd rules` where there are rules already: of another program, of an earlier run, or changed since.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};

use crate::errors::complains;
use crate::kernel::{self, scaled};
use crate::rig::{Rig, totals};
use crate::rules::{acctd_for, be_quiet, rules, rules_ok};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "rules_of_either_iptables_go_when_others_are_loaded",
        either_iptables,
    ),
    (
        Needs::Namespace,
        "rules_of_iptables_legacy_that_cannot_be_read_are_an_error",
        unreadable_legacy_rules,
    ),
    (
        Needs::Namespace,
        "rules_of_iptables_are_put_in_front_again",
        the_jump_goes_first,
    ),
    (
        Needs::Namespace,
        "rules_loaded_again_under_traffic_count_no_packet_twice",
        || loaded_again_under_traffic(&["--apply"]),
    ),
    (
        Needs::Namespace,
        "rules_printed_and_loaded_again_under_traffic_count_no_packet_twice",
        || loaded_again_under_traffic(&[]),
    ),
    (
        Needs::Namespace,
        "rules_for_interfaces_with_any_letters",
        interfaces_with_any_letters,
    ),
    (
        Needs::Namespace,
        "rules_of_a_table_that_somebody_has_changed_are_mended",
        a_changed_table_is_mended,
    ),
    (
        Needs::Namespace,
        "rules_end_quietly_when_nobody_reads_on",
        nobody_reads_on,
    ),
];

/// The link of Debian's alternatives: `iptables` is the other one from here on.
fn with_alternative(rig: &Rig, end: &str) -> Result<String> {
    let directory = rig.scratch().join(end);
    std::fs::create_dir(&directory)?;
    for program in ["iptables", "ip6tables"] {
        for what in ["", "-restore", "-save"] {
            let target = format!("/usr/sbin/{program}-{end}{what}");
            std::os::unix::fs::symlink(target, directory.join(format!("{program}{what}")))?;
        }
    }
    let path = std::env::var("PATH")?;
    Ok(format!("{}:{path}:/usr/sbin", directory.display()))
}

fn rules_with_path(rig: &Rig, path: &str, args: &[&str]) -> Result<Output> {
    let mut command = rig.router.command(rig.acctd_path());
    Ok(command.env("PATH", path).arg("rules").args(args).output()?)
}

/// After `update-alternatives`, too, nothing of the other one is left: each packet would be counted twice.
fn either_iptables() -> Result<()> {
    let rig = Rig::new()?;
    let paths = [
        with_alternative(&rig, "legacy")?,
        with_alternative(&rig, "nft")?,
    ];
    let iptables = ["--format=iptables"];
    let chains = |of: &str| {
        rig.router
            .run(&[&format!("iptables-{of}-save"), "-t", "mangle"])
    };
    for _ in 0..2 {
        for (path, other) in paths.iter().zip(["nft", "legacy"]) {
            let applied = rules_with_path(&rig, path, &["--format=iptables", "--apply"])?;
            ensure!(applied.status.success(), "{applied:?}");
            ensure!(!chains(other)?.contains("ACCTD"), "{}", chains(other)?);
            let check = rules_with_path(&rig, path, &["--format=iptables", "--check"])?;
            ensure!(check.status.success(), "{check:?}");
            for format in [&iptables[..], &[]] {
                // For the other one they are too many.
                let other = paths.iter().find(|it| *it != path).context("a path")?;
                let check = rules_with_path(&rig, other, &[format, &["--check"]].concat())?;
                let lines = String::from_utf8(check.stdout)?;
                ensure!(
                    check.status.code() == Some(1) && lines.contains("not needed: "),
                    "{lines}"
                );
            }
        }
    }
    for path in &paths {
        for format in ["--format=nft", "--format=iptables"] {
            ensure!(
                rules_with_path(&rig, path, &["--format=iptables", "--apply"])?
                    .status
                    .success()
            );
            let other = paths.iter().find(|it| *it != path).context("a path")?;
            ensure!(
                rules_with_path(&rig, other, &["--remove", format])?
                    .status
                    .success()
            );
            ensure!(!chains("legacy")?.contains("ACCTD") && !chains("nft")?.contains("ACCTD"));
            let left = rig.router.run(&["nft", "list", "ruleset"])?;
            ensure!(left.is_empty(), "{left}");
            // nft's take the place of both, and nft's are found by --check.
            ensure!(
                rules_with_path(&rig, path, &["--format=iptables", "--apply"])?
                    .status
                    .success()
            );
            ensure!(rules_with_path(&rig, other, &["--apply"])?.status.success());
            ensure!(!chains("legacy")?.contains("ACCTD") && !chains("nft")?.contains("ACCTD"));
            let check = rules_with_path(&rig, path, &["--format=iptables", "--check"])?;
            let lines = String::from_utf8(check.stdout)?;
            ensure!(lines.contains("not needed: table inet acctd"), "{lines}");
            rules_ok(&rig, &["--remove"])?;
        }
    }
    Ok(())
}

/// Another program is there under its name, and not that one.
fn unreadable_legacy_rules() -> Result<()> {
    let rig = Rig::new()?;
    rig.router
        .run(&["iptables-legacy", "-t", "mangle", "-N", "ACCTD-INPUT"])?;
    let path = with_alternative(&rig, "nft")?;
    let broken =
        std::path::Path::new(path.split(':').next().context("a path")?).join("iptables-legacy");
    std::os::unix::fs::symlink("/bin/false", broken)?;
    for args in [
        &["--apply"][..],
        &["--check"],
        &["--remove"],
        &["--apply", "--format=iptables"],
    ] {
        complains(
            &rules_with_path(&rig, &path, args)?,
            1,
            "rules of iptables-legacy are loaded and cannot be read",
        )?;
    }
    let left = rig.router.run(&["nft", "list", "tables"])?;
    ensure!(left.is_empty(), "{left}");
    Ok(())
}

fn the_jump_goes_first() -> Result<()> {
    let rig = Rig::new()?;
    let iptables = ["--format=iptables"];
    rules_ok(&rig, &["--apply", iptables[0]])?;
    rig.router
        .run(&["iptables", "-t", "mangle", "-I", "INPUT", "-j", "ACCEPT"])?;
    let check = rules(&rig, &["--check", iptables[0]])?;
    ensure!(check.status.code() == Some(1));
    let lines = String::from_utf8(check.stdout)?;
    ensure!(
        lines == "iptables: not in front: -A INPUT -j ACCTD-INPUT\n",
        "{lines}"
    );
    rules_ok(&rig, &["--apply", iptables[0]])?;
    ensure!(rules_ok(&rig, &["--check", iptables[0]])?.is_empty());
    let rules = rig
        .router
        .run(&["iptables", "-t", "mangle", "-S", "INPUT"])?;
    ensure!(
        rules == "-P INPUT ACCEPT\n-A INPUT -j ACCTD-INPUT\n-A INPUT -j ACCEPT\n",
        "{rules}"
    );
    Ok(())
}

/// Under the generator's traffic: what is logged is at most what has passed. A packet may be missed while rules
/// are made anew, but none is counted twice.
fn loaded_again_under_traffic(how: &[&str]) -> Result<()> {
    const LOADS: u32 = 100;
    let rig = Rig::new()?;
    rig.rules(
        "table inet witness {
            counter before {}
            chain prerouting {
                type filter hook prerouting priority -310
                iifname lan0 meta nfproto ipv4 counter name before
            }
            chain forward {
                type filter hook prerouting priority 300
                iifname lan0 meta nfproto ipv4 drop
            }
        }",
    )?;
    let args = ["router", "--lan=lan0"];
    rules_ok(&rig, &[&args[..], &["--apply"]].concat())?;
    let acctd = acctd_for(&rig, &args)?;
    let file = rig.scratch().join("rules");
    std::fs::write(&file, rules_ok(&rig, &args)?)?;
    let load = format!("nft -f {}", file.display());
    let mut traffic = rig.traffic("192.0.2.0/28", "10.1.0.1/32")?;
    traffic.count = 100_000_000;
    if kernel::is_emulated() {
        // Its only processor has to load the rules, too.
        traffic.rate = 2_000;
    }
    let running = rig.send_in_background(&traffic)?;
    for _ in 0..LOADS {
        if how.is_empty() {
            rig.router.run(&["sh", "-c", &load])?;
        } else {
            rules_ok(&rig, &[&args[..], how].concat())?;
        }
    }
    drop(running);
    be_quiet(&rig, &["lan0"])?;
    acctd.finish()?;
    let (counted, _) = totals(&rig.files()?, true);
    let lost = rig.summed("lost")?;
    let passed = rig.counter("before")?;
    ensure!(passed.packets > scaled(10_000), "{passed:?}");
    ensure!(
        counted.packets + lost == passed.packets,
        "{} counted and {lost} lost of {}",
        counted.packets,
        passed.packets
    );
    Ok(())
}

/// Which the shell, nft or iptables might take for something else.
fn interfaces_with_any_letters() -> Result<()> {
    let rig = Rig::new()?;
    let names = ["a$b(é", "x&y|#", "w`z~", "-l <>", "s[0]?"];
    let names: Vec<String> = names.iter().map(|name| name.replace(' ', "")).collect();
    for (at, name) in names.iter().enumerate() {
        let peer = format!("peer{at}");
        rig.router
            .run(&["ip", "link", "add", "name", &peer, "type", "veth"])?;
        let made = rig
            .router
            .run(&["ip", "link", "set", "dev", &peer, "name", name]);
        made.with_context(|| format!("the name {name}"))?;
    }
    let lan = format!("--lan={}", names.join(","));
    let egress = format!("--egress-hook={}", names.join(","));
    let all = [
        &["router", &lan][..],
        &["router", &lan, "--format=iptables"],
        &["host", &egress],
    ];
    let last = all.len() - usize::from(kernel::netdev_egress().is_err());
    for args in &all[..last] {
        rules_ok(&rig, &[*args, &["--apply"]].concat())?;
        let check = rules(&rig, &[*args, &["--check"]].concat())?;
        ensure!(check.status.success(), "{args:?}: {check:?}");
        let printed = rules_ok(&rig, args)?;
        rules_ok(&rig, &["--remove"])?;
        let file = rig.scratch().join("rules");
        std::fs::write(&file, printed)?;
        let load = if args.contains(&"--format=iptables") {
            "sh"
        } else {
            "nft -f"
        };
        let load = format!("{load} {}", file.display());
        for _ in 0..2 {
            rig.router.run(&["sh", "-e", "-c", &load])?;
            let check = rules(&rig, &[*args, &["--check"]].concat())?;
            ensure!(check.status.success(), "{args:?}: {check:?}");
        }
        rules_ok(&rig, &["--remove"])?;
    }
    Ok(())
}

fn a_changed_table_is_mended() -> Result<()> {
    for change in [
        "nft 'add set inet acctd s { type ipv4_addr; }'",
        "nft 'add table inet acctd { flags dormant; }'",
        "nft 'chain inet acctd input { policy drop; }'",
        "nft 'delete chain inet acctd input'; nft 'add chain inet acctd input { type filter hook input priority 5; }'",
        "nft 'add chain inet acctd other'; nft 'add rule inet acctd input jump other'",
    ] {
        let rig = Rig::new()?;
        rules_ok(&rig, &["--apply"])?;
        rig.router.run(&["sh", "-e", "-c", change])?;
        // A set harms nobody.
        let is_found = rules(&rig, &["--check"])?.status.code() == Some(1);
        ensure!(is_found != change.contains("add set"), "{change}");
        rules_ok(&rig, &["--apply"])?;
        ensure!(rules_ok(&rig, &["--check"])?.is_empty(), "{change}");
        let listed = rig.router.run(&["nft", "list", "ruleset"])?;
        ensure!(
            !listed.contains("set s") && !listed.contains("dormant"),
            "{listed}"
        );
    }
    Ok(())
}

fn nobody_reads_on() -> Result<()> {
    let rig = Rig::new()?;
    // Longer than a pipe holds.
    let lan: Vec<String> = (0..900).map(|at| format!("lan{at}")).collect();
    let script = format!(
        "set -o pipefail; {} rules router --lan {} 2>/dev/null | head -n1 || exit 9; {0} rules router --lan {1} 2>&1 >/dev/full | grep -v warning: || true",
        rig.acctd_path().display(),
        lan.join(",")
    );
    let mut command = rig.router.command("bash");
    let output = command.args(["-c", &script]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{output:?}");
    ensure!(
        text.starts_with("# acctd -ip4") && text.contains("No space left"),
        "{text}"
    );
    ensure!(output.stderr.is_empty(), "{output:?}");
    Ok(())
}
