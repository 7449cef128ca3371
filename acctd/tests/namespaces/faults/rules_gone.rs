//! Rules that go away while acctd runs.

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use testkit::traffic::TrafficArgs;

use super::kernel::span;
use crate::rig::{LOG_AND_DROP, NONE, Rig, totals};
use crate::waiting::{wait_for_lines, wait_until};
use crate::{Case, Needs};

pub(super) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "rules_that_are_flushed_and_loaded_again_leave_a_gap_with_its_times",
        flushed_and_loaded_again,
    ),
    (
        Needs::Namespace,
        "rules_of_one_group_that_are_gone_are_no_gap_of_another",
        of_one_group,
    ),
    (
        Needs::Namespace,
        "rules_that_are_replaced_in_one_transaction_leave_no_gap",
        replaced,
    ),
    (
        Needs::Namespace,
        "rules_of_iptables_that_are_flushed_are_gone",
        || of_iptables("iptables-nft"),
    ),
    (
        Needs::Namespace,
        "rules_of_iptables_legacy_that_are_flushed_are_gone",
        || of_iptables("iptables-legacy"),
    ),
    (
        Needs::Namespace,
        "rules_to_which_nothing_jumps_any_more_are_gone",
        nothing_jumps_there,
    ),
];

const ONE_INTERVAL: &[&str] = &[
    "-interval=36500d",
    "-utc",
    "-ip4-src-group=5",
    "-ip6-src-group=7",
];

/// In one transaction each, so that each packet is either logged or counted as missed.
const FLUSH: &str = "
    table inet hole { counter missed {}; }
    delete table inet rig
    table inet hole {
        chain prerouting {
            type filter hook prerouting priority raw
            counter name missed drop
        }
    }";

/// Groups, and from when to when.
type Gap = (Vec<u64>, DateTime<Utc>, DateTime<Utc>);

/// The gaps of the only interval.
fn gaps(rig: &Rig) -> Result<Vec<Gap>> {
    let summaries = rig.summaries()?;
    ensure!(summaries.len() == 1, "not at midnight, please");
    let mut gaps = Vec::new();
    for gap in summaries[0]["gaps"].as_array().into_iter().flatten() {
        ensure!(gap["cause"] == "rules_gone", "{gap}");
        let groups = gap["groups"].as_array().into_iter().flatten();
        let groups = groups.filter_map(serde_json::Value::as_u64).collect();
        let (start, end) = span(gap)?;
        gaps.push((groups, start, end));
    }
    Ok(gaps)
}

fn flushed_and_loaded_again() -> Result<()> {
    const PACKETS: u64 = 60_000;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 100,
        count: PACKETS,
        rate: 20_000,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    wait_until("packets are logged", || {
        Ok(rig.counter("v4")?.packets >= 1_000)
    })?;
    let before = Utc::now();
    rig.rules(FLUSH)?;
    let flushed = Utc::now();
    acctd.wait_for_line("group 5: no rule logs to it any more")?;
    acctd.wait_for_line("group 7: no rule logs to it any more")?;
    wait_until("packets are missed", || {
        Ok(rig.counter("missed")?.packets >= 10_000)
    })?;
    let loading = Utc::now();
    rig.rules(&format!(
        "flush chain inet hole prerouting
         delete chain inet hole prerouting
         {LOG_AND_DROP}"
    ))?;
    let after = Utc::now();
    acctd.wait_for_line("Group 5 has rules again")?;
    traffic.finish()?;
    acctd.finish()?;
    let missed = rig.counter("missed")?.packets;
    let (counted, _) = totals(&rig.files()?, true);
    ensure!(
        counted.packets + missed == PACKETS && counted.packets > 1_000,
        "{counted:?} and {missed} missed of {PACKETS}"
    );
    let gaps = gaps(&rig)?;
    let [(groups, start, end)] = &gaps[..] else {
        anyhow::bail!("{gaps:?}");
    };
    ensure!(groups[..] == [5, 7], "{groups:?}");
    // Told after the fact, and as soon as there is CPU time for it.
    ensure!(
        before <= *start && *start <= loading,
        "{before} {start} {flushed}"
    );
    ensure!(loading <= *end && *start < *end, "{loading} {end} {after}");
    Ok(())
}

fn of_one_group() -> Result<()> {
    const IP6: &str = "
        table inet other {
            chain prerouting {
                type filter hook prerouting priority raw - 1
                meta nfproto ipv6 log group 7 snaplen 40
            }
        }";
    let rig = Rig::new()?;
    rig.rules(&LOG_AND_DROP.replace("log group 7 snaplen 40 queue-threshold 50", ""))?;
    rig.rules(IP6)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    // Of the same group and family, which leaves the group with one.
    rig.rules(&IP6.replace("other", "second"))?;
    rig.rules("delete table inet second")?;
    rig.rules("flush chain inet other prerouting")?;
    acctd.wait_for_line("group 7: no rule logs to it any more")?;
    rig.rules(IP6)?;
    acctd.wait_for_line("Group 7 has rules again")?;
    rig.rules("table inet other { flags dormant; }")?;
    wait_for_lines(&acctd, "any more", 2)?;
    let log = acctd.finish()?.log;
    ensure!(!log.iter().any(|line| line.contains("group 5:")), "{log:?}");
    let gaps = gaps(&rig)?;
    let groups: Vec<_> = gaps.iter().map(|(groups, ..)| &groups[..]).collect();
    ensure!(groups == [[7], [7]], "{gaps:?}");
    Ok(())
}

