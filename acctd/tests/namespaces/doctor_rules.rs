//! `acctd doctor` on rules of others: what it cannot see it says, and what it does not understand it does
//! not judge.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};

use crate::doctor::{FIVE, NFT_5, doctor, findings, is_well, names_first};
use crate::rig::Rig;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "doctor_names_what_rules_leave_out",
        what_is_left_out,
    ),
    (
        Needs::Root,
        "doctor_is_content_with_rules_that_log_all",
        what_is_well,
    ),
    (
        Needs::Root,
        "doctor_says_one_cause_once_for_all_groups",
        one_cause,
    ),
    (
        Needs::Root,
        "doctor_names_forwarded_packets_that_no_rule_sees",
        forwarding,
    ),
    (
        Needs::Root,
        "doctor_reads_iptables_where_nft_does_not_show_it",
        what_nft_does_not_show,
    ),
    (
        Needs::Root,
        "doctor_says_which_rules_it_cannot_read_and_why",
        what_cannot_be_read,
    ),
    (
        Needs::Root,
        "doctor_names_a_packet_logged_in_a_bridge_and_in_ip",
        a_bridge,
    ),
];

const NFLOG_5: &str = "-j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50";

/// A chain on input, with rules in which `LOG5` stands for the one that logs.
fn nft(rules: &str) -> String {
    base("filter", "input", 0, rules)
}

fn base(name: &str, hook: &str, priority: i32, rules: &str) -> String {
    let log = format!("meta nfproto ipv4 {NFT_5}");
    let rules = rules.replace("LOG5", &log);
    format!(
        "nft 'table inet {name} {{ chain c {{ type filter hook {hook} priority {priority}; {rules}; }}; }}'"
    )
}

fn of(commands: &str, args: &[&str]) -> Result<Output> {
    let rig = Rig::new()?;
    rig.router
        .run(&["sh", "-e", "-c", commands])
        .with_context(|| commands.to_owned())?;
    doctor(&rig, args)
}

