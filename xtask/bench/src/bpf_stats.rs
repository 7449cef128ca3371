//! The kernel's own record of how long eBPF programs run: `kernel.bpf_stats_enabled`, see
//! admin-guide/sysctl/kernel.rst.

use std::fs;

use anyhow::{Context as _, Result};

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// On while this lives. It costs each run of a program two looks at the clock.
#[derive(Debug)]
pub(crate) struct BpfStats {
    before: String,
}

impl BpfStats {
    pub(crate) fn enable() -> Result<Self> {
        let before =
            fs::read_to_string(SETTING).with_context(|| format!("cannot read {SETTING}"))?;
        fs::write(SETTING, "1").with_context(|| format!("cannot write {SETTING}"))?;
        Ok(Self { before })
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        // Left on, it slows programs by some nanoseconds, and nothing else.
        fs::write(SETTING, &self.before).ok();
    }
}

/// What programs have done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub(crate) nanos: u64,
    pub(crate) count: u64,
}

impl Runs {
    /// Of the programs that a process holds.
    pub(crate) fn of(pid: u32) -> Self {
        let mut runs = Self::default();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten()
        {
            let text = entry
                .ok()
                .and_then(|entry| fs::read_to_string(entry.path()).ok());
            runs.add(&text.unwrap_or_default());
        }
        runs
    }

    fn add(&mut self, fdinfo: &str) {
        for line in fdinfo.lines() {
            let number = |name: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
            self.nanos += number("run_time_ns:").unwrap_or(0);
            self.count += number("run_cnt:").unwrap_or(0);
        }
    }

    /// Nanoseconds of a run, since `earlier`.
    pub(crate) fn mean_since(self, earlier: Self) -> Option<f64> {
        let count = self
            .count
            .checked_sub(earlier.count)
            .filter(|count| *count > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        let mean = self.nanos.saturating_sub(earlier.nanos) as f64 / count as f64;
        Some(mean)
    }
}

/// For a process that may not be there.
pub(crate) fn runs_of(process: Option<&testkit::process::Process>) -> Runs {
    process.map_or_else(Runs::default, |process| Runs::of(process.pid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_of_what_ran_in_between() {
        let mut before = Runs::default();
        before.add("pos:\t0\nprog_type:\t3\nrun_time_ns:\t100\nrun_cnt:\t1\n");
        let mut after = before;
        after.add("run_time_ns:\t300\nrun_cnt:\t4\n");
        assert_eq!(after.mean_since(before), Some(75.0));
        assert_eq!(before.mean_since(before), None);
        // This process holds no program.
        assert_eq!(Runs::of(std::process::id()), Runs::default());
    }
}
