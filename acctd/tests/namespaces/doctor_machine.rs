//! `acctd doctor` where not a rule is the cause: who has a group, what acctd may do, where it writes, what an interface does.

use std::fs;
use std::process::{Command, Output};

use acctd::doctor::clock_sync;
use anyhow::{Context as _, Result, ensure};
use testkit::netns::Privilege;
use testkit::veth::{Veth, add_address};

use crate::doctor::{ALL, FIVE, doctor, findings, is_well, names_first};
use crate::errors::as_nobody_with;
use crate::rig::{Acctd, Rig, copy_program};
use crate::rules::rules_ok;
use crate::unwritable::{fill, mount_tmpfs};
use crate::{Case, Needs, kernel};

pub(crate) const CASES: &[Case] = &[
    (Needs::Root, "doctor_names_who_has_a_group", a_taken_group),
    (
        Needs::Root,
        "doctor_notes_offloads_and_says_ok_all_the_same",
        offloads,
    ),
    (
        Needs::BridgeNetfilter,
        "doctor_names_br_netfilter_where_what_is_bridged_is_counted",
        bridged_packets,
    ),
    (
        Needs::Root,
        "doctor_names_missing_capabilities",
        missing_capabilities,
    ),
    (
        Needs::Namespace,
        "doctor_names_a_small_receive_buffer",
        a_small_receive_buffer,
    ),
    (
        Needs::Root,
        "doctor_names_what_is_wrong_with_the_log_directory",
        the_log_directory,
    ),
    (
        Needs::Root,
        "doctor_names_what_is_wrong_with_the_cross_check",
        the_cross_check,
    ),
];

fn a_taken_group() -> Result<()> {
    let rig = Rig::new()?;
    rules_ok(&rig, &["--apply", FIVE[0]])?;
    is_well(&doctor(&rig, FIVE)?)?;
    // Another program than acctd.
    let other = rig.scratch().join("ulogd");
    copy_program(rig.acctd_path(), &other)?;
    let mut command = rig.router.command(&other);
    let elsewhere = rig.scratch().join("elsewhere");
    command.args(FIVE).arg("-log-directory").arg(elsewhere);
    let thief = Acctd::spawn(&mut command)?;
    thief.wait_for_line("Started accounting")?;
    let line = names_first("a taken group", &doctor(&rig, FIVE)?, "group-taken")?;
    ensure!(
        line.contains(&format!("pid {} (ulogd)", thief.pid())),
        "{line}"
    );
    thief.finish()?;
    // acctd itself is no trouble.
    let acctd = rig.acctd(FIVE)?;
    is_well(&doctor(&rig, FIVE)?)?;
    let verbose = doctor(&rig, &[FIVE, &["-verbose"]].concat())?;
    let verbose = String::from_utf8(verbose.stdout)?;
    ensure!(verbose.contains("[already-running]"), "{verbose}");
    acctd.finish()?;
    Ok(())
}

/// A note is no trouble: the exit code and the OK are those of a healthy machine.
fn offloads() -> Result<()> {
    let rig = Rig::new()?;
    rules_ok(&rig, &["--apply", FIVE[0]])?;
    let verbose = || -> Result<(Output, String)> {
        let output = doctor(&rig, &[FIVE, &["-verbose"]].concat())?;
        let text = String::from_utf8(output.stdout.clone())?;
        Ok((output, text))
    };
    is_well(&doctor(&rig, FIVE)?)?;
    let (output, text) = verbose()?;
    ensure!(
        text.contains("offloads on lan0 (TSO, GSO") && text.contains("[offloads]"),
        "{text}"
    );
    let quiet = doctor(&rig, FIVE)?;
    ensure!(output.status.code() == quiet.status.code(), "{output:?}");
    let is_kept = clock_sync::is_synchronised() != Some(false);
    ensure!(text.lines().any(|line| line == "OK") == is_kept, "{text}");
    // The commands of docs/rules.md.
    let off = ["gro", "gso", "tso", "lro"].map(|it| [it, "off"]).concat();
    rig.router
        .run(&[&["ethtool", "-K", "lan0"][..], &off].concat())?;
    let (_, text) = verbose()?;
    ensure!(!text.contains("[offloads]"), "{text}");
    Ok(())
}

