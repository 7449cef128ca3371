//! `acctd doctor --live`: its numbers equal nft's counters for known traffic, with and without a running
//! acctd, and nothing of it is left behind.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use testkit::process::Process;

use crate::kernel::{self, attach_modes};
use crate::rig::Rig;
use crate::waiting::PATIENCE;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (Needs::Root, "doctor_measures_what_the_rules_count", || {
        numbers_equal_the_counters(&[])
    }),
    (
        Needs::Root,
        "doctor_measures_by_clsact_where_it_is_asked_to",
        || numbers_equal_the_counters(&["--crosscheck-attach=clsact"]),
    ),
    (
        Needs::Root,
        "doctor_measures_beside_a_running_acctd",
        beside_a_running_acctd,
    ),
    (
        Needs::Namespace,
        "doctor_measures_on_the_hooks_without_a_tc_program",
        without_a_program,
    ),
    (
        Needs::Root,
        "doctor_measures_what_a_rule_misses_to_the_packet",
        what_a_rule_misses,
    ),
    (
        Needs::Root,
        "doctor_measures_a_rule_behind_a_drop_and_names_it",
        behind_a_drop,
    ),
    (
        Needs::Root,
        "doctor_measures_rules_of_both_iptables",
        rules_of_iptables,
    ),
    (
        Needs::Root,
        "doctor_takes_away_what_it_has_set_however_it_ends",
        nothing_is_left,
    ),
    (
        Needs::Namespace,
        "doctor_says_what_it_cannot_measure_on",
        nothing_to_measure_on,
    ),
];

const COUNTED: &str = "
    table inet rig {
        counter truth {}
        chain witness {
            type filter hook prerouting priority -310
            iifname lan0 meta nfproto ipv4 counter name truth
        }
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 counter log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv4 drop
        }
    }";
/// The README's rules have no counter.
const UNCOUNTED: &str = "
    table inet rig {
        chain prerouting {
            type filter hook prerouting priority raw
            meta nfproto ipv4 log group 5 snaplen 20 queue-threshold 50
            meta nfproto ipv4 drop
        }
    }";
const FIVE: &str = "-ip4-src-group=5";
const N_PACKETS: u64 = 12_345;

/// A doctor that measures, until it is stopped.
pub(crate) struct Live(Process);

impl Live {
    pub(crate) fn start(rig: &Rig, args: &[&str]) -> Result<Self> {
        let mut command: Command = rig.router.command(rig.acctd_path());
        command
            .args(["doctor", "--json", "--live=10m"])
            .args(args)
            .arg("-log-directory")
            .arg(rig.log_directory())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut own = Self(Process::spawn(&mut command)?);
        let stderr = own.0.child().stderr.take().context("stderr is a pipe")?;
        let mut line = String::new();
        BufReader::new(stderr).read_line(&mut line)?;
        ensure!(line.starts_with("measuring on "), "{line}");
        Ok(own)
    }

    /// Ends it by this signal, and gives what it has measured.
    pub(crate) fn end(mut self, signal: Signal) -> Result<(Option<i32>, Value)> {
        self.0.signal(signal)?;
        let stdout = self.0.child().stdout.take().context("stdout is a pipe")?;
        let text = std::io::read_to_string(stdout)?;
        let status = self.0.wait(PATIENCE)?;
        let json = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"));
        Ok((status.code(), json?))
    }
}

fn send(rig: &Rig, source: &str, count: u64) -> Result<()> {
    let mut traffic = rig.traffic(source, "198.51.100.7/32")?;
    traffic.count = count;
    traffic.rate = 20_000;
    rig.send(&traffic)?;
    Ok(())
}

/// Of the only direction: passed, met, logged.
fn numbers(json: &Value) -> Result<[Option<u64>; 3]> {
    let directions = json["directions"].as_array().context("directions")?;
    let [direction] = &directions[..] else {
        bail!("{json}");
    };
    let groups = direction["groups"].as_array().context("groups")?;
    let sum = |key: &str| {
        groups
            .iter()
            .map(|it| it[key].as_u64())
            .sum::<Option<u64>>()
    };
    Ok([
        direction["passed"]["packets"].as_u64(),
        sum("met"),
        sum("logged"),
    ])
}

fn ensure_nothing_is_left(rig: &Rig) -> Result<()> {
    ensure_no_table(rig)?;
    let qdiscs = rig.router.run(&["tc", "qdisc", "show", "dev", "lan0"])?;
    ensure!(!qdiscs.contains("clsact"), "{qdiscs}");
    let groups = "cat /proc/net/netfilter/nfnetlink_log";
    let groups = rig.router.run(&["sh", "-c", groups])?;
    ensure!(groups.is_empty(), "{groups}");
    Ok(())
}

fn ensure_no_table(rig: &Rig) -> Result<()> {
    let tables = rig.router.run(&["nft", "list", "tables"])?;
    ensure!(!tables.contains("acctd_doctor"), "{tables}");
    Ok(())
}

