//! `cargo xtask setup`: the packages that acctd needs to be built, tested and
//! shown, by Debian's own tools.

use anyhow::{Result, bail};
use testkit::{debian::Debian, netns::find_program, print};

/// A Debian package, what it is for, and the programs that tell on another system that it is there.
struct Package(&'static str, &'static str, &'static [&'static str]);

const PACKAGES: [Package; 11] = [
    Package(
        "libnetfilter-log-dev",
        "the library libnetfilter_log with its development files, to build acctd",
        &[],
    ),
    Package(
        "nftables",
        "nft, for the rules of the tests and the demo",
        &["nft"],
    ),
    Package(
        "iptables",
        "iptables and ip6tables, whose rules the tests load too",
        &["iptables", "ip6tables"],
    ),
    Package(
        "iproute2",
        "ip, for the devices of the tests and the demo",
        &["ip"],
    ),
    Package("iputils-ping", "ping, for the demo's ICMP", &["ping"]),
    Package(
        "util-linux",
        "unshare, nsenter and setpriv, for the namespaces",
        &["unshare", "nsenter", "setpriv"],
    ),
    Package(
        "hping3",
        "hping3, with which go-nflog-acctd's manual checks its numbers",
        &["hping3"],
    ),
    Package(
        "python3-venv",
        "a virtual environment of Python's, for the databases that the tests load files into",
        &["python3"],
    ),
    Package(
        "ethtool",
        "ethtool, for the offloads that acctd doctor notes",
        &["ethtool"],
    ),
    Package(
        "bpftool",
        "bpftool, which detaches and loads programs beside the cross-check's",
        &["bpftool"],
    ),
    Package("procps", "ps and sysctl, for the tests", &["ps", "sysctl"]),
];

/// Installs what is missing, and does nothing if nothing is.
pub(crate) fn run() -> Result<()> {
    let Some(debian) = Debian::find() else {
        return check_elsewhere();
    };
    debian.install(&PACKAGES.map(|Package(name, ..)| name))
}

/// A browser to look at the page with, and what a cluster of ClickHouse needs: installed itself, its server would run as a
/// service.
/// Elsewhere than on Debian those tests are skipped.
pub(crate) fn for_tests() -> Result<()> {
    let packages = [
        "chromium",
        "clickhouse-common",
        "default-jre-headless",
        "libzookeeper-java",
    ];
    Debian::find().map_or(Ok(()), |debian| debian.install(&packages))
}

/// Another system than Debian: says what is needed, and goes on if the
/// programs are there. The library shows itself when acctd is linked.
fn check_elsewhere() -> Result<()> {
    print::line("setup: this is not Debian; acctd, its tests and its demo need")?;
    for Package(name, gives, _) in &PACKAGES {
        print::line(format!("  {gives} (Debian: {name})"))?;
    }
    let missing: Vec<&str> = PACKAGES
        .iter()
        .flat_map(|Package(_, _, programs)| *programs)
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        bail!("not found on PATH: {}", missing.join(", "));
    }
    Ok(())
}
