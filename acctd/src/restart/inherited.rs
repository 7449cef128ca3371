//! The descriptors that a service manager hands over when it starts acctd.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::Mutex;

/// A descriptor and its name.
pub type Named = (String, OwnedFd);

/// Those that have an owner already.
static TAKEN: Mutex<BTreeSet<RawFd>> = Mutex::new(BTreeSet::new());

/// Takes what `LISTEN_FDS`, `LISTEN_FDNAMES` and `LISTEN_PID` say was handed over to this process, marked
/// as close-on-exec (`sd_listen_fds(3)`). To be called before anything is opened.
///
/// The variables stay in the environment, which cannot be changed safely: acctd starts no programs, and
/// `LISTEN_PID` would tell them that they are not meant.
pub fn take() -> io::Result<Vec<Named>> {
    let named: Vec<_> = sd_notify::listen_fds_with_names()?.collect();
    let Ok(mut taken) = TAKEN.lock() else {
        return Ok(Vec::new());
    };
    let own = named.into_iter().filter(|(fd, _)| taken.insert(*fd));
    Ok(own
        .map(|(fd, name)| {
            // SAFETY: it is open, as it has just been marked, and was before this process opened
            // anything; nobody has taken it before.
            (name, unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect())
}