fn numbers_equal_the_counters(more: &[&str]) -> Result<()> {
    for rules in [COUNTED, UNCOUNTED] {
        let rig = Rig::new()?;
        rig.rules(rules)?;
        send(&rig, "192.0.2.0/28", 100)?;
        let live = Live::start(&rig, &[&[FIVE, "--crosscheck=lan0"], more].concat())?;
        send(&rig, "192.0.2.0/28", N_PACKETS)?;
        let (_, json) = live.end(Signal::INT)?;
        ensure!(numbers(&json)? == [Some(N_PACKETS); 3], "{json}");
        let direction = &json["directions"][0];
        ensure!(direction["missing"] == 0 && direction["passed"]["source"] == "TC, lan0 ingress");
        ensure!(
            direction["hooks"][0]["watched"]["packets"] == N_PACKETS,
            "{json}"
        );
        if rules == COUNTED {
            let truth = rig.counter("truth")?;
            ensure!(truth.packets == N_PACKETS + 100, "{truth:?}");
            let of_100 = 100 * truth.bytes / truth.packets;
            ensure!(
                direction["passed"]["bytes"] == truth.bytes - of_100,
                "{json}"
            );
        }
        ensure_nothing_is_left(&rig)?;
    }
    Ok(())
}

fn beside_a_running_acctd() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(COUNTED)?;
    let listen = format!("--listen=unix:{}", rig.scratch().join("socket").display());
    let acctd = rig.acctd(&["-interval=36500d", FIVE, "--crosscheck=lan0", &listen])?;
    send(&rig, "192.0.2.0/28", 100)?;
    // The last of these are in a batch of the kernel's for a while.
    let end = Instant::now() + PATIENCE;
    let status = ["status", "--json", &listen];
    loop {
        let mut command = rig.router.command(rig.acctd_path());
        let output = command.args(status).output()?;
        let json: Value = serde_json::from_slice(&output.stdout)?;
        if json["groups"][0]["packets"] == 100 {
            break;
        }
        ensure!(Instant::now() < end, "{json}");
        std::thread::sleep(Duration::from_millis(10));
    }
    let live = Live::start(&rig, &[FIVE, "--crosscheck=lan0", &listen])?;
    send(&rig, "192.0.2.0/28", N_PACKETS)?;
    let (_, json) = live.end(Signal::TERM)?;
    ensure!(numbers(&json)? == [Some(N_PACKETS); 3], "{json}");
    let by = json["directions"][0]["groups"][0]["logged_by"].as_str();
    let pid = format!("acctd, pid {}, at ", acctd.pid());
    ensure!(by.is_some_and(|by| by.starts_with(&pid)), "{json}");
    // Without an address it says why it does not know.
    let live = Live::start(&rig, &[FIVE, "--crosscheck=lan0"])?;
    send(&rig, "192.0.2.0/28", N_PACKETS)?;
    let (_, json) = live.end(Signal::INT)?;
    ensure!(
        numbers(&json)? == [Some(N_PACKETS), Some(N_PACKETS), None],
        "{json}"
    );
    ensure!(json.to_string().contains("give its --listen"), "{json}");
    acctd.finish()?;
    ensure!(rig.counter("truth")?.packets == 2 * N_PACKETS + 100);
    // Its cross-check saw what it would have seen without a doctor.
    let summaries = rig.summaries()?;
    let verdicts = &summaries.last().context("a line")?["crosscheck"];
    ensure!(
        verdicts["verdicts"]["uncovered"]["prefixes"]
            .as_u64()
            .unwrap_or(0)
            == 0,
        "{verdicts}"
    );
    ensure_nothing_is_left(&rig)
}

fn without_a_program() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(COUNTED)?;
    let live = Live::start(&rig, &[FIVE, "--crosscheck=nowhere0"])?;
    send(&rig, "192.0.2.0/28", 1_000)?;
    let (_, json) = live.end(Signal::INT)?;
    ensure!(
        json["notes"][0]
            .as_str()
            .is_some_and(|it| it.contains("nowhere0")),
        "{json}"
    );
    ensure!(
        numbers(&json)? == [Some(0), Some(1_000), Some(1_000)],
        "{json}"
    );
    let other = &json["directions"][0]["hooks"][0]["other"]["packets"];
    ensure!(*other == 1_000, "{json}");
    Ok(())
}

fn what_a_rule_misses() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            counter missed {}
            chain prerouting {
                type filter hook prerouting priority raw
                ip saddr 203.0.113.0/24 counter name missed
                ip saddr != 203.0.113.0/24 counter log group 5 snaplen 20 queue-threshold 50
                meta nfproto ipv4 drop
            }
        }",
    )?;
    let live = Live::start(&rig, &[FIVE, "--crosscheck=lan0"])?;
    send(&rig, "192.0.2.0/28", N_PACKETS)?;
    send(&rig, "203.0.113.9/32", 17)?;
    send(&rig, "192.0.2.0/28", N_PACKETS)?;
    let (_, json) = live.end(Signal::INT)?;
    ensure!(rig.counter("missed")?.packets == 17);
    let logged = Some(2 * N_PACKETS);
    ensure!(
        numbers(&json)? == [Some(2 * N_PACKETS + 17), logged, logged],
        "{json}"
    );
    ensure!(json["directions"][0]["missing"] == 17, "{json}");
    Ok(())
}

