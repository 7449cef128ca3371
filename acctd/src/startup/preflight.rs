//! Checks at the start. Each problem is reported in one line, with its cure, before anything runs.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use rustix::fs::Access;

use crate::config::Config;
use crate::model::columns::JOURNAL;
use crate::nflog::open::{OpenGroup, announce, check_receive_buffer, open_group, take_over};
use crate::nflog::socket::NflogSocket;
use crate::observe::http::MAX_CLIENTS;
use crate::output::journal;
use crate::output::log_directory::{self, LogDirectory};
use crate::process::user::User;
use crate::restart::handover::FdStore;

/// The most descriptors that acctd has in addition to those of groups and listeners, and some for libraries.
const SPARE_DESCRIPTORS: usize = 16;

/// Creates the log directory and its missing parents, with mode 0750 as go-nflog-acctd does. If `--user` is given,
/// they belong to that user. Directories that exist already are not changed.
pub(crate) fn make_directory(directory: &Path, user: Option<&User>) -> Result<()> {
    let shown = directory.display();
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
    log_directory::make_directory(directory).map_err(|error| {
        if let Some((link, error)) = dangling_link(directory) {
            return anyhow!(
                "log directory {shown}: {} is a symbolic link that leads nowhere: {error}; create its target, or choose another directory with --log-directory",
                link.display()
            );
        }
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => anyhow!(
                "log directory {shown}: the path contains something that is not a directory; move it, or choose another directory with --log-directory"
            ),
            _ => anyhow!(
                "cannot make log directory {shown}: {error}; create it yourself, or choose another with --log-directory"
            ),
        }
    })?;
    for made in missing {
        if let Some(user) = user.filter(|user| !user.is_this_process()) {
            let ids = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
            lchown(made, ids.0, ids.1).map_err(|error| {
                anyhow!(
                    "cannot chown log directory {} to user {user}: {error}; only root can become another user",
                    made.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Ensures that this process can create files in the log directory. `user` is the one that it has become.
pub(crate) fn check_directory(directory: &Path, user: Option<&User>) -> Result<()> {
    let shown = directory.display();
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let accessible = rustix::fs::access(directory, access).map_err(io::Error::from);
    let opened = accessible.and_then(|()| LogDirectory::open(directory));
    let directory = opened.map_err(|error| match user {
        Some(user) => anyhow!(
            "cannot write to log directory {shown} as user {user}: {error}; chown -R {user}: {shown}, or choose another with --log-directory"
        ),
        None => anyhow!(
            "cannot write to log directory {shown}: {error}; change its owner or mode, or choose another with --log-directory"
        ),
    })?;
    journal::check(&directory).map_err(|error| match user {
        Some(user) if error.kind() == io::ErrorKind::PermissionDenied => anyhow!(
            "cannot append to {shown}/{JOURNAL} as user {user}: {error}; chown -R {user}: {shown}, or choose another directory with --log-directory"
        ),
        _ => anyhow!(
            "cannot append to {shown}/{JOURNAL}: {error}; move it away, or choose another directory with --log-directory"
        ),
    })
}

/// The first path of the directory and its parents that is a dangling link, and the error of following it.
fn dangling_link(directory: &Path) -> Option<(PathBuf, io::Error)> {
    // Removes a slash at the end, which would follow the link.
    let directory: PathBuf = directory.components().collect();
    directory
        .ancestors()
        .filter(|path| path.is_symlink())
        .find_map(|link| Some((link.to_owned(), link.metadata().err()?)))
}

/// Takes over the stored sockets, opens all other groups, and ensures that the kernel has their configuration.
pub(crate) fn open_groups(config: &Config, store: &mut FdStore) -> Result<Vec<OpenGroup>> {
    let groups: Vec<OpenGroup> = config
        .groups
        .iter()
        .map(|group| {
            announce(group);
            if let Some(taken_over) = take_over(group, config.flush_timeout, store) {
                return Ok(taken_over);
            }
            let socket = open_group(group, config.flush_timeout)?;
            Ok(OpenGroup { socket, kept: None })
        })
        .collect::<Result<_>>()?;
    if let Some(OpenGroup { socket, .. }) = groups.first() {
        check_descriptors(config, socket)?;
        check_receive_buffer(socket);
    }
    Ok(groups)
}

/// Ensures that there are descriptors for threads, signals and files. Without one for a signal, tokio panics;
/// without one for a file, the file would wait.
fn check_descriptors(config: &Config, socket: &NflogSocket) -> Result<()> {
    // For each address: its socket, its clients, and one client that waits.
    let n_spare = SPARE_DESCRIPTORS + (MAX_CLIENTS + 2) * config.listen.len();
    let spare: io::Result<Vec<OwnedFd>> = (0..n_spare)
        .map(|_| socket.as_fd().try_clone_to_owned())
        .collect();
    spare.map(drop).map_err(|error| {
        anyhow!(
            "cannot open {n_spare} files beside the groups: {error}; raise LimitNOFILE (ulimit -n)"
        )
    })
}
