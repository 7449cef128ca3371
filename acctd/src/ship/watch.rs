//! Waits until a file is added to a directory: inotify(7).

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::Duration;

use log::warn;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// A watched directory; without inotify, waits take their whole time.
#[derive(Debug)]
pub(super) struct Watch(Option<OwnedFd>);

impl Watch {
    pub(super) fn new(directory: &Path) -> Self {
        let watched = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|fd| {
            inotify::add_watch(&fd, directory, WatchFlags::MOVED_TO | WatchFlags::CREATE)?;
            Ok(fd)
        });
        if let Err(error) = &watched {
            warn!(
                "cannot watch {}: {error}; it is looked at from time to time",
                directory.display()
            );
        }
        Self(watched.ok())
    }

    /// Whether a file was added.
    pub(super) fn wait(&mut self, at_most: Duration) -> bool {
        let Some(fd) = &self.0 else {
            thread::sleep(at_most);
            return true;
        };
        let timeout = Timespec::try_from(at_most).ok();
        // What interrupts it is as good as the end of the time.
        let n_ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], timeout.as_ref()).unwrap_or(0);
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(fd, &mut buffer);
        while events.next().is_ok() {}
        n_ready > 0
    }
}
