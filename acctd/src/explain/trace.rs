//! The rules that packets of a flow really meet, as nft says it (`meta nftrace`, `nft monitor trace`).
//!
//! acctd starts an nft that loads a table with the rule `meta nftrace set 1`, and keeps this nft running. The table has
//! `flags owner`: if the nft ends, the kernel removes the table. If acctd is killed, that nft ends at once, and the one that
//! listens a little later (timeout(1)): without traces it would not see that nobody reads it.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::rules::external;
use crate::sampling::header::{Flow, protocol};
use crate::sampling::report::Passed;

const TABLE: &str = "acctd_trace";
/// How long to wait for packets.
const LENGTH: Duration = Duration::from_secs(2);
/// Seconds: more than that, on a busy machine too.
const AT_MOST: &str = "10";
/// Lines of one packet that are shown.
const MAX_LINES: usize = 32;

/// Traces packets of a flow for two seconds. Returns what one of them met, a line each; nothing if none came.
pub(super) fn trace(passed: &Passed) -> Result<Vec<String>> {
    let mut monitor = external::command("timeout")
        .args([AT_MOST, "nft", "monitor", "trace"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run nft")?;
    let traced = set_for_a_while(passed);
    // It passes this on.
    let _ended = kill_process(Pid::from_child(&monitor), Signal::TERM);
    let text = monitor.stdout.take().map(io::read_to_string);
    let _ended = monitor.wait();
    traced?;
    Ok(lines(&text.transpose()?.unwrap_or_default()))
}

fn set_for_a_while(passed: &Passed) -> Result<()> {
    let mut owner = external::command("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run nft")?;
    let mut commands = vec![format!("add table inet {TABLE} {{ flags owner; }}")];
    for hook in ["prerouting", "output"] {
        commands.push(format!(
            "add chain inet {TABLE} {hook} {{ type filter hook {hook} priority -450; }}"
        ));
        commands.push(format!(
            "add rule inet {TABLE} {hook} {} limit rate 10/second meta nftrace set 1",
            condition(&passed.flow, passed.is_egress)
        ));
    }
    let mut stdin = owner.stdin.take().context("stdin is a pipe")?;
    writeln!(stdin, "{}", commands.join("\n"))?;
    stdin.flush()?;
    thread::sleep(LENGTH);
    // The end of its input ends nft.
    drop(stdin);
    let ended = owner.wait_with_output()?;
    let refused = String::from_utf8_lossy(&ended.stderr);
    if let Some(line) = refused.lines().find(|line| line.contains("Error")) {
        bail!("nft cannot trace: {line}; it requires Linux 5.12 and nft 1.0");
    }
    Ok(())
}

/// NAT may change the source of what goes out, after the hooks where tracing begins.
fn condition(flow: &Flow, is_egress: bool) -> String {
    let ip = if flow.source.is_ipv4() { "ip" } else { "ip6" };
    let mut words = vec![format!("{ip} daddr {}", flow.dest)];
    if !is_egress {
        words.push(format!("{ip} saddr {}", flow.source));
    }
    words.push(format!("meta l4proto {}", flow.protocol));
    let has_ports = matches!(flow.protocol, protocol::TCP | protocol::UDP);
    if let Some([source, dest]) = flow.ports.filter(|_| has_ports) {
        words.push(format!("th dport {dest}"));
        if !is_egress {
            words.push(format!("th sport {source}"));
        }
    }
    words.join(" ")
}

/// Of the packet with most lines, without the lines of acctd's own table.
fn lines(text: &str) -> Vec<String> {
    let mut packets: Vec<(&str, Vec<String>)> = Vec::new();
    for line in text.lines() {
        let Some((id, line)) = line
            .strip_prefix("trace id ")
            .and_then(|rest| rest.split_once(' '))
        else {
            continue;
        };
        if line.contains(TABLE) {
            continue;
        }
        match packets.iter_mut().find(|(other, _)| *other == id) {
            Some((_, lines)) => lines.push(line.trim_end().to_owned()),
            None => packets.push((id, vec![line.trim_end().to_owned()])),
        }
    }
    let longest = packets.into_iter().max_by_key(|(_, lines)| lines.len());
    let mut lines = longest.map(|(_, lines)| lines).unwrap_or_default();
    lines.truncate(MAX_LINES);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packets_lines_are_shown() {
        let text = "trace id 1 inet acctd_trace prerouting rule ip daddr … (verdict continue)\n\
                    trace id 2 inet t input packet: iif \"lan0\" \n\
                    trace id 1 inet t input packet: iif \"lan0\" \n\
                    trace id 1 inet t input rule accept (verdict accept)\n\
                    something else\n";
        assert_eq!(
            lines(text),
            [
                "inet t input packet: iif \"lan0\"",
                "inet t input rule accept (verdict accept)"
            ]
        );
        assert!(lines("").is_empty());
    }
}
