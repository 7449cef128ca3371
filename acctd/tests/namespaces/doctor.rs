//! `acctd doctor` on set-ups that are broken for real, one after the other: it names the right cause first. On
//! healthy ones it says OK.

use std::process::Output;

use acctd::doctor::clock_sync;
use anyhow::{Context as _, Result, ensure};
use testkit::veth::add_address;

use crate::kernel;
use crate::rig::Rig;
use crate::rules::rules_ok;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "doctor_names_the_right_cause_of_each_broken_ruleset",
        || broken_rulesets(),
    ),
    (
        Needs::Root,
        "doctor_names_the_right_cause_of_rules_of_the_older_iptables",
        the_older_iptables,
    ),
    (Needs::Flowtable, "doctor_names_a_flowtable", a_flowtable),
    (
        Needs::Root,
        "doctor_says_nothing_but_ok_where_all_is_well",
        all_is_well,
    ),
    (
        Needs::Root,
        "doctor_makes_nothing_and_speaks_json",
        nothing_is_made,
    ),
];

pub(crate) const ALL: &[&str] = &[
    "-ip4-dst-group=4",
    "-ip4-src-group=5",
    "-ip6-dst-group=6",
    "-ip6-src-group=7",
];
pub(crate) const FIVE: &[&str] = &["-ip4-src-group=5"];

/// A machine with nobody who keeps its clock is told so, last of all.
const CLOCK: &str = "clock-not-synchronised";

pub(crate) fn doctor(rig: &Rig, args: &[&str]) -> Result<Output> {
    let mut command = rig.router.command(rig.acctd_path());
    command.arg("doctor").args(args);
    command.arg("-log-directory").arg(rig.log_directory());
    Ok(command.output()?)
}

/// What it says, without what it may say of this machine's clock. The exit code must be that of the worst.
pub(crate) fn findings(output: &Output) -> Result<Vec<String>> {
    let text = String::from_utf8(output.stdout.clone())?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let worst = match lines.first().and_then(|line| line.split_once(':')) {
        Some(("error", _)) => 2,
        Some(("warning", _)) => 1,
        _ => 0,
    };
    ensure!(output.status.code() == Some(worst), "{output:?}");
    let n_before = lines.len();
    lines.retain(|line| !line.ends_with(&format!("[{CLOCK}]")));
    let is_kept = clock_sync::is_synchronised() != Some(false);
    ensure!(is_kept == (lines.len() == n_before), "{text}");
    Ok(lines)
}

pub(crate) fn names_first(what: &str, output: &Output, id: &str) -> Result<String> {
    let lines = findings(output)?;
    let first = lines
        .first()
        .with_context(|| format!("{what}: {output:?}"))?;
    ensure!(first.ends_with(&format!("[{id}]")), "{what}: {lines:#?}");
    Ok(first.clone())
}

pub(crate) fn is_well(output: &Output) -> Result<()> {
    let lines = findings(output)?;
    let is_ok = match clock_sync::is_synchronised() {
        Some(false) => lines.is_empty(),
        _ => lines.len() == 1 && lines[0].starts_with("OK: group"),
    };
    ensure!(is_ok, "{lines:#?}");
    Ok(())
}

pub(crate) const NFT_5: &str = "log group 5 snaplen 20 queue-threshold 50";

