//! The running kernel.

use std::fmt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::model::human;

/// Major and minor version: (6, 1) for `6.1.0-18-amd64`. Zero if the name is unusual.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|it: char| !it.is_ascii_digit())
        .map(|it| it.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The limit that eBPF programs and maps count against: `RLIMIT_MEMLOCK`, before Linux 5.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemlockLimit {
    /// For all of the user's processes together.
    bytes: u64,
}

/// `None` if there is no limit: on newer kernels, eBPF's memory counts as the control group's.
pub(crate) fn memlock_limit() -> Option<MemlockLimit> {
    if kernel_version() >= (5, 11) {
        return None;
    }
    let bytes = getrlimit(Resource::Memlock).current?;
    Some(MemlockLimit { bytes })
}

/// Removes the limit, or raises it as far as this process may: only `CAP_SYS_RESOURCE` may remove it.
pub(crate) fn raise_memlock_limit() {
    if memlock_limit().is_none() {
        return;
    }
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let maximum = getrlimit(Resource::Memlock).maximum;
        let highest = Rlimit {
            current: maximum,
            maximum,
        };
        // If it is too low, the error of what did not fit names it.
        let _raised = setrlimit(Resource::Memlock, highest);
    }
}

/// As the cause of an error, with its cure.
impl fmt::Display for MemlockLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = kernel_version();
        let bytes = human::bytes(self.bytes);
        write!(
            f,
            "Linux {major}.{minor} counts eBPF maps against RLIMIT_MEMLOCK, which is {bytes}; set LimitMEMLOCK=infinity in the unit (ulimit -l unlimited)"
        )
    }
}
