//! A clean Debian that has booted its own systemd, in a network namespace beside others.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tempfile::TempDir;
use testkit::{
    netns::{Namespace, Privilege},
    process::{self, Process},
};

use crate::arch::Arch;
use crate::debian::{RELEASE, bootstrap};

/// What acctd's package depends on or is tried with.
const PACKAGES: &str =
    "systemd,systemd-sysv,dbus,libnetfilter-log1,nftables,iproute2,iputils-ping,procps";
const BOOT: &str = include_str!("boot.sh");
const BOOT_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Machine {
    // Dropped in this order.
    boot: Process,
    cgroups: TempDir,
    root: TempDir,
    pub(super) network: Namespace,
    init: String,
}

impl Machine {
    /// `target` is where a Debian is kept that was never booted.
    pub(super) fn boot(target: &Path) -> Result<Self> {
        let pristine = debian(target)?;
        let root = TempDir::with_prefix_in("machine-", target)?;
        let from = format!("{}/.", pristine.display());
        process::output(Command::new("cp").args(["-a", &from]).arg(root.path()))?;
        // As it is used as a root directory.
        set_mode(root.path(), 0o755)?;
        let cgroups = TempDir::with_prefix("acctd-machine-")?;
        let network = Namespace::new(Privilege::Root)?;
        let mut command = network.command("unshare");
        command
            .args([
                "--fork",
                "--kill-child",
                "--pid",
                "--mount",
                "--uts",
                "--ipc",
            ])
            .args(["--propagation", "private", "bash", "-c", BOOT, "boot"])
            .args([root.path(), cgroups.path()])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let boot = Process::spawn(&mut command)?;
        let mut machine = Self {
            boot,
            cgroups,
            root,
            network,
            init: String::new(),
        };
        machine.wait_until_up()?;
        Ok(machine)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let end = Instant::now() + BOOT_LIMIT;
        let pid = self.boot.pid();
        let children = format!("/proc/{pid}/task/{pid}/children");
        loop {
            if let Some(status) = self.boot.try_wait()? {
                bail!("the machine has not booted: {status}");
            }
            let children = fs::read_to_string(&children).unwrap_or_default();
            children.trim().clone_into(&mut self.init);
            // Until it is systemd, there is nobody to ask.
            if !self.init.is_empty()
                && self
                    .run("systemctl is-system-running --wait")
                    .is_ok_and(|state| state.trim() == "running")
            {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the machine has not booted");
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// What a shell command in it prints.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init, "--all"])
            .args(["env", "-i", "HOME=/root", "LC_ALL=C"])
            .arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .args(["bash", "-euc", script])
            .stdin(Stdio::null());
        process::output(&mut command)
    }

    /// Waits until a shell command succeeds.
    pub(super) fn wait_for(&self, script: &str) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(30);
        while let Err(error) = self.run(script) {
            if Instant::now() > end {
                let log = self.run("journalctl --no-pager -n 40 -u 'acctd*'");
                return Err(error.context(format!("waited in vain; {}", log.unwrap_or_default())));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Puts a file into it.
    pub(super) fn put(&self, file: &Path, place: &str) -> Result<()> {
        let place = self.root.path().join(place.trim_start_matches('/'));
        fs::copy(file, &place).with_context(|| place.display().to_string())?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // All that runs in it goes with its first process, and then its cgroups can.
        let _gone = self.boot.signal(Signal::KILL);
        let _waited = self.boot.wait(Duration::from_secs(10));
        let name = self.cgroups.path().file_name().unwrap_or_default();
        // They can when the last process has left them.
        let script = "mount -t cgroup2 cgroup2 \"$0\"
            for try in $(seq 100); do
                find \"$0/$1\" -depth -type d -exec rmdir {} + 2>/dev/null
                test -e \"$0/$1\" || exit 0
                sleep 0.1
            done
            echo \"cgroup $1 is left behind\" >&2";
        let _left_behind = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(self.cgroups.path())
            .arg(name)
            .status();
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    Ok(fs::set_permissions(path, mode)?)
}

/// A Debian as it is after its installation.
fn debian(target: &Path) -> Result<PathBuf> {
    let place = target.join(format!("{RELEASE}-root"));
    if place.exists() {
        return Ok(place);
    }
    let half = TempDir::with_prefix_in("debian-", target)?;
    let root = half.path().join("root");
    bootstrap(&root, "minbase", Arch::of_this_machine(), PACKAGES, &[])?;
    fs::rename(&root, &place)?;
    Ok(place)
}