fn behind_a_drop() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(
        "table inet rig {
            chain prerouting {
                type filter hook prerouting priority raw
                meta nfproto ipv4 drop
                meta nfproto ipv4 counter log group 5 snaplen 20 queue-threshold 50
            }
        }",
    )?;
    let live = Live::start(&rig, &[FIVE, "--crosscheck=lan0"])?;
    send(&rig, "192.0.2.0/28", N_PACKETS)?;
    let (code, json) = live.end(Signal::INT)?;
    ensure!(
        numbers(&json)? == [Some(N_PACKETS), Some(0), Some(0)],
        "{json}"
    );
    ensure!(
        json["directions"][0]["explained_by"][0] == "never-reached",
        "{json}"
    );
    ensure!(json["findings"][0]["id"] == "never-reached", "{json}");
    ensure!(code == Some(2), "{code:?}");
    Ok(())
}

fn rules_of_iptables() -> Result<()> {
    for program in ["iptables-legacy", "iptables-nft"] {
        let rig = Rig::new()?;
        let rules = format!(
            "{program} -t raw -A PREROUTING -j NFLOG --nflog-group 5 --nflog-size 20 --nflog-threshold 50
             {program} -t raw -A PREROUTING -j DROP"
        );
        rig.router.run(&["sh", "-e", "-c", &rules])?;
        send(&rig, "192.0.2.0/28", 100)?;
        let live = Live::start(&rig, &[FIVE, "--crosscheck=lan0"])?;
        send(&rig, "192.0.2.0/28", N_PACKETS)?;
        let (_, json) = live.end(Signal::INT)?;
        ensure!(numbers(&json)? == [Some(N_PACKETS); 3], "{program}: {json}");
    }
    Ok(())
}

fn nothing_is_left() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(UNCOUNTED)?;
    let args = [FIVE, "--crosscheck=lan0"];
    for way in attach_modes() {
        let how = format!("--crosscheck-attach={way}");
        for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
            Live::start(&rig, &[&args[..], &[&how]].concat())?.end(signal)?;
            ensure_nothing_is_left(&rig)?;
        }
    }
    // A reader that has gone.
    let mut command = rig.router.command(rig.acctd_path());
    command.args(["doctor", "--live=100ms"]).args(args);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    child.wait()?;
    ensure_nothing_is_left(&rig)?;
    let mut command = rig.router.command(rig.acctd_path());
    command.env("ACCTD_PANIC_AT", "measuring");
    command.args(["doctor", "--live=100ms"]).args(args);
    let output = command.output()?;
    let is_built_so = cfg!(feature = "fault-points");
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("ACCTD_PANIC_AT is measuring")
            == is_built_so
    );
    ensure_nothing_is_left(&rig)?;
    // A killed one's table goes with the next one, and with the rules.
    for next in [
        &["doctor", "--live=10ms", FIVE, "--crosscheck=lan0"][..],
        &["rules", "--remove"],
    ] {
        let mut live = Live::start(&rig, &args)?;
        live.0.signal(Signal::KILL)?;
        live.0.wait(PATIENCE)?;
        let tables = rig.router.run(&["nft", "list", "tables"])?;
        ensure!(tables.contains("acctd_doctor"), "{tables}");
        rig.router.command(rig.acctd_path()).args(next).output()?;
        // A filter of clsact goes with the next cross-check.
        if next[0] == "doctor" || kernel::tcx().is_ok() {
            ensure_nothing_is_left(&rig)?;
        } else {
            ensure_no_table(&rig)?;
        }
    }
    Ok(())
}

fn nothing_to_measure_on() -> Result<()> {
    let rig = Rig::new()?;
    let doctor = |args: &[&str]| {
        rig.router
            .command(rig.acctd_path())
            .arg("doctor")
            .args(args)
            .output()
    };
    let output = doctor(&["--live=1s", FIVE])?;
    crate::errors::complains(&output, 1, "name those to measure with --crosscheck")?;
    for live in ["--live=0s", "--live=10", "--live=25h"] {
        let output = doctor(&[live, FIVE])?;
        ensure!(output.status.code() == Some(2), "{output:?}");
    }
    // The one with the default route, in words.
    testkit::veth::add_address(&rig.router, "lan0", "10.1.0.1/24")?;
    rig.router
        .run(&["ip", "route", "add", "default", "via", "10.1.0.2"])?;
    let output = doctor(&["--live=10ms", FIVE])?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.starts_with("measured for 0.0 s on lan0; "), "{text}");
    ensure!(
        text.contains("group 5 has no rule") && text.contains("[no-rule]"),
        "{text}"
    );
    Ok(())
}
