//! On what machine figures were measured.

use std::{fs, thread};

use serde::Serialize;

/// What matters of it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) is_virtual: bool,
    pub(crate) kernel: String,
    pub(crate) system: String,
}

pub(crate) fn describe() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map(|found| found.1)
    };
    let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    Machine {
        processor: field("model name")
            .unwrap_or("unknown processor")
            .to_owned(),
        cores: thread::available_parallelism().map_or(0, usize::from),
        is_virtual: field("flags").is_some_and(|flags| flags.contains("hypervisor")),
        kernel: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        system: system
            .unwrap_or("unknown system")
            .trim_matches('"')
            .to_owned(),
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let guest = if self.is_virtual {
            " (virtual machine)"
        } else {
            ""
        };
        write!(
            f,
            "{}, {} cores{guest}, Linux {}, {}",
            self.processor, self.cores, self.kernel, self.system
        )
    }
}
