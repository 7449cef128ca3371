//! A cgroup with a CPU quota, gone with its guard.

use std::{
    fs,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::usage;

/// Who has just been killed is in the cgroup for a little longer.
const REMOVAL_TRIES: u32 = 100;

/// The shortest period, in microseconds, and the least quota that the kernel takes.
const MIN_PERIOD: u32 = 10_000;
const MIN_QUOTA: u32 = 1_000;

/// A share of one core, in tenths of a percent.
pub type Tenths = u32;

/// Of the cgroup interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A cgroup whose processes have as much CPU time as it is given.
#[derive(Debug)]
pub struct CpuGroup {
    directory: PathBuf,
    version: Version,
}

impl CpuGroup {
    /// An empty one, with all the CPU time there is. It takes root.
    pub fn make() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
        let mut mounts = hierarchies(&mounts);
        let Some((version, mount)) = mounts.find(|(version, mount)| {
            // In version 2 a cgroup has those controllers that its parent passes on.
            *version == Version::V1 || {
                let passed_on = fs::read_to_string(mount.join("cgroup.subtree_control"));
                passed_on.is_ok_and(|names| names.split_whitespace().any(|name| name == "cpu"))
            }
        }) else {
            bail!(
                "there is no cgroup CPU controller: no version 1 hierarchy has it, and no version 2 \
                 hierarchy passes it on (`echo +cpu > cgroup.subtree_control` at its root)"
            );
        };
        let directory = mount.join(format!("acctd-{}", process::id()));
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make the cgroup {}", directory.display()))?;
        let made = Self { directory, version };
        made.throttled()?;
        Ok(made)
    }

    pub fn take_in(&self, pid: u32) -> Result<()> {
        for pid in usage::tree(pid)? {
            self.set("cgroup.procs", &pid.to_string())?;
        }
        Ok(())
    }

    pub fn allow(&self, share: Tenths) -> Result<()> {
        let (quota, period) = quota_and_period(share);
        match self.version {
            Version::V1 => {
                self.set("cpu.cfs_period_us", &period.to_string())?;
                self.set("cpu.cfs_quota_us", &quota.to_string())
            }
            Version::V2 => self.set("cpu.max", &format!("{quota} {period}")),
        }
    }

    /// Allows all there is.
    pub fn lift(&self) -> Result<()> {
        match self.version {
            Version::V1 => self.set("cpu.cfs_quota_us", "-1"),
            Version::V2 => self.set("cpu.max", "max"),
        }
    }

    /// In how many periods the quota was used up and more was wanted.
    pub fn throttled(&self) -> Result<u64> {
        let stat = fs::read_to_string(self.directory.join("cpu.stat"));
        let stat = stat.context("the cgroup has no cpu.stat")?;
        let mut lines = stat.lines();
        let number = lines.find_map(|line| line.strip_prefix("nr_throttled "));
        Ok(number.context("cpu.stat has no nr_throttled")?.parse()?)
    }

    fn set(&self, file: &str, value: &str) -> Result<()> {
        let path = self.directory.join(file);
        fs::write(&path, value)
            .with_context(|| format!("cannot write {value} to {}", path.display()))
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        for _ in 0..REMOVAL_TRIES {
            if fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Where cgroups are mounted that may have the CPU controller.
fn hierarchies(mountinfo: &str) -> impl Iterator<Item = (Version, PathBuf)> {
    mountinfo.lines().filter_map(|line| {
        // See proc(5): the fifth field is the mount point; type, source and options follow a dash.
        let (mount, file_system) = line.split_once(" - ")?;
        let mount = Path::new(mount.split(' ').nth(4)?).to_owned();
        let mut fields = file_system.split(' ');
        match (fields.next()?, fields.nth(1)?) {
            ("cgroup", options) if options.split(',').any(|name| name == "cpu") => {
                Some((Version::V1, mount))
            }
            ("cgroup2", _) => Some((Version::V2, mount)),
            _ => None,
        }
    })
}

/// In microseconds. The period is as short as it can be: a quota of less than a millisecond the
/// kernel refuses.
fn quota_and_period(share: Tenths) -> (u32, u32) {
    let period = (MIN_QUOTA * 1000).div_ceil(share).max(MIN_PERIOD);
    (period * share / 1000, period)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found_in_mountinfo() {
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                  33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                  34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n";
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = |text: &str| hierarchies(text).collect::<Vec<_>>();
        assert_eq!(
            found(v1),
            [(Version::V1, "/sys/fs/cgroup/cpu,cpuacct".into())]
        );
        assert_eq!(found(v2), [(Version::V2, "/sys/fs/cgroup".into())]);
        assert_eq!(found("22 1 0:20 / /proc rw - proc proc rw\n"), []);
    }

    #[test]
    fn a_quota_is_never_less_than_the_kernel_takes() {
        assert_eq!(quota_and_period(3), (1_000, 333_334));
        assert_eq!(quota_and_period(10), (1_000, 100_000));
        assert_eq!(quota_and_period(15), (1_000, 66_667));
        assert_eq!(quota_and_period(100), (1_000, 10_000));
        assert_eq!(quota_and_period(1_000), (10_000, 10_000));
    }
}