fn broken() -> Vec<(&'static str, String, &'static [&'static str], &'static str)> {
    let nft = |chain: &str, rules: &str| {
        let rules = rules.replace("LOG5", NFT_5);
        format!("nft 'table inet t {{ chain c {{ {chain}; {rules}; }}; }}'")
    };
    let input = "type filter hook input priority -300";
    let iptables =
        "iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50";
    vec![
        ("no rule at all", "true".into(), FIVE, "no-rule"),
        ("rules for another group", nft(input, "meta nfproto ipv4 log group 50 snaplen 20 queue-threshold 50"), FIVE, "no-rule"),
        ("a chain without a hook", nft("", "meta nfproto ipv4 LOG5").replace("{ ;", "{"), FIVE, "chain-not-hooked"),
        ("behind an accept of all", nft(input, "accept; meta nfproto ipv4 LOG5"), FIVE, "never-reached"),
        ("behind a drop of all, jumped to", format!("{}; nft add chain inet t d; nft add rule inet t d drop; nft insert rule inet t c jump d", nft(input, "meta nfproto ipv4 LOG5")), FIVE, "never-reached"),
        ("behind a drop of all in iptables", format!("iptables -A INPUT -j DROP; {iptables}"), FIVE, "never-reached"),
        ("behind an accept of some", nft(input, "ct state established accept; meta nfproto ipv4 LOG5"), FIVE, "behind-verdict"),
        ("behind an accept of some in iptables", format!("iptables -A INPUT -p tcp -j ACCEPT; {iptables}"), FIVE, "behind-verdict"),
        ("the other family", nft(input, "meta nfproto ipv6 LOG5"), FIVE, "wrong-family"),
        ("the other family by ip6tables", iptables.replace("iptables", "ip6tables"), FIVE, "wrong-family"),
        ("both families", nft(input, "LOG5"), FIVE, "other-family"),
        ("a snaplen below the header", nft(input, "meta nfproto ipv4 log group 5 snaplen 16 queue-threshold 50"), FIVE, "snaplen-too-small"),
        ("a snaplen without room for Ethernet", "nft 'table netdev t { chain c { type filter hook egress device \"lan0\" priority 0; meta protocol ip log group 4 snaplen 20 queue-threshold 50; }; }'".into(), &["-ip4-dst-group=4"], "snaplen-too-small"),
        ("no snaplen", nft(input, "meta nfproto ipv4 log group 5 queue-threshold 50"), FIVE, "no-snaplen"),
        ("no size in iptables", "iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-threshold 50".into(), FIVE, "no-snaplen"),
        ("a threshold of 1", nft(input, "meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 1"), FIVE, "small-threshold"),
        ("a threshold of 1 in iptables", iptables.replace("threshold 50", "threshold 1"), FIVE, "small-threshold"),
        ("a limit", nft(input, "meta nfproto ipv4 limit rate 10/second LOG5"), FIVE, "limited"),
        ("a rule twice", nft(input, "meta nfproto ipv4 LOG5; meta nfproto ipv4 LOG5"), FIVE, "logged-twice"),
        ("a narrow rule behind a wide one", nft(input, "meta nfproto ipv4 LOG5; meta nfproto ipv4 tcp dport 80 LOG5"), FIVE, "logged-twice"),
        ("two hooks of one way", format!("{}; nft 'table inet t {{ chain p {{ type filter hook prerouting priority -300; meta nfproto ipv4 {NFT_5}; }}; }}'", nft(input, "meta nfproto ipv4 LOG5")), FIVE, "logged-twice"),
        ("from one interface and to another", format!("{}; nft 'table inet t {{ chain f {{ type filter hook forward priority -300; oifname \"wan*\" meta nfproto ipv4 {NFT_5}; }}; }}'", nft("type filter hook prerouting priority -300", "iifname \"lan0\" meta nfproto ipv4 LOG5")), FIVE, "logged-twice"),
        ("a chain of type nat", format!("{iptables} -t nat").replace("-A INPUT", "-A POSTROUTING").replace("group 5", "group 4"), &["-ip4-dst-group=4"], "nat-chain"),
        ("behind an accept of the same family", nft(input, "meta nfproto ipv4 accept; meta nfproto ipv4 LOG5"), FIVE, "never-reached"),
        ("nft and iptables", format!("{}; {iptables}", nft(input, "meta nfproto ipv4 LOG5")), FIVE, "logged-twice"),
        ("two groups of one direction", nft(input, "meta nfproto ipv4 LOG5; meta nfproto ipv4 log group 8 snaplen 20 queue-threshold 50"), &["-ip4-src-group=5,8"], "logged-twice"),
        ("the source of what is sent", nft("type filter hook output priority -300", "meta nfproto ipv4 LOG5"), FIVE, "wrong-hook"),
        ("the destination of what is received", nft(input, "meta nfproto ipv4 LOG5"), &["-ip4-dst-group=5"], "wrong-hook"),
        ("the source behind masquerade", format!("{}; nft 'table ip n {{ chain p {{ type nat hook postrouting priority 100; masquerade; }}; }}'", nft("type filter hook postrouting priority 200", "meta nfproto ipv4 LOG5")), FIVE, "address-after-nat"),
        ("the source behind masquerade by iptables", format!("{}; iptables -t nat -A POSTROUTING -j MASQUERADE", nft("type filter hook postrouting priority 200", "meta nfproto ipv4 LOG5")), FIVE, "address-after-nat"),
        ("the destination before masquerade is undone", format!("{}; iptables -t nat -A POSTROUTING -j MASQUERADE", nft("type filter hook prerouting priority -300", "meta nfproto ipv4 LOG5")), &["-ip4-dst-group=5"], "address-before-nat"),
        ("an interface that is not there", nft("type filter hook prerouting priority -300", "iifname \"lan7\" meta nfproto ipv4 LOG5"), FIVE, "no-such-interface"),
        ("the port of a bridge", format!("ip link add br0 type bridge; ip link set lan0 master br0; {}", nft("type filter hook prerouting priority -300", "iifname \"lan0\" meta nfproto ipv4 LOG5")), FIVE, "port-of-bridge"),
        ("IPv6 without a group", format!("ip addr add 2001:db8::1/64 dev lan0 nodad; {}", nft(input, "meta nfproto ipv4 LOG5")), FIVE, "ip6-not-counted"),
        ("one family of two without a rule", nft(input, "meta nfproto ipv4 LOG5"), &["-ip4-src-group=5", "-ip6-src-group=7"], "no-rule"),
    ]
}

fn broken_rulesets() -> Result<()> {
    for (what, commands, args, id) in broken() {
        if commands.contains("hook egress") && kernel::netdev_egress().is_err() {
            continue;
        }
        let rig = Rig::new()?;
        rig.router
            .run(&["sh", "-e", "-c", &commands])
            .with_context(|| what.to_owned())?;
        names_first(what, &doctor(&rig, args)?, id)?;
    }
    // Another program's group is its own affair.
    let rig = Rig::new()?;
    rig.rules(&format!(
        "table inet t {{ chain c {{ type filter hook input priority -300
            meta nfproto ipv4 {NFT_5}
            meta nfproto ipv4 log group 55 snaplen 20 queue-threshold 50
        }}
        }}"
    ))?;
    is_well(&doctor(&rig, FIVE)?)?;
    let verbose = doctor(&rig, &[FIVE, &["-verbose"]].concat())?;
    let verbose = String::from_utf8(verbose.stdout)?;
    ensure!(verbose.contains("[group-unread]"), "{verbose}");
    Ok(())
}

