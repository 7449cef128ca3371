//! The same path without root: what a contributor's `cargo test` runs, shown as root too.

use std::process::Command;

use anyhow::{Result, ensure};
use testkit::netns::Privilege;
use testkit::traffic::TrafficArgs;

use crate::rig::{Acctd, LOG_AND_DROP, NONE, Rig, totals};
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Root,
        "an_ordinary_user_counts_in_a_user_namespace",
        an_ordinary_user_counts,
    ),
    (
        Needs::Namespace,
        "acctd_runs_under_unshare_urn",
        acctd_runs_under_unshare_urn,
    ),
];

/// `nobody` on Debian.
const NOBODY: u32 = 65_534;

fn an_ordinary_user_counts() -> Result<()> {
    let rig = Rig::with_privilege(Privilege::UserNamespaceAs(NOBODY))?;
    rig.rules(LOG_AND_DROP)?;
    let acctd = rig.acctd(&["-interval=1s", "-ip4-src-group=5", "-ip6-dst-group=7"])?;
    for (source, dest) in [
        ("10.0.0.0/8", "10.255.0.1/32"),
        ("2001:db8::/32", "2001:db8:ffff::1/128"),
    ] {
        rig.send(&TrafficArgs {
            sources: 1_000,
            count: 20_000,
            rate: 20_000,
            ..rig.traffic(source, dest)?
        })?;
    }
    let ended = acctd.finish()?;
    // It has no say in the size of its buffer there, nor in its priority.
    ended.line("receive buffer is")?;
    ended.line("Failed to set priority -19")?;
    let files = rig.files()?;
    let (ip4, ip6) = (rig.counter("v4")?, rig.counter("v6")?);
    ensure!(ip4.packets == 20_000 && ip6.packets == 20_000);
    ensure!(totals(&files, true) == (ip4, NONE) && totals(&files, false) == (NONE, ip6));
    Ok(())
}

/// All in one step, as the README suggests it: there the kernel gives the table of groups to a
/// user that nobody in the namespace is, so acctd has to do without it.
fn acctd_runs_under_unshare_urn() -> Result<()> {
    let rig = Rig::new()?;
    let mut command = Command::new("unshare");
    let script = "ip link set lo up && nft -f - <<'RULES' && exec \"$0\" \"$@\"
        table inet rig { chain input { type filter hook input priority 0
            ip protocol icmp log group 5 snaplen 20 queue-threshold 5000; }; }\nRULES";
    command
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["-Urn", "--", "sh", "-c", script])
        .arg(rig.acctd_path())
        .args(["-interval=36500d", "-ip4-src-group=5", "-log-directory"])
        .arg(rig.log_directory());
    let acctd = Acctd::spawn(&mut command)?;
    acctd.wait_for_line("Started accounting")?;
    let target = acctd.pid().to_string();
    let enter = || {
        let mut command = Command::new("nsenter");
        command.args(["-t", &target, "-U", "--preserve-credentials", "-n", "--"]);
        command
    };
    // Who has the group only root can read there, but that somebody has it the kernel tells anyone.
    let expected = if Privilege::of_this_process() == Privilege::Root {
        format!("group 5 is taken by pid {target} ")
    } else {
        "Operation not permitted (os error 1): it is taken by another process".into()
    };
    let second = enter()
        .arg(rig.acctd_path())
        .args(["-ip6-src-group=5", "-log-directory"])
        .arg(rig.scratch())
        .output()?;
    let complaint = String::from_utf8_lossy(&second.stderr);
    ensure!(second.status.code() == Some(1), "{complaint}");
    ensure!(complaint.contains(&expected), "{complaint}");
    let ping = enter()
        .args(["ping", "-q", "-c", "3", "-i", "0.01", "127.0.0.1"])
        .output()?;
    ensure!(ping.status.success(), "{ping:?}");
    acctd.finish()?;
    let (source, _) = totals(&rig.files()?, true);
    // Three requests and three replies of 84 bytes.
    ensure!((source.packets, source.bytes) == (6, 504), "{source:?}");
    Ok(())
}
