//! Debian's packages, installed where they are missing.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{netns::find_program, print, process};

/// Debian's package tools.
#[derive(Debug)]
pub struct Debian {
    dpkg_query: PathBuf,
    apt_get: PathBuf,
}

impl Debian {
    /// Nothing on another system.
    pub fn find() -> Option<Self> {
        let (dpkg_query, apt_get) = find_program("dpkg-query").zip(find_program("apt-get"))?;
        Some(Self {
            dpkg_query,
            apt_get,
        })
    }

    /// Installs those of the packages that are missing.
    pub fn install(&self, packages: &[&str]) -> Result<()> {
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
    pub fn versions(&self, packages: &[&str]) -> Result<String> {
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
