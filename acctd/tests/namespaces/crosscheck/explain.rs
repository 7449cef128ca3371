//! `acctd explain`: rules with a hole as real networks have them, traffic of which they see one flow and miss another,
//! and the cause.

mod holes;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testkit::craft::{Ethernet, Frame, Ipv4};
use testkit::netns::Privilege;
use testkit::process::Process;
use testkit::traffic::TrafficArgs;
use testkit::usage;

use super::Router;
use crate::errors::{as_nobody_with, set_mode};
use crate::kernel::scaled;
use crate::rig::{Acctd, LOG_AND_DROP, Rig};
use crate::waiting::{wait_until, wait_until_all_is_read};
use crate::{Case, Needs};

pub(super) fn cases() -> Vec<Case> {
    [CASES, holes::CASES].concat()
}

const CASES: &[Case] = &[
    (Needs::Root, "explain_says_what_it_needs", needs),
    (
        Needs::Root,
        "explain_a_rule_without_a_hole_finds_nothing",
        nothing,
    ),
    (
        Needs::Since((5, 12)),
        "explain_traces_a_flow_and_leaves_nothing_however_it_ends",
        trace,
    ),
    (
        Needs::Alone(&Needs::Root),
        "explain_in_a_flood_samples_a_part_and_loses_nothing",
        flood,
    ),
    (
        Needs::Root,
        "explain_by_itself_what_is_uncovered_once",
        by_itself,
    ),
];

const PAYLOAD: &[u8] = &[7; 100];
const WANTED: [u8; 4] = [10, 255, 0, 1];

/// What `acctd explain` says.
struct Explained {
    code: Option<i32>,
    json: Value,
}

/// Runs it beside acctd with these flags, while `traffic` happens over and over.
fn explain(
    rig: &Rig,
    flags: &[&str],
    prefixes: &[&str],
    mut traffic: impl FnMut() -> Result<()>,
) -> Result<Explained> {
    let socket = format!("unix:{}", rig.scratch().join("acctd.sock").display());
    let listen = format!("-listen={socket}");
    let acctd = rig.acctd(&[flags, &[listen.as_str()]].concat())?;
    let mut command: Command = rig.router.command(rig.acctd_path());
    command
        .args([
            "explain", "--json", "--check", "--for=2s", "--listen", &socket,
        ])
        .args(prefixes)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut asking = Process::spawn(&mut command)?;
    let status = loop {
        traffic()?;
        if let Some(status) = asking.try_wait()? {
            break status;
        }
        thread::sleep(Duration::from_millis(20));
    };
    let mut text = [String::new(), String::new()];
    let child = asking.child();
    let stdout = child.stdout.take().context("stdout is a pipe")?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    text[0] = std::io::read_to_string(stdout)?;
    text[1] = std::io::read_to_string(stderr)?;
    acctd.finish()?;
    let json = serde_json::from_str(&text[0]).with_context(|| format!("no JSON: {text:?}"))?;
    Ok(Explained {
        code: status.code(),
        json,
    })
}

impl Explained {
    /// The sum of a counter over the flows that passed with this address.
    fn passed(&self, address: &str, counter: &str) -> u64 {
        let flows = self.json["report"]["passed"]
            .as_array()
            .into_iter()
            .flatten();
        let of = flows.filter(|it| it["source"] == address || it["dest"] == address);
        of.filter_map(|it| it[counter].as_u64()).sum()
    }

    /// All packets with the first address were seen by both, and none of those with the second; `id` is the only cause,
    /// and its cure is a command that nft accepts, if it is one.
    fn ensure_hole(&self, covered: &str, missed: &str, id: &str) -> Result<()> {
        let both = self.passed(covered, "by_both");
        let alone = self.passed(covered, "by_tc_alone");
        ensure!(
            covered.is_empty() || (both > 0 && alone == 0),
            "{both} {alone} {:#}",
            self.json
        );
        let missed_both = self.passed(missed, "by_both");
        ensure!(missed_both == 0, "{:#}", self.json);
        self.ensure_cause(missed, id)
    }

    fn ensure_cause(&self, missed: &str, id: &str) -> Result<()> {
        ensure!(self.passed(missed, "by_tc_alone") > 0, "{:#}", self.json);
        let causes = self.json["causes"].as_array().context("causes")?;
        let ids: Vec<&str> = causes.iter().filter_map(|it| it["id"].as_str()).collect();
        ensure!(ids == [id], "{ids:?} != {id}: {:#}", self.json);
        let check = &causes[0]["check"];
        ensure!(check.is_null() || *check == "ok", "{:#}", causes[0]);
        ensure!(self.code == Some(1), "{:?}", self.code);
        Ok(())
    }
}

