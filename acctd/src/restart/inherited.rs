//! The descriptors that a service manager passes to acctd when it starts it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::Mutex;

/// A descriptor and its name in the service manager's store.
pub type NamedFd = (String, OwnedFd);

/// The descriptors that have an owner already.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes the descriptors that `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID` name for this process, and sets
/// close-on-exec on them (`sd_listen_fds(3)`). Must be called before anything is opened.
///
/// The variables stay in the environment, because it cannot be changed safely. They do no harm: `LISTEN_PID`
/// excludes other processes.
pub fn take() -> io::Result<Vec<NamedFd>> {
    let named: Vec<_> = sd_notify::listen_fds_with_names()?.collect();
    let Ok(mut taken) = TAKEN.lock() else {
        return Ok(Vec::new());
    };
    let own = named.into_iter().filter(|(fd, _)| taken.insert(*fd));
    Ok(own
        .map(|(fd, name)| {
            // SAFETY: it is open, because close-on-exec was set on it, and it was open before this process
            // opened anything. `TAKEN` ensures that it has no other owner.
            (name, unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect())
}
