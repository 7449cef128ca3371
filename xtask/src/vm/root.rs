//! The guest's root directory: programs of Debian's packages, unpacked and not installed, so that those of another
//! processor can be unpacked too.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::archive;
use super::host::directory;
use crate::arch::Arch;
use crate::debian::bootstrap;

/// What a shell, the tests and acctd need.
const PACKAGES: &str = "base-files,base-passwd,bash,bpftool,coreutils,dash,ebtables,ethtool,findutils,grep,hostname,\
    hping3,ipset,iproute2,iptables,iputils-ping,kmod,libc-bin,libnetfilter-log1,mawk,mount,nftables,procps,sed,tar,\
    tzdata,util-linux,wireguard-tools";
/// What nobody reads there. It would take memory.
const LEFT_OUT: [&str; 7] = [
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/perl/*",
    "/usr/lib/*/perl/*",
    "/usr/lib/*/gconv/*",
];

/// The archive of it.
pub(super) fn archive(arch: Arch) -> Result<PathBuf> {
    let place = directory()?.join(format!("root-{}.cpio", arch.debian()));
    if place.exists() {
        return Ok(place);
    }
    let unpacked = TempDir::with_prefix_in("root-", directory()?)?;
    let root = unpacked.path().join("root");
    bootstrap(&root, "extract", arch, PACKAGES, &LEFT_OUT)?;
    // What the packages' scripts would have made, had they run.
    for (from, to) in [("passwd.master", "passwd"), ("group.master", "group")] {
        let from = root.join("usr/share/base-passwd").join(from);
        fs::copy(&from, root.join("etc").join(to))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    for program in ["iptables", "ip6tables", "ebtables", "arptables"] {
        for verb in ["", "-save", "-restore"] {
            let link = root.join(format!("usr/sbin/{program}{verb}"));
            // As update-alternatives(1) does.
            if !link.exists() {
                symlink(format!("{program}-nft{verb}"), link)?;
            }
        }
    }
    for left in ["var/lib/apt", "var/lib/dpkg", "var/cache"] {
        fs::remove_dir_all(root.join(left)).ok();
    }
    archive::pack(&root, &place)?;
    Ok(place)
}
