//! Each command of go-nflog-acctd's manual, as it is printed there, with acctd's name in it.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use testkit::nft::Count;
use testkit::process::Process;

use crate::kernel::scaled;
use crate::rig::{Acctd, Rig, Row};
use crate::waiting::PATIENCE;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "the_go_manual_checks_correctness_to_the_packet",
        correctness_is_checked,
    ),
    (
        Needs::Root,
        "the_go_manual_tests_live_with_a_profile",
        live_testing,
    ),
];

/// To monitor IPv4 and IPv6 to and from this host.
pub(crate) const RULES: &str = r#"
    iptables -A OUTPUT -j NFLOG --nflog-group 4 --nflog-range 20 --nflog-threshold 50 --nflog-prefix "IPv4out"
    iptables -A INPUT -j NFLOG --nflog-group 5 --nflog-range 20 --nflog-threshold 50 --nflog-prefix "IPv4in"
    ip6tables -A OUTPUT -j NFLOG --nflog-group 6 --nflog-range 40 --nflog-threshold 50 --nflog-prefix "IPv6out"
    ip6tables -A INPUT -j NFLOG --nflog-group 7 --nflog-range 40 --nflog-threshold 50 --nflog-prefix "IPv6in"
"#;
const CHECK: &str =
    "-interval 1h -ip4-dst-group=4 -ip4-src-group=5 -ip6-dst-group=6 -ip6-src-group=7";
const LIVE: &str = "-interval 10s -ip4-dst-group=4 -ip4-src-group=5 -ip6-dst-group=6 -ip6-src-group=7 -cpuprofile z.prof";
const FLOOD: &str = "hping3 127.0.0.2 --syn -p 80 -s 53 --flood";

const WITNESS: &str = "
    table ip witness {
        counter sent {}
        chain output {
            type filter hook output priority -310
            ip daddr 127.0.0.2 counter name sent
        }
    }";

/// The program where the commands look for it.
fn acctd(rig: &Rig, flags: &str) -> Result<Acctd> {
    let link = rig.scratch().join("acctd");
    if !link.exists() {
        std::os::unix::fs::symlink(rig.acctd_path(), &link)?;
    }
    // What follows is as printed, but for sudo, and for where the files go.
    let directory = rig.log_directory().display().to_string();
    let script = format!("cd '{}'; exec ./acctd {flags}", rig.scratch().display());
    let mut command = rig.router.command("sh");
    command
        .args(["-e", "-c", &script])
        .env("ACCTD_LOG_DIRECTORY", directory);
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    Ok(acctd)
}

/// How many packets it says that it has sent within a second.
fn flood(rig: &Rig) -> Result<u64> {
    let script = format!("exec timeout --signal=INT 1 {FLOOD} 2>&1");
    let mut command = rig.router.command("sh");
    command
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut process = Process::spawn(&mut command)?;
    let mut printed = String::new();
    let stdout = process.child().stdout.take().context("a pipe")?;
    std::io::Read::read_to_string(&mut { stdout }, &mut printed)?;
    process.wait(PATIENCE)?;
    let words: Vec<&str> = printed.split_whitespace().collect();
    let at = words
        .windows(2)
        .position(|pair| pair == ["packets", "transmitted,"]);
    let at = at.with_context(|| printed.clone())?;
    Ok(words[at - 1].parse()?)
}

fn counts_what_hping3_sends(rig: &Rig, flags: &str) -> Result<()> {
    rig.router.run(&["ip", "link", "set", "lo", "up"])?;
    rig.router.run(&["sh", "-e", "-c", RULES])?;
    rig.rules(WITNESS)?;
    let acctd = acctd(rig, flags)?;
    let n_sent = flood(rig)?;
    ensure!(n_sent > scaled(1_000), "{n_sent}");
    let ended = acctd.stop(Signal::INT)?;
    ensure!(ended.code == Some(0), "{:?}", ended.log);
    let sent = rig.counter("sent")?;
    // The signal that ends hping3 may come after it has sent a packet and before it has counted it.
    ensure!(
        (n_sent..=n_sent + 1).contains(&sent.packets),
        "{sent:?} {n_sent}"
    );
    let mut counted = (
        Count {
            packets: 0,
            bytes: 0,
        },
        Count {
            packets: 0,
            bytes: 0,
        },
    );
    for Row {
        ip, source, dest, ..
    } in rig.files()?.into_iter().flat_map(|file| file.rows)
    {
        if ip.to_string() == "127.0.0.2" {
            for (sum, count) in [(&mut counted.0, source), (&mut counted.1, dest)] {
                sum.packets += count.packets;
                sum.bytes += count.bytes;
            }
        }
    }
    // Each SYN has its RST.
    ensure!(counted == (sent, sent), "{counted:?} != {sent:?}");
    ensure!(rig.summed("lost")? == 0);
    Ok(())
}

fn correctness_is_checked() -> Result<()> {
    counts_what_hping3_sends(&Rig::new()?, CHECK)
}

fn live_testing() -> Result<()> {
    let rig = Rig::new()?;
    counts_what_hping3_sends(&rig, LIVE)?;
    let profile = std::fs::metadata(rig.scratch().join("z.prof"))?;
    ensure!(profile.len() > 0);
    Ok(())
}
