//! The network namespace that the groups are in. One that is deleted and made again under the same
//! name (`ip netns del`, `ip netns add`) lives on for as long as acctd has sockets in it, without
//! anything ever coming there: so acctd follows the name.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{io, thread};

use anyhow::{Result, anyhow};
use log::warn;
use rustix::thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` has the names (ip-netns(8)).
const NAMES: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespace in which sockets are made.
#[derive(Debug)]
pub struct NetworkNamespace {
    /// Its name, if it has one.
    name: Option<PathBuf>,
    /// Device and inode of what the name led to.
    identity: (u64, u64),
    /// The namespace, if it is not the one that the process is in.
    entered: Option<File>,
    has_warned: bool,
}

impl NetworkNamespace {
    /// The namespace that this thread is in.
    #[must_use]
    pub fn current() -> Self {
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

    /// Whether it has one, and so may be made again.
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// Whether its name leads to another namespace now, which is the one from here on. Fails if that
    /// may not be entered.
    pub fn follow(&mut self) -> Result<bool> {
        let Some(name) = &self.name else {
            return Ok(false);
        };
        let Some((namespace, identity)) = open(name) else {
            if !self.has_warned {
                self.has_warned = true;
                warn!(
                    "network namespace {} is gone: nothing more is logged there; waiting for it to be made again",
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
        // At once, so that what is not allowed ends acctd here. Anything else may pass.
        match self.run(|| ()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(anyhow!(
                "network namespace {shown} was deleted and made again, and cannot be entered: {error}; what was counted is written, start acctd again in it (or grant CAP_SYS_ADMIN)"
            )),
            _ => Ok(true),
        }
    }

    /// Does something in it, on a thread of its own if need be: a thread that has moved stays there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
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

/// It takes `CAP_SYS_ADMIN`, which nothing else here does: this thread alone has it in effect.
fn raise_capability() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective |= sets.permitted & CapabilitySet::SYS_ADMIN;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// The namespace that a name leads to, if it does. Opened before it is looked at: the name may lead
/// elsewhere the next moment.
fn open(name: &Path) -> Option<(File, (u64, u64))> {
    let file = File::open(name).ok()?;
    let found = file.metadata().ok()?;
    is_namespace(&file).then(|| (file, identity(&found)))
}

fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// A name is a mount point of nsfs; the file under it, before it is mounted or after it is gone, is
/// an empty one.
fn is_namespace(file: &File) -> bool {
    /// `linux/magic.h`.
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type as i64 == NSFS_MAGIC)
}
