//! What a process and its children have used: CPU time as the scheduler counts it, to the
//! nanosecond, and memory. See proc(5).

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

#[derive(Debug, Clone, Copy, Default)]
pub struct CpuTime {
    /// Nanoseconds on a CPU, from `schedstat`.
    pub nanos: u64,
    /// Of which in user and in kernel mode: found by sampling, so a proportion rather than a time.
    user_ticks: u64,
    system_ticks: u64,
}

impl CpuTime {
    /// The part of it in user mode, 0 to 1.
    pub fn user_share(self) -> f64 {
        let ticks = self.user_ticks + self.system_ticks;
        #[expect(clippy::cast_precision_loss, reason = "ticks of 10 ms")]
        let share = self.user_ticks as f64 / ticks.max(1) as f64;
        share
    }

    /// What was used since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(earlier.nanos),
            user_ticks: self.user_ticks.saturating_sub(earlier.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(earlier.system_ticks),
        }
    }
}

/// The CPU time of a process and its descendants.
pub fn cpu_time(pid: u32) -> Result<CpuTime> {
    let mut sum = CpuTime::default();
    for pid in tree(pid)? {
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
        {
            let path = task?.path();
            // A thread may end in the meantime.
            let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else {
                continue;
            };
            sum.nanos += number(&schedstat, 0)?;
        }
        if let Some((user, system, _)) = stat(&PathBuf::from(format!("/proc/{pid}/stat"))) {
            sum.user_ticks += user;
            sum.system_ticks += system;
        }
    }
    Ok(sum)
}

/// The most resident memory that a process and its descendants have had, in bytes; nothing for a
/// process that has ended.
pub fn peak_memory(pid: u32) -> Result<u64> {
    let peaks = tree(pid)?.into_iter().filter_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        number(line, 1).ok()
    });
    Ok(peaks.sum::<u64>() * 1024)
}

/// A process and all below it.
pub fn tree(root: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some((_, _, parent)) = stat(&entry.path().join("stat")) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|p| p.1 == parent).map(|p| p.0));
        next += 1;
    }
    Ok(found)
}

/// User and system ticks, and the parent.
fn stat(path: &std::path::Path) -> Option<(u64, u64, u32)> {
    let text = fs::read_to_string(path).ok()?;
    // The name, in brackets, may hold blanks and brackets; it is the second field.
    let (_, rest) = text.rsplit_once(')')?;
    let user = number(rest, 11).ok()?;
    let system = number(rest, 12).ok()?;
    let parent = number(rest, 1).ok()?.try_into().ok()?;
    Some((user, system, parent))
}

fn number(text: &str, field: usize) -> Result<u64> {
    let word = text
        .split_whitespace()
        .nth(field)
        .context("a field is missing")?;
    Ok(word.parse()?)
}

#[cfg(test)]
mod tests {
    use std::{
        process::Command,
        time::{Duration, Instant},
    };

    use crate::process::Process;

    use super::*;

    #[test]
    fn the_time_of_children_counts() {
        // Two busy shells, the second below the first.
        let script = "sh -c 'while :; do :; done' & while :; do :; done";
        let process = Process::spawn(Command::new("sh").args(["-c", script])).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        let alone = loop {
            let all = tree(process.pid()).unwrap();
            if all.len() == 2 || Instant::now() > end {
                break all;
            }
        };
        assert_eq!(alone.len(), 2);
        while cpu_time(process.pid()).unwrap().nanos < 200_000_000 && Instant::now() < end {}
        let spent = cpu_time(process.pid()).unwrap();
        assert!(spent.nanos >= 200_000_000 && peak_memory(process.pid()).unwrap() > 100_000);
        // The child has no other parent to end it.
        for pid in alone {
            Command::new("kill")
                .args(["-9", &pid.to_string()])
                .status()
                .unwrap();
        }
    }
}