/// Packets between two ports of a bridge are counted with `br_netfilter`'s setting alone.
fn bridged_packets() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    let other = rig.router.peer()?;
    Veth::new(&rig.router, "port1", &other, "eth0")?;
    add_address(&rig.wire, "wire0", "10.9.0.2/24")?;
    add_address(&other, "eth0", "10.9.0.3/24")?;
    let args = ["-ip4-src-group=5", "-ip4-dst-group=4"];
    let rules = format!(
        "ip link add br0 type bridge mcast_snooping 0; ip link set br0 up;
        ip link set lan0 master br0; ip link set port1 master br0;
        echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables;
        echo 1 > /proc/sys/net/bridge/bridge-nf-call-ip6tables;
        {} rules router --lan br0 --apply {}",
        rig.acctd_path().display(),
        args.join(" ")
    );
    rig.router.run(&["sh", "-e", "-c", &rules])?;
    let counted = || -> Result<u64> {
        let acctd = rig.acctd(&args)?;
        other.run(&["ping", "-q", "-c", "50", "-i", "0.01", "10.9.0.2"])?;
        acctd.finish()?;
        let files = rig.files()?;
        fs::remove_dir_all(rig.log_directory())?;
        // Not what the router says of the multicast groups that it listens to.
        let rows = files.iter().flat_map(|file| &file.rows);
        let rows = rows.filter(|row| !row.ip.is_multicast());
        let sums = rows.fold((0, 0), |(source, dest), row| {
            (source + row.source.packets, dest + row.dest.packets)
        });
        ensure!(sums.0 == sums.1, "{sums:?}");
        Ok(sums.0)
    };
    let line = names_first("bridged packets", &doctor(&rig, &args)?, "bridge-nf-call")?;
    ensure!(line.contains("port to port of br0"), "{line}");
    ensure!(counted()? == 100);
    // The other way that docs/rules.md names.
    let documented = "nft delete table inet acctd
        nft 'table inet acctd { chain forward { type filter hook forward priority -300
            iifname \"br0\" oifname != \"br0\" meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
            iifname != \"br0\" oifname \"br0\" meta nfproto ipv4 log group 4 snaplen 20 queue-threshold 50; }; }'";
    rig.router.run(&["sh", "-e", "-c", documented])?;
    let lines = findings(&doctor(&rig, &args)?)?;
    ensure!(!lines.join(" ").contains("bridge-nf-call"), "{lines:#?}");
    ensure!(counted()? == 0);
    let again = rules.replace("ip link", "true ip link");
    rig.router.run(&["sh", "-e", "-c", &again])?;
    let cure = line
        .split_once("-> ")
        .and_then(|(_, cure)| cure.split_once(','));
    let (cure, _) = cure.context("a command")?;
    rig.router.run(&["sh", "-e", "-c", cure])?;
    is_well(&doctor(&rig, &args)?)?;
    ensure!(counted()? == 0);
    // Frames themselves, at the priority of br_netfilter.
    let is_called = kernel::is_before((6, 12)).is_err();
    for (priority, is_called) in [("0", is_called), ("filter", true)] {
        let own = format!(
            "echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
            nft 'table inet acctd; delete table inet acctd; table bridge own; delete table bridge own; table bridge own {{
                chain log_both {{ log group 5 snaplen 20 queue-threshold 50
                    log group 4 snaplen 20 queue-threshold 50; }}
                chain forward {{ type filter hook forward priority {priority}; meta protocol ip jump log_both; }}; }}'"
        );
        rig.router.run(&["sh", "-e", "-c", &own])?;
        let lines = findings(&doctor(&rig, &args)?)?.join("\n");
        ensure!(lines.contains("[bridge-priority]") != is_called, "{lines}");
        ensure!(counted()? == if is_called { 100 } else { 0 }, "{priority}");
    }
    Ok(())
}

