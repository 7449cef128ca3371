//! CPU time, memory and descriptors of this process.

use std::time::Duration;
use std::{fs, io};

use rustix::time::{ClockId, clock_gettime};

#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessUsage {
    /// User and system time of all threads.
    pub(crate) cpu_time: Duration,
    pub(crate) resident_bytes: u64,
    pub(crate) n_descriptors: u64,
}

impl ProcessUsage {
    pub(crate) fn now() -> io::Result<Self> {
        let cpu_time = clock_gettime(ClockId::ProcessCPUTime);
        // `/proc/PID/statm` (proc_pid_statm(5)): size and resident set in pages.
        let statm = fs::read_to_string("/proc/self/statm")?;
        let resident = statm.split_whitespace().nth(1);
        let pages: u64 = resident.and_then(|it| it.parse().ok()).unwrap_or(0);
        Ok(Self {
            cpu_time: cpu_time.try_into().unwrap_or_default(),
            resident_bytes: pages * rustix::param::page_size() as u64,
            // Without the descriptor that reads the directory.
            n_descriptors: fs::read_dir("/proc/self/fd")?.count().saturating_sub(1) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_plausible() {
        let before = ProcessUsage::now().unwrap();
        assert!(before.resident_bytes > 1_000_000);
        let _open = fs::File::open("/dev/null").unwrap();
        let after = ProcessUsage::now().unwrap();
        assert!(after.n_descriptors > 3 && after.cpu_time >= before.cpu_time);
    }
}