/// What is set up, the id that comes first, and a part of the line.
fn left_out() -> Vec<(String, &'static str, &'static str)> {
    let iptables = |rules: &str| {
        let rules = rules.replace("LOG5", NFLOG_5);
        let commands = rules.split("; ").map(|rule| format!("iptables {rule}; "));
        commands.collect::<String>()
    };
    vec![
        // What stops all is named before what stops some.
        (nft("tcp dport 23 drop; ct state established,related accept; drop; LOG5"), "never-reached", "'drop'"),
        (nft("tcp dport 23 drop; udp dport 53 drop; ct state established,related accept; LOG5"), "behind-verdict", "packets of established connections do not reach the rule, because 'ct state established,related accept'"),
        (iptables("-A INPUT -j REJECT; -A INPUT LOG5"), "never-reached", "-j REJECT"),
        (iptables("-A INPUT -j NFQUEUE --queue-num 1; -A INPUT LOG5"), "never-reached", "NFQUEUE"),
        (iptables("-t mangle -A PREROUTING -p tcp -j TPROXY --on-port 80; -t mangle -A PREROUTING LOG5"), "behind-verdict", "some packets"),
        // Before it, in other chains.
        (format!("{}; {}", base("r", "prerouting", -300, "ip saddr 10.1.0.0/16 drop"), nft("LOG5")), "behind-verdict", "'ip saddr 10.1.0.0/16 drop' (chain c of table inet r, handle 2) drops them earlier, on prerouting at priority -300"),
        (format!("{}; {}", base("r", "prerouting", -300, "drop"), nft("LOG5")), "never-reached", "on prerouting"),
        (format!("{}; {}", base("r", "input", -10, "policy drop; tcp dport 22 accept"), nft("LOG5")), "behind-verdict", "'policy drop'"),
        (format!("{}; {}", base("r", "input", -10, "policy drop"), nft("LOG5")), "never-reached", "'policy drop'"),
        (format!("nft 'table netdev n {{ chain c {{ type filter hook ingress device lan0 priority 0; ip saddr 10.1.0.0/16 drop; }}; }}'; {}", nft("LOG5")), "behind-verdict", "on ingress"),
        // For this host, for all of its network, and forwarded.
        (format!("ip addr add 10.9.0.1/24 dev lan0; {}; {}", base("r", "prerouting", -300, "ip daddr { 10.9.0.1, 10.9.0.2 } drop"), nft("LOG5")), "behind-verdict", "'ip daddr { 10.9.0.1, 10.9.0.2 } drop'"),
        (format!("ip addr add 10.9.0.1/24 dev lan0; {}; {}", base("r", "prerouting", -300, "ip daddr 10.9.0.255 drop"), nft("LOG5")), "behind-verdict", "'ip daddr 10.9.0.255 drop'"),
        (format!("ip addr add 10.9.0.1/24 dev lan0; {}; {}", base("r", "prerouting", -300, "ip daddr 224.0.0.0/4 drop"), nft("LOG5")), "behind-verdict", "'ip daddr 224.0.0.0/4 drop'"),
        (format!("ip addr add 10.9.0.1/24 dev lan0; {}; {}", base("r", "prerouting", -300, "ip daddr 10.9.0.2 drop"), base("t", "forward", 0, "LOG5")), "behind-verdict", "'ip daddr 10.9.0.2 drop'"),
        // Of one priority, what is loaded later comes first.
        (format!("{}; {}", nft("LOG5"), base("r", "input", 0, "drop")), "never-reached", "'drop' (chain c of table inet r"),
        // A limit of all packets is there to be met, and one of each source where it is low.
        (nft("limit rate over 1000/second drop; LOG5"), "behind-verdict", "packets that match 'limit rate over 1000/second' do not reach the rule, because 'limit rate over 1000/second drop' (chain c of table inet filter, handle 2) drops them earlier"),
        (nft("ct count over 1000 drop; LOG5"), "behind-verdict", "'ct count over 1000'"),
        (iptables("-A INPUT -m hashlimit --hashlimit-above 10/sec --hashlimit-mode srcip --hashlimit-name h -j DROP; -A INPUT LOG5"), "behind-verdict", "packets that match '-m hashlimit --hashlimit-above 10/sec"),
        // What the rule itself leaves out.
        (nft("ct state new LOG5"), "some-states", "only packets of state new"),
        (nft("ct state established LOG5"), "some-states", "only packets of state established"),
        (nft("numgen inc mod 2 == 0 LOG5"), "limited", "numgen inc mod 2"),
        (iptables("-A INPUT -m statistic --mode random --probability 0.5 LOG5"), "limited", "--probability 0.5"),
        (nft("quota until 1 mbytes LOG5"), "limited", "quota until 1 mbytes"),
        (nft("meta l4proto tcp LOG5"), "some-protocols", "only tcp"),
        (iptables("-A INPUT -p tcp LOG5"), "some-protocols", "only tcp"),
        (nft("LOG5").replace("chain c", "set e { type ipv4_addr; }; chain c").replace("meta nfproto ipv4 log", "ip saddr @e log"), "empty-set", "set e is empty"),
        (nft("LOG5").replace("chain c", "set d { type ipv4_addr; flags timeout; elements = { 10.0.0.1 timeout 1h }; }; chain c").replace("meta nfproto ipv4 log", "ip saddr @d log"), "dynamic-set", "set d"),
        (nft("LOG5").replace("chain c", "flags dormant; chain c"), "dormant-table", "dormant"),
        (nft("iifname { \"lan7\", \"lan8\" } LOG5"), "no-such-interface", "lan7, lan8"),
        (nft("LOG5").replace("chain c", "set i { type ifname; elements = { \"lan7\" }; }; chain c").replace("meta nfproto", "iifname @i meta nfproto"), "no-such-interface", "lan7"),
        (nft("oifname \"lan0\" LOG5"), "matches-nothing", "no packet on input"),
        (base("t", "prerouting", -300, "ct state established LOG5"), "matches-nothing", "ct state established"),
        // Twice.
        (nft("LOG5; tcp dport 80 accept; LOG5"), "logged-twice", "nft delete rule inet filter c handle"),
        (nft("ip saddr 10.0.0.1 LOG5; LOG5"), "logged-twice", "group 5: packets match"),
        (iptables("-N mine; -A mine LOG5; -A mine -j RETURN; -A INPUT -j mine; -A INPUT LOG5"), "logged-twice", "chain INPUT of table ip filter"),
    ]
}

fn what_is_left_out() -> Result<()> {
    for (commands, id, part) in left_out() {
        let line = names_first(&commands, &of(&commands, FIVE)?, id)?;
        ensure!(line.contains(part), "{commands}: {line}");
    }
    Ok(())
}