fn the_older_iptables() -> Result<()> {
    let rig = Rig::new()?;
    let legacy = |args: &str| {
        let commands = format!("iptables-legacy {args}");
        rig.router.run(&["sh", "-e", "-c", &commands])
    };
    legacy("-A INPUT -j NFLOG --nflog-group 5 --nflog-range 20 --nflog-threshold 50")?;
    let line = names_first("--nflog-range", &doctor(&rig, FIVE)?, "no-snaplen")?;
    ensure!(line.contains("--nflog-range has no effect"), "{line}");
    legacy("-F")?;
    let rule = "-A INPUT -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50";
    legacy(rule)?;
    is_well(&doctor(&rig, FIVE)?)?;
    legacy(rule)?;
    names_first("twice", &doctor(&rig, FIVE)?, "logged-twice")?;
    Ok(())
}

fn a_flowtable() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet t {
            flowtable f { hook ingress priority 0; devices = { lan0 }; }
            chain c {
                type filter hook forward priority -300
                iifname lan0 meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
                ip protocol tcp flow add @f
            }
        }",
    )?;
    names_first("a flowtable", &doctor(&rig, FIVE)?, "flowtable")?;
    Ok(())
}

/// Also beside what other programs load.
fn all_is_well() -> Result<()> {
    let others = "
        nft 'table inet filter { chain input { type filter hook input priority 0; policy drop;
            ct state established,related accept; iifname lo accept; tcp dport 22 accept; };
            chain forward { type filter hook forward priority 0; policy drop; }; }';
        iptables -t nat -A POSTROUTING -o lan0 -j MASQUERADE;
        iptables -A INPUT -p tcp -m limit --limit 5/min -j LOG;
        iptables -N own; iptables -A FORWARD -j own; iptables -A own -p udp -j ACCEPT";
    let readme = crate::rules_of_readme::block;
    for rules in [
        format!("nft -f - <<'EOF'\n{}\nEOF", readme("nft rules")?),
        readme("iptables rules")?,
        format!("{} rules --apply", env!("CARGO_BIN_EXE_acctd")),
        format!(
            "{} rules --apply --format iptables",
            env!("CARGO_BIN_EXE_acctd")
        ),
        format!(
            "{} rules router --lan lan0 --apply",
            env!("CARGO_BIN_EXE_acctd")
        ),
        format!(
            "{} rules router --lan lan0 --forwarded --apply",
            env!("CARGO_BIN_EXE_acctd")
        ),
        format!(
            "{} rules router --lan lan0 --egress-hook lan0 --apply",
            env!("CARGO_BIN_EXE_acctd")
        ),
        format!(
            "{} rules bridge --lan lan0 --apply",
            env!("CARGO_BIN_EXE_acctd")
        ),
        format!(
            "{} rules router --lan lan0,lo --egress-hook lan0,lo --apply",
            env!("CARGO_BIN_EXE_acctd")
        ),
    ] {
        if rules.contains("--egress-hook") && kernel::netdev_egress().is_err() {
            continue;
        }
        let rig = Rig::new()?;
        add_address(&rig.router, "lan0", "2001:db8::1/64")?;
        // Plain iptables rules stand behind what is in the filter table already.
        let order = if rules.starts_with("iptables") {
            [&rules, others]
        } else {
            [others, &rules]
        };
        for commands in order {
            rig.router
                .run(&["sh", "-e", "-c", commands])
                .with_context(|| rules.clone())?;
        }
        for more in [&[][..], &["-crosscheck=lan0"]] {
            let output = doctor(&rig, &[ALL, more].concat())?;
            is_well(&output).with_context(|| rules.clone())?;
        }
    }
    if kernel::processors().is_err() {
        return Ok(());
    }
    // Spread over groups.
    let rig = Rig::new()?;
    let spread = ["-ip4-src-group=5,6", "-ip4-dst-group=7,8"];
    for format in ["nft", "iptables"] {
        rules_ok(
            &rig,
            &[&["--apply", "--format", format][..], &spread].concat(),
        )?;
        is_well(&doctor(&rig, &spread)?).with_context(|| format)?;
    }
    Ok(())
}

fn nothing_is_made() -> Result<()> {
    let rig = Rig::new()?;
    let json = doctor(&rig, &[FIVE, &["--json"]].concat())?;
    ensure!(json.status.code() == Some(2), "{json:?}");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    ensure!(
        json[0]["severity"] == "error" && json[0]["id"] == "no-rule",
        "{json}"
    );
    ensure!(
        json[0]["cure"] == "acctd rules --apply -ip4-src-group=5",
        "{json}"
    );
    ensure!(!rig.log_directory().exists());
    let usage = rig
        .router
        .command(rig.acctd_path())
        .arg("doctor")
        .output()?;
    ensure!(usage.status.code() == Some(2), "{usage:?}");
    ensure!(String::from_utf8(usage.stderr)?.contains("no NFLOG group given"));
    Ok(())
}