fn missing_capabilities() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    fs::create_dir(rig.log_directory())?;
    crate::errors::set_mode(&rig.log_directory(), 0o777)?;
    let as_user = |capabilities: &str, args: &[&str]| -> Result<Output> {
        let mut command: Command = as_nobody_with(&rig, capabilities)?;
        command.arg("doctor").args(args);
        Ok(command
            .arg("-log-directory")
            .arg(rig.log_directory())
            .output()?)
    };
    names_first("nothing", &as_user("-all", FIVE)?, "no-cap-net-admin")?;
    let crosscheck = [FIVE, &["-crosscheck=lan0"]].concat();
    names_first("no BPF", &as_user("+net_admin", &crosscheck)?, "no-cap-bpf")?;
    rules_ok(&rig, &["--apply", FIVE[0]])?;
    names_first(
        "no nice value",
        &as_user("+net_admin", FIVE)?,
        "no-cap-sys-nice",
    )?;
    // The one that anybody may set, whatever their own is.
    is_well(&as_user("+net_admin", &[FIVE, &["-priority=19"]].concat())?)
}

/// The root of a user namespace may not go beyond the limit of the machine.
fn a_small_receive_buffer() -> Result<()> {
    let limit: usize = fs::read_to_string("/proc/sys/net/core/rmem_max")?
        .trim()
        .parse()?;
    let rig = Rig::with_privilege(Privilege::UserNamespace)?;
    rules_ok(&rig, &["--apply", FIVE[0]])?;
    let output = doctor(&rig, &[FIVE, &["-priority=19"]].concat())?;
    if limit < 16 * 1024 * 1024 {
        let line = names_first("a small buffer", &output, "small-receive-buffer")?;
        ensure!(
            line.contains("sysctl -w net.core.rmem_max=16777216"),
            "{line}"
        );
        Ok(())
    } else {
        is_well(&output)
    }
}

fn the_log_directory() -> Result<()> {
    let rig = Rig::new()?;
    rules_ok(&rig, &["--apply", FIVE[0]])?;
    fs::write(rig.log_directory(), "")?;
    names_first("a file", &doctor(&rig, FIVE)?, "directory-is-a-file")?;
    fs::remove_file(rig.log_directory())?;
    mount_tmpfs(&rig.router, &rig, "size=1m")?;
    names_first("1 MB", &doctor(&rig, FIVE)?, "disk-nearly-full")?;
    fill(&rig)?;
    names_first("full", &doctor(&rig, FIVE)?, "disk-full")?;
    let directory = rig.log_directory().display().to_string();
    rig.router.run(&["mount", "-o", "remount,ro", &directory])?;
    names_first("read-only", &doctor(&rig, FIVE)?, "directory-read-only")?;
    Ok(())
}

fn the_cross_check() -> Result<()> {
    let rig = Rig::new()?;
    Veth::new(&rig.router, "port1", &rig.wire, "wire1")?;
    // As the machine is that this runs on, maybe.
    let forwards = "echo 0 > /proc/sys/net/ipv4/ip_forward";
    rig.router.run(&["sh", "-e", "-c", forwards])?;
    rules_ok(&rig, &[&["--apply"], ALL].concat())?;
    let with = |crosscheck: &str| {
        let crosscheck = format!("-crosscheck={crosscheck}");
        doctor(&rig, &[ALL, &[&crosscheck]].concat())
    };
    is_well(&with("lan0")?)?;
    let line = names_first("none", &with("lan7")?, "crosscheck-no-interface")?;
    ensure!(
        line.starts_with("warning: there is no interface lan7 to cross-check: until it exists, differences are 'not checked' -> nothing, if it is created later"),
        "{line}"
    );
    rig.router.run(&["ip", "link", "set", "lan0", "down"])?;
    names_first("down", &with("lan0")?, "crosscheck-interface-down")?;
    rig.router.run(&["ip", "link", "set", "lan0", "up"])?;
    let disable = "echo 1 > /proc/sys/net/ipv6/conf/lan0/disable_ipv6";
    rig.router.run(&["sh", "-e", "-c", disable])?;
    names_first("IPv6", &with("lan0")?, "crosscheck-ip6-disabled")?;
    rig.router
        .run(&["ip", "link", "add", "br0", "type", "bridge"])?;
    rig.router
        .run(&["ip", "link", "set", "port1", "master", "br0"])?;
    names_first("a port", &with("port1")?, "crosscheck-port-of-bridge")?;
    Ok(())
}