fn what_is_well() -> Result<()> {
    let iptables = |rules: &str| {
        let rules = rules.replace("LOG5", NFLOG_5);
        let commands = rules.split("; ").map(|rule| format!("iptables {rule}; "));
        commands.collect::<String>()
    };
    for commands in [
        // What is too much is no packet that one counts on.
        nft("add @s { ip saddr limit rate over 1000/second } drop; LOG5").replace(
            "chain c",
            "set s { type ipv4_addr; flags dynamic; }; chain c",
        ),
        nft("quota over 1000 mbytes drop; LOG5"),
        iptables(
            "-A INPUT -m hashlimit --hashlimit-above 1000/sec --hashlimit-mode srcip --hashlimit-name h -j DROP; -A INPUT -p tcp -m connlimit --connlimit-above 1000 -j REJECT; -A INPUT LOG5",
        ),
        // Logged before it is taken.
        nft("tcp dport 22 LOG5 accept; LOG5"),
        nft("LOG5 accept; LOG5"),
        nft("LOG5 return; LOG5"),
        iptables("-A INPUT -p tcp LOG5; -A INPUT -p tcp -j ACCEPT; -A INPUT LOG5"),
        // What is for others does not come to input.
        format!(
            "ip addr add 10.9.0.1/24 dev lan0; {}; {}",
            base("r", "prerouting", -300, "ip daddr 10.9.0.2 drop"),
            nft("LOG5")
        ),
        // In other chains, what accepts ends nothing, and what is dropped behind is counted.
        format!(
            "{}; {}",
            base("r", "prerouting", -300, "accept"),
            nft("LOG5")
        ),
        format!("{}; {}", base("r", "input", 10, "drop"), nft("LOG5")),
        // Nothing is established there yet.
        format!(
            "{}; {}",
            base("r", "prerouting", -300, "ct state established drop"),
            nft("LOG5")
        ),
        // Its payload begins with the IP header.
        format!(
            "nft 'table netdev n {{ chain c {{ type filter hook ingress device lan0 priority 0; meta protocol ip {NFT_5}; }}; }}'"
        ),
        // Of another interface.
        format!(
            "nft 'table ip n {{ chain p {{ type nat hook postrouting priority 100; oifname \"wan0\" masquerade; }}; }}'; {}",
            base("t", "postrouting", 200, "oifname \"lan0\" LOG5")
        ),
        nft("iifname { \"lan0\", \"lan7\" } LOG5"),
        nft("meta cpu { 0-1023 } LOG5"),
    ] {
        is_well(&of(&commands, FIVE)?).with_context(|| commands.clone())?;
    }
    Ok(())
}

const ALL: &[&str] = &[
    "-ip4-dst-group=4",
    "-ip4-src-group=5",
    "-ip6-dst-group=6",
    "-ip6-src-group=7",
];

fn one_cause() -> Result<()> {
    let lines = findings(&of("true", ALL)?)?;
    ensure!(
        lines.len() == 1
            && lines[0].starts_with("error: groups 4-7: no rule")
            && lines[0].contains(
                "-> acctd rules --apply -ip4-dst-group=4 -ip6-dst-group=6 -ip4-src-group=5 -ip6-src-group=7"
            ),
        "{lines:#?}"
    );
    let rules = "drop; meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50; meta nfproto ipv6 log group 7 snaplen 40 queue-threshold 50";
    let lines = findings(&of(&nft(rules), &ALL[1..])?)?;
    let dead: Vec<&String> = lines
        .iter()
        .filter(|line| line.ends_with("[never-reached]"))
        .collect();
    ensure!(
        dead.len() == 1 && dead[0].contains("groups 5,7"),
        "{lines:#?}"
    );
    // The rules that are there go first: both would log.
    ensure!(
        dead[0].contains("nft delete rule inet filter c handle 3; nft delete rule inet filter c handle 4; acctd rules --apply"),
        "{lines:#?}"
    );
    Ok(())
}

fn forwarding() -> Result<()> {
    let rig = Rig::new()?;
    let apply = |args: &[&str]| -> Result<()> {
        let mut command = rig.router.command(rig.acctd_path());
        command.arg("rules").args(args).arg("--apply").args(ALL);
        ensure!(command.status()?.success());
        Ok(())
    };
    let set = |value: &str| {
        let command = format!("echo {value} > /proc/sys/net/ipv4/ip_forward");
        rig.router.run(&["sh", "-e", "-c", &command])
    };
    set("0")?;
    apply(&["host"])?;
    let output = doctor(&rig, ALL)?;
    is_well(&output)?;
    let verbose = String::from_utf8(output.stdout)?;
    let ok =
        "OK: groups 4-7 see what this host receives and sends; forwarded packets are not in them\n";
    ensure!(!verbose.contains("OK") || verbose == ok, "{verbose}");
    set("1")?;
    rig.router
        .run(&["sh", "-e", "-c", "ip link add br0 type bridge"])?;
    let line = names_first("a router", &doctor(&rig, ALL)?, "forwarded-not-counted")?;
    ensure!(
        line.contains("groups 4,5") && line.contains("acctd rules router --lan …"),
        "{line}"
    );
    apply(&["router", "--lan", "lan0"])?;
    is_well(&doctor(&rig, ALL)?)
}