fn udp(rig: &Rig, source: u8, dest: [u8; 4]) -> Frame {
    let packet = Ipv4::udp([10, 1, 0, source], dest, PAYLOAD).packet();
    Ethernet::to(rig.veth.near_mac).frame(&packet)
}

const SOURCE: [&str; 2] = ["-ip4-src-group=5", "-crosscheck=lan0"];

/// Without acctd, without a cross-check, and over TCP.
fn needs() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::Root)?;
    let socket = format!("unix:{}", rig.scratch().join("acctd.sock").display());
    let ask = |address: &str| -> Result<String> {
        let mut command: Command = rig.router.command(rig.acctd_path());
        let done = command.args(["explain", "--listen", address]).output()?;
        ensure!(done.status.code() == Some(1), "{done:?}");
        Ok(String::from_utf8(done.stderr)?)
    };
    let absent = ask(&socket)?;
    ensure!(
        absent.contains("needs an acctd that runs with --crosscheck and --listen unix:PATH"),
        "{absent}"
    );
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    let listen = format!("-listen={socket},127.0.0.1:9745");
    let acctd = rig.acctd(&["-ip4-src-group=5", &listen])?;
    let unchecked = ask(&socket)?;
    ensure!(
        unchecked.contains("start it with --crosscheck IFACE"),
        "{unchecked}"
    );
    let by_tcp = ask("127.0.0.1:9745")?;
    ensure!(by_tcp.contains("405 Method Not Allowed"), "{by_tcp}");
    acctd.finish()?;
    let mut command: Command = rig.router.command(rig.acctd_path());
    let done = command.args(["explain", "here"]).output()?;
    ensure!(done.status.code() == Some(2), "{done:?}");
    Ok(())
}

fn nothing() -> Result<()> {
    let router = Router::new(&super::COMPLETE)?;
    let rig = &router.rig;
    let frames = [udp(rig, 1, WANTED), udp(rig, 2, WANTED)];
    let flags = [
        "-ip4-src-group=5",
        "-ip4-dst-group=4",
        "-crosscheck=lan0,wan0",
    ];
    let explained = explain(rig, &flags, &[], || rig.send_frames(&frames).map(drop))?;
    let totals = &explained.json["report"]["totals"];
    for none in [
        "by_tc_alone",
        "by_nflog_alone",
        "by_nflog_twice",
        "samples_lost",
    ] {
        ensure!(totals[none] == 0, "{:#}", explained.json);
    }
    ensure!(totals["by_both"].as_u64() > Some(10), "{totals}");
    ensure!(explained.code == Some(0), "{:?}", explained.code);
    Ok(())
}

/// The sample is bounded, and nothing is held against NFLOG that its reader left out.
fn flood() -> Result<()> {
    const MOST_MEMORY: u64 = 64 * 1024 * 1024;
    let rig = Rig::with_privilege(Privilege::Root)?;
    rig.rules(LOG_AND_DROP)?;
    let socket = format!("unix:{}", rig.scratch().join("acctd.sock").display());
    let listen = format!("-listen={socket}");
    let acctd = rig.acctd(&["-ip4-src-group=5", "-crosscheck=lan0", &listen])?;
    let load = TrafficArgs {
        count: u64::MAX,
        rate: scaled(100_000),
        ..rig.traffic("10.1.0.0/24", "10.255.0.1/32")?
    };
    let traffic = rig.send_in_background(&load)?;
    let mut command: Command = rig.router.command(rig.acctd_path());
    let done = command
        .args(["explain", "--json", "--for=3s", "--listen", &socket])
        .output()?;
    drop(traffic);
    let memory = usage::peak_memory(acctd.pid())?;
    wait_until_all_is_read(&acctd)?;
    acctd.finish()?;
    let json: Value = serde_json::from_slice(&done.stdout).with_context(|| format!("{done:?}"))?;
    let totals = &json["report"]["totals"];
    let sampled = totals["sampled"].as_u64().context("sampled")?;
    ensure!((100..=3_300).contains(&sampled), "{totals}");
    ensure!(totals["by_both"].as_u64() > Some(sampled / 2), "{totals}");
    for none in [
        "by_tc_alone",
        "by_nflog_alone",
        "by_nflog_twice",
        "samples_lost",
    ] {
        ensure!(totals[none] == 0, "{totals}");
    }
    ensure!(rig.summed("lost")? == 0);
    ensure!(memory < MOST_MEMORY, "{memory}");
    Ok(())
}

