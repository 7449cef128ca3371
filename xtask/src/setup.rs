//! `cargo xtask setup`: the packages that acctd needs to be built, tested and
//! shown, by Debian's own tools.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use xtask::{netns::find_program, process};

use crate::print;

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

/// Debian's package tools.
pub(crate) struct Debian {
    dpkg_query: PathBuf,
    apt_get: PathBuf,
}

impl Debian {
    /// Nothing on another system.
    pub(crate) fn find() -> Option<Self> {
        let (dpkg_query, apt_get) = find_program("dpkg-query").zip(find_program("apt-get"))?;
        Some(Self {
            dpkg_query,
            apt_get,
        })
    }

    /// Installs those of the packages that are missing.
    pub(crate) fn install(&self, packages: &[&str]) -> Result<()> {
        let missing = self.missing(packages)?;
        if missing.is_empty() {
            return print::line("setup: all packages are installed");
        }
        if !rustix::process::geteuid().is_root() {
            bail!(
                "packages are missing; run: sudo apt-get install --no-install-recommends {}",
                missing.join(" ")
            );
        }
        print::line(format!("setup: installing {}", missing.join(" ")))?;
        apt_get(&self.apt_get, &["update"], &[])?;
        apt_get(
            &self.apt_get,
            &["install", "--yes", "--no-install-recommends"],
            &missing,
        )
    }

    /// The packages' exact versions, one on each line.
    pub(crate) fn versions(&self, packages: &[&str]) -> Result<String> {
        process::output(
            Command::new(&self.dpkg_query)
                .args(["-W", "-f", "${Package} ${Version} ${Architecture}\n"])
                .args(packages),
        )
    }

    /// The packages that dpkg does not know as installed. One that was removed
    /// and left its configuration is known, but not installed.
    fn missing<'a>(&self, packages: &[&'a str]) -> Result<Vec<&'a str>> {
        // dpkg-query fails if it knows nothing of one of them, and still lists
        // the others.
        let output = Command::new(&self.dpkg_query)
            .args(["-W", "-f", "${Package} ${db:Status-Status}\n"])
            .args(packages)
            .output()
            .context("cannot start dpkg-query")?;
        let listing = String::from_utf8_lossy(&output.stdout);
        Ok(packages
            .iter()
            .copied()
            .filter(|name| !is_installed(&listing, name))
            .collect())
    }
}

fn is_installed(listing: &str, name: &str) -> bool {
    listing
        .lines()
        .any(|line| line.split_once(' ') == Some((name, "installed")))
}

/// Runs apt-get, which shall neither ask nor chatter; its errors pass.
fn apt_get(program: &Path, verb: &[&str], packages: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .arg("-qq")
        .args(verb)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("DEBCONF_NOWARNINGS", "yes")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed, {status}", verb.join(" "));
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_package_is_not_installed() {
        let listing = "nftables installed\niptables config-files\nlibnetfilter-log-dev installed\n";
        assert!(is_installed(listing, "nftables"));
        assert!(is_installed(listing, "libnetfilter-log-dev"));
        assert!(!is_installed(listing, "iptables"));
        assert!(!is_installed(listing, "iproute2"));
    }
}
