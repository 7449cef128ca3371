//! The network namespace that the groups are in. One that is deleted and made again under the same
//! name (`ip netns del`, `ip netns add`) lives on for as long as acctd has sockets in it, without
//! anything ever coming there: so acctd follows the name.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use log::warn;
use rustix::thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space};

use crate::binding::cannot_follow;

/// Where `ip netns` has the names (ip-netns(8)).
const NAMES: &str = "/run/netns";
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespace in which sockets are made.
#[derive(Debug)]
pub struct Home {
    /// Its name, if it has one.
    name: Option<PathBuf>,
    /// Device and inode of what the name led to.
    identity: (u64, u64),
    /// The namespace, if it is not the one that the process is in.
    entered: Option<File>,
    has_warned: bool,
}

impl Home {
    /// The namespace that this thread is in.
    #[must_use]
    pub fn here() -> Self {
        let identity = identity(Path::new(OWN)).unwrap_or_default();
        let names = fs::read_dir(NAMES).into_iter().flatten().flatten();
        let name = names
            .map(|entry| entry.path())
            .find(|path| identity != (0, 0) && self::identity(path).ok() == Some(identity));
        Self {
            name,
            identity,
            entered: None,
            has_warned: false,
        }
    }

    /// Whether it has one, and so may be made again.
    #[must_use]
    pub fn has_name(&self) -> bool {
        self.name.is_some()
    }

    /// Whether its name leads to another namespace now.
    pub fn is_another(&mut self) -> bool {
        let Some(name) = &self.name else {
            return false;
        };
        match identity(name) {
            Ok(identity) if is_namespace(name) => {
                let is_another = identity != self.identity;
                self.identity = identity;
                self.has_warned = false;
                is_another
            }
            _ => {
                if !self.has_warned {
                    self.has_warned = true;
                    warn!(
                        "network namespace {} is gone: nothing more is logged there; waiting for it to be made again",
                        name.display()
                    );
                }
                false
            }
        }
    }

    /// From here on, the namespace that the name leads to.
    pub fn enter_anew(&mut self) -> Result<()> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        let entered = File::open(name)
            .with_context(|| format!("cannot open network namespace {}", name.display()))?;
        self.entered = Some(entered);
        // At once, so that what is not allowed ends acctd here.
        self.run(|| ())
    }

    /// Does something in it, on a thread of its own if need be: a thread that has moved stays there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let Some(namespace) = &self.entered else {
            return Ok(work());
        };
        let ran = thread::scope(|scope| {
            let thread = scope.spawn(|| {
                raise_capability()?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(work())
            });
            thread.join()
        });
        match ran {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(cannot_follow(&self.shown(), &error)),
            Err(_panicked) => Err(anyhow!(
                "a thread in network namespace {} has panicked",
                self.shown()
            )),
        }
    }

    fn shown(&self) -> String {
        let name = self.name.as_deref().and_then(Path::file_name);
        name.unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// It takes `CAP_SYS_ADMIN`, which nothing else here does: this thread alone has it in effect.
fn raise_capability() -> io::Result<()> {
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective |= sets.permitted & CapabilitySet::SYS_ADMIN;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// A name is a mount point of nsfs; the file under it, before it is mounted or after it is gone, is
/// an empty one.
fn is_namespace(path: &Path) -> bool {
    /// `linux/magic.h`.
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    rustix::fs::statfs(path).is_ok_and(|found| found.f_type as i64 == NSFS_MAGIC)
}
