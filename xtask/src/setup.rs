//! `cargo xtask setup`: the packages that acctd needs to be built, tested and
//! shown, by Debian's own tools.

use anyhow::{Result, bail};
use testkit::{debian::Debian, netns::find_program, print};

/// A Debian package, and how to tell that it is there on another system.
struct Package {
    name: &'static str,
    gives: &'static str,
    programs: &'static [&'static str],
}

const PACKAGES: [Package; 11] = [
    Package {
        name: "libnetfilter-log-dev",
        gives: "the library libnetfilter_log with its development files, to build acctd",
        programs: &[],
    },
    Package {
        name: "nftables",
        gives: "nft, for the rules of the tests and the demo",
        programs: &["nft"],
    },
    Package {
        name: "iptables",
        gives: "iptables and ip6tables, whose rules the tests load too",
        programs: &["iptables", "ip6tables"],
    },
    Package {
        name: "iproute2",
        gives: "ip, for the devices of the tests and the demo",
        programs: &["ip"],
    },
    Package {
        name: "iputils-ping",
        gives: "ping, for the demo's ICMP",
        programs: &["ping"],
    },
    Package {
        name: "util-linux",
        gives: "unshare, nsenter and setpriv, for the namespaces",
        programs: &["unshare", "nsenter", "setpriv"],
    },
    Package {
        name: "hping3",
        gives: "hping3, with which go-nflog-acctd's manual checks its numbers",
        programs: &["hping3"],
    },
    Package {
        name: "python3-venv",
        gives: "a virtual environment of Python's, for the databases that the tests load files into",
        programs: &["python3"],
    },
    Package {
        name: "ethtool",
        gives: "ethtool, for the offloads that acctd doctor notes",
        programs: &["ethtool"],
    },
    Package {
        name: "bpftool",
        gives: "bpftool, which detaches and loads programs beside the cross-check's",
        programs: &["bpftool"],
    },
    Package {
        name: "procps",
        gives: "ps and sysctl, for the tests",
        programs: &["ps", "sysctl"],
    },
];

/// Installs what is missing, and does nothing if nothing is.
pub(crate) fn run() -> Result<()> {
    let Some(debian) = Debian::find() else {
        return check_elsewhere();
    };
    debian.install(&PACKAGES.map(|package| package.name))
}

/// Another system than Debian: says what is needed, and goes on if the
/// programs are there. The library shows itself when acctd is linked.
fn check_elsewhere() -> Result<()> {
    print::line("setup: this is not Debian; acctd, its tests and its demo need")?;
    for package in &PACKAGES {
        print::line(format!("  {} (Debian: {})", package.gives, package.name))?;
    }
    let missing: Vec<&str> = PACKAGES
        .iter()
        .flat_map(|package| package.programs)
        .copied()
        .filter(|program| find_program(program).is_none())
        .collect();
    if !missing.is_empty() {
        bail!("not found on PATH: {}", missing.join(", "));
    }
    Ok(())
}