/// A script in front of a program, or in its place.
fn wrap(rig: &Rig, program: &str, script: &str) -> Result<()> {
    let directory = rig.scratch().join("bin");
    fs::create_dir_all(&directory)?;
    let path = directory.join(program);
    fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// With those scripts, and with `before` run in a mount namespace.
fn doctor_with(rig: &Rig, before: &str) -> Result<Output> {
    let script = format!(
        "{before} PATH={}:$PATH exec {} doctor {} -log-directory {}",
        rig.scratch().join("bin").display(),
        rig.acctd_path().display(),
        FIVE[0],
        rig.log_directory().display()
    );
    let mut command = rig.router.command("unshare");
    command.args(["-m", "sh", "-e", "-c", &script]);
    Ok(command.output()?)
}

/// As nft before 1.0.6 prints it.
const NULL: &str = r#"/usr/sbin/nft "$@" | sed -E 's/"xt": \{[^}]*\}/"xt": null/g'"#;
/// There is no nft.
const NO_NFT: &str = "mount -t tmpfs none /mnt; mkdir /mnt/sbin; cp -a /usr/sbin/ip*tables* /usr/sbin/xtables* /mnt/sbin; mount --bind /mnt/sbin /usr/sbin;";

fn what_nft_does_not_show() -> Result<()> {
    let rig = Rig::new()?;
    let rules = format!(
        "iptables -A INPUT -m conntrack --ctstate INVALID -j DROP; iptables -I INPUT {NFLOG_5}"
    );
    rig.router.run(&["sh", "-e", "-c", &rules])?;
    wrap(&rig, "nft", NULL)?;
    is_well(&doctor_with(&rig, "")?)?;
    // Where it is behind that, all of it is known too.
    let behind = format!(
        "iptables -F; iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables -A INPUT {NFLOG_5}"
    );
    rig.router.run(&["sh", "-e", "-c", &behind])?;
    let line = names_first("null", &doctor_with(&rig, "")?, "behind-verdict")?;
    ensure!(
        line.contains("-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT")
            && line.contains("-> iptables -t filter -D INPUT -j NFLOG"),
        "{line}"
    );
    fs::remove_dir_all(rig.scratch().join("bin"))?;
    let line = names_first("no nft", &doctor_with(&rig, NO_NFT)?, "behind-verdict")?;
    ensure!(line.contains("--ctstate ESTABLISHED"), "{line}");
    // A group without a rule: there may be one that nobody can see.
    rig.router.run(&["iptables", "-F"])?;
    let line = names_first("no rule", &doctor_with(&rig, NO_NFT)?, "rules-unreadable")?;
    ensure!(line.contains("is visible without nft"), "{line}");
    Ok(())
}

fn what_cannot_be_read() -> Result<()> {
    let rig = Rig::new()?;
    let rules = format!("iptables -A INPUT -m recent --set {NFLOG_5}");
    rig.router.run(&["sh", "-e", "-c", &rules])?;
    wrap(&rig, "nft", NULL)?;
    wrap(&rig, "iptables-nft-save", "echo it is broken >&2; exit 4")?;
    let line = names_first("null", &doctor_with(&rig, "")?, "rules-unreadable")?;
    ensure!(
        line.contains("1 in table ip filter") && line.contains("it is broken"),
        "{line}"
    );
    // The older one, whose rules nft never shows.
    let rig = Rig::new()?;
    let rules = format!("iptables-legacy -A INPUT {NFLOG_5}");
    rig.router.run(&["sh", "-e", "-c", &rules])?;
    wrap(
        &rig,
        "iptables-legacy-save",
        "echo it is broken >&2; exit 4",
    )?;
    let lines = findings(&doctor_with(&rig, "")?)?;
    ensure!(
        lines.len() == 1
            && lines[0].ends_with("[rules-unreadable]")
            && lines[0].contains("(filter): iptables-legacy-save: it is broken")
            && !lines[0].contains("rules --apply"),
        "{lines:#?}"
    );
    Ok(())
}

fn a_bridge() -> Result<()> {
    let bridge = "ip link add br0 type bridge; ip link set lan0 master br0; nft 'table bridge b { chain p { type filter hook prerouting priority 0; meta protocol ip log group 5 snaplen 20 queue-threshold 50; }; }'";
    let both = format!("{bridge}; {}", base("t", "prerouting", -300, "LOG5"));
    let line = names_first("both", &of(&both, FIVE)?, "logged-twice")?;
    ensure!(line.contains("table bridge b"), "{line}");
    is_well(&of(bridge, FIVE)?)?;
    let elsewhere = format!(
        "{bridge}; {}",
        base("t", "prerouting", -300, "iifname != \"br0\" LOG5")
    );
    is_well(&of(&elsewhere, FIVE)?)
}