/// With the rights of the unit: two prefixes are uncovered, one after the other. The causes are in the log and in
/// `intervals.jsonl`, each once.
fn by_itself() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain forward { type filter hook forward priority 0
            ip saddr 10.1.0.1 log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    set_mode(rig.scratch(), 0o777)?;
    let mut command = as_nobody_with(rig, "+net_admin,+bpf,+perfmon")?;
    command.arg("-log-directory").arg(rig.log_directory());
    command.args(SOURCE);
    let acctd = Acctd::spawn(command.args(["-interval=1s", "-priority=0", "-explain"]))?;
    acctd.wait_for_line("Started accounting")?;
    let explained = || -> Result<Vec<Value>> {
        let lines = rig.summaries()?.into_iter();
        let of = |line: Value| line["crosscheck"]["explained"].as_array().cloned();
        Ok(lines.filter_map(of).flatten().collect())
    };
    for (n_before, missed) in [(0, 2), (1, 3)] {
        wait_until("the prefix is explained", || {
            rig.send_frames(&[udp(rig, 1, WANTED), udp(rig, missed, WANTED)])?;
            Ok(rig.log_directory().join("intervals.jsonl").exists()
                && explained()?.len() > n_before)
        })?;
    }
    let all = explained()?;
    for (one, missed) in all.iter().zip(["10.1.0.2", "10.1.0.3"]) {
        ensure!(one["prefixes"] == json!([format!("{missed}/32")]), "{one}");
        ensure!(one["sampled"].as_u64() > Some(0), "{one}");
        let cause = &one["causes"][0];
        ensure!(cause["id"] == "address", "{one}");
        ensure!(
            cause["packets"].as_u64() <= one["sampled"].as_u64(),
            "{one}"
        );
        let flow = format!("udp {missed}:");
        ensure!(
            acctd.count_lines(&format!("most of {flow}")) == 1,
            "{:?}",
            acctd.log()
        );
    }
    ensure!(all.len() == 2, "{all:?}");
    let pid = acctd.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let helper = children.trim().to_owned();
    ensure!(helper.parse::<u32>().is_ok(), "{children:?}");
    acctd.finish()?;
    wait_until("the process that reads the rules has ended", || {
        let command_line = fs::read(format!("/proc/{helper}/cmdline"));
        Ok(
            command_line.is_ok_and(|it| it.is_empty())
                || !Path::new("/proc").join(&helper).exists(),
        )
    })
}

fn trace() -> Result<()> {
    let router = Router::new(
        "table inet rig { chain forward { type filter hook forward priority 0
            ip saddr 10.1.0.2 accept
            log group 5 snaplen 20; }; }",
    )?;
    let rig = &router.rig;
    let socket = format!("unix:{}", rig.scratch().join("acctd.sock").display());
    let listen = format!("-listen={socket}");
    let acctd = rig.acctd(&[&SOURCE[..], &[listen.as_str()]].concat())?;
    let frames = [udp(rig, 2, WANTED)];
    let start = || {
        let mut command: Command = rig.router.command(rig.acctd_path());
        command.args(["explain", "--trace", "--for=1s", "--listen", &socket]);
        Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()))
    };
    let has_table = || -> Result<bool> {
        let tables = rig.router.run(&["nft", "list", "tables"])?;
        Ok(tables.contains("acctd_trace"))
    };

    let mut asking = start()?;
    while asking.try_wait()?.is_none() {
        rig.send_frames(&frames)?;
    }
    let stdout = asking.child().stdout.take().context("stdout is a pipe")?;
    let text = std::io::read_to_string(stdout)?;
    let met = "met: inet rig forward rule ip saddr 10.1.0.2 accept (verdict accept)";
    ensure!(text.contains(met), "{text}");
    ensure!(!has_table()?);

    // From elsewhere, where the interface and the rules are not.
    let mut elsewhere: Command = rig.wire.command(rig.acctd_path());
    elsewhere.args(["explain", "--for=1s", "--listen", &socket]);
    let mut asking = Process::spawn(elsewhere.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    while asking.try_wait()?.is_none() {
        rig.send_frames(&frames)?;
    }
    let stderr = asking.child().stderr.take().context("stderr is a pipe")?;
    let text = std::io::read_to_string(stderr)?;
    ensure!(
        text.contains("lan0, which acctd cross-checks, is not in this network namespace"),
        "{text}"
    );

    let asking = start()?;
    wait_until("packets are traced", || {
        rig.send_frames(&frames)?;
        has_table()
    })?;
    asking.signal(Signal::KILL)?;
    wait_until("the table is gone", || Ok(!has_table()?))?;
    let of_namespace = "for it in /proc/[0-9]*; do
        [ \"$(readlink $it/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] && cat $it/comm; done; true";
    wait_until("no nft is left", || {
        let names = rig.router.run(&["sh", "-c", of_namespace])?;
        Ok(!names.lines().any(|name| name == "nft"))
    })?;
    acctd.finish()?;
    Ok(())
}
