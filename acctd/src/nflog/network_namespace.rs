//! The network namespace of the groups. If it is deleted and created again under the same name
//! (`ip netns del`, `ip netns add`), the old one exists while acctd has sockets in it, but no packet
//! arrives there any more. So acctd follows the name.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{io, thread};

use anyhow::{Result, anyhow};
use log::warn;
use rustix::thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space};

/// The directory of `ip netns` (ip-netns(8)).
const NAMES: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespace in which acctd opens sockets.
#[derive(Debug)]
pub(crate) struct NetworkNamespace {
    name: Option<PathBuf>,
    /// Device and inode of the namespace.
    identity: (u64, u64),
    /// The namespace, if it is not that of the process.
    entered: Option<File>,
    has_warned: bool,
}

impl NetworkNamespace {
    /// The namespace that this thread is in.
    pub(crate) fn current() -> Self {
        let own = fs::metadata(OWN).map(|found| identity(&found)).ok();
        let entries = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let name = entries.map(|entry| entry.path()).find(|path| {
            let found = fs::metadata(path);
            own.is_some() && found.map(|found| identity(&found)).ok() == own
        });
        Self {
            name,
            identity: own.unwrap_or_default(),
            entered: None,
            has_warned: false,
        }
    }

    /// Only a namespace with a name can be created again.
    pub(crate) fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// If the name belongs to another namespace now, switches to that and returns true. Fails if acctd is
    /// not permitted to enter it.
    pub(crate) fn follow(&mut self) -> Result<bool> {
        let Some(name) = &self.name else {
            return Ok(false);
        };
        let Some((namespace, identity)) = open(name) else {
            if !self.has_warned {
                self.has_warned = true;
                warn!(
                    "network namespace {} is gone: nothing more is logged there; waiting for it to be created again",
                    name.display()
                );
            }
            return Ok(false);
        };
        self.has_warned = false;
        if identity == self.identity {
            return Ok(false);
        }
        let shown = name.display().to_string();
        self.identity = identity;
        self.entered = Some(namespace);
        // Tried at once, so that a missing permission ends acctd here. Other errors may be temporary.
        match self.run(|| ()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(anyhow!(
                "network namespace {shown} was deleted and created again, and cannot be entered: {error}; all counts are written; start acctd again in it (or grant CAP_SYS_ADMIN)"
            )),
            _ => Ok(true),
        }
    }

    /// Runs `work` in the namespace. If that is not the namespace of the process, it runs on a new thread,
    /// because a thread that has moved stays there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Some(namespace) = &self.entered else {
            return Ok(work());
        };
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || {
                raise_capability()?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            })?;
            let panicked = |_| Err(io::Error::other("the thread in it has panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    }
}

/// Entering requires `CAP_SYS_ADMIN`. Nothing else does, so only this thread has it in its effective set.
fn raise_capability() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective |= sets.permitted & CapabilitySet::SYS_ADMIN;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The namespace of this name, if there is one, and its identity. The file is opened first, because the name
/// may belong to another namespace a moment later.
fn open(name: &Path) -> Option<(File, (u64, u64))> {
    let file = File::open(name).ok()?;
    let found = file.metadata().ok()?;
    is_namespace(&file).then(|| (file, identity(&found)))
}

fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// A name is a mount point of nsfs. Before the mount and after the unmount it is an empty file.
fn is_namespace(file: &File) -> bool {
    /// `linux/magic.h`.
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type as i64 == NSFS_MAGIC)
}