fn replaced() -> Result<()> {
    const PACKETS: u64 = 40_000;
    let rig = Rig::new()?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    let traffic = rig.send_in_background(&TrafficArgs {
        sources: 100,
        count: PACKETS,
        rate: 20_000,
        ..rig.traffic("10.0.0.0/24", "172.16.0.1/32")?
    })?;
    for _ in 0..20 {
        rig.rules(&format!("flush chain inet rig prerouting\n{LOG_AND_DROP}"))?;
    }
    traffic.finish()?;
    let log = acctd.finish()?.log;
    ensure!(!log.iter().any(|line| line.contains("no rule")), "{log:?}");
    ensure!(gaps(&rig)?.is_empty());
    let (counted, none) = totals(&rig.files()?, true);
    ensure!(counted == rig.counter("v4")? && none == NONE, "{counted:?}");
    Ok(())
}

fn of_iptables(program: &str) -> Result<()> {
    let rig = Rig::new()?;
    let run = |program: &str, words: &str| {
        let words = words.split(' ');
        let words: Vec<&str> = std::iter::once(program).chain(words).collect();
        rig.router.run(&words)
    };
    let iptables = |words: &str| run(program, words);
    let program_of_ip6 = program.replace("ip", "ip6");
    let rule = "-j NFLOG --nflog-group";
    iptables("-t raw -N logs")?;
    iptables(&format!("-t raw -A logs {rule} 5"))?;
    iptables("-t raw -A PREROUTING -j logs")?;
    run(&program_of_ip6, &format!("-A INPUT {rule} 7"))?;
    let started = Utc::now();
    let acctd = rig.acctd(ONE_INTERVAL)?;
    let wait_for = |part, count| wait_for_lines(&acctd, part, count);
    let before = Utc::now();
    iptables("-t raw -F logs")?;
    let flushed = Utc::now();
    wait_for("group 5: no rule logs to it any more", 1)?;
    iptables(&format!("-t raw -A logs {rule} 5"))?;
    wait_for("Group 5 has rules again", 1)?;
    let after = Utc::now();
    // The jump to it alone.
    iptables("-t raw -F PREROUTING")?;
    wait_for("group 5: no rule logs to it any more", 2)?;
    iptables("-t raw -A PREROUTING -j logs")?;
    wait_for("Group 5 has rules again", 2)?;
    run(&program_of_ip6, "-F")?;
    wait_for("group 7: no rule logs to it any more", 1)?;
    acctd.finish()?;
    let gaps = gaps(&rig)?;
    let groups: Vec<_> = gaps.iter().map(|(groups, ..)| &groups[..]).collect();
    ensure!(groups == [[5], [5], [7]], "{gaps:?}");
    let (_, start, end) = gaps[0];
    // Where nobody tells of it, it is gone since the look before.
    let (earliest, latest) = if program.ends_with("legacy") {
        (started, flushed)
    } else {
        (before, after)
    };
    ensure!(
        earliest <= start && start <= latest && flushed <= end && end <= after,
        "{before} {start} {flushed} {end} {after}"
    );
    Ok(())
}

/// The rule is there all the time, and its chain.
fn nothing_jumps_there() -> Result<()> {
    const MAP: &str = "iifname vmap { \"lan0\" : jump logs }";
    let rig = Rig::new()?;
    rig.rules(
        "table inet t {
            chain logs { meta nfproto ipv4 log group 5 snaplen 20; meta nfproto ipv6 log group 7 snaplen 40; }
            chain c { type filter hook prerouting priority raw; jump logs; }
        }",
    )?;
    let acctd = rig.acctd(ONE_INTERVAL)?;
    // One jump for another, and one of two.
    rig.rules(&format!("flush chain inet t c; add rule inet t c {MAP}"))?;
    rig.rules(
        "table inet t { chain d { type filter hook prerouting priority raw; goto logs; }; }",
    )?;
    rig.rules("flush chain inet t c")?;
    rig.rules("table inet t { chain middle { jump logs; }; }")?;
    rig.rules("flush chain inet t d")?;
    acctd.wait_for_line("group 5: no rule logs to it any more")?;
    acctd.wait_for_line("group 7: no rule logs to it any more")?;
    rig.rules("add rule inet t c jump middle")?;
    acctd.wait_for_line("Group 5 has rules again")?;
    acctd.finish()?;
    let gaps = gaps(&rig)?;
    ensure!(gaps.len() == 1 && gaps[0].0 == [5, 7], "{gaps:?}");
    Ok(())
}
