//! Whatever could go wrong at the start, found out before anything runs, and said in one line
//! with what to do about it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use rustix::fs::Access;

use crate::config::Config;
use crate::nflog::open::{OpenGroup, announce, check_receive_buffer, open_group, take_over};
use crate::nflog::socket::NflogSocket;
use crate::observe::http::MOST_CLIENTS;
use crate::output::journal;
use crate::output::log_directory::{self, LogDirectory};
use crate::process::user::User;
use crate::restart::handover::Kept;

/// Descriptors that acctd has at the most besides its groups', with room for what libraries open.
const SPARE_DESCRIPTORS: usize = 16;

/// Makes the log directory and its missing parents, with mode 0750 as go-nflog-acctd does. If `--user` is given,
/// they belong to that user. Directories that exist already are not changed.
pub fn make_directory(directory: &Path, user: Option<&User>) -> Result<()> {
    let shown = directory.display();
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = directory.ancestors().take_while(is_missing).collect();
    log_directory::make_directory(directory).map_err(|error| {
        if let Some((link, error)) = link_that_leads_nowhere(directory) {
            return anyhow!(
                "log directory {shown}: {} is a symbolic link that leads nowhere: {error}; make its target, or choose another directory with --log-directory",
                link.display()
            );
        }
        match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => anyhow!(
                "log directory {shown}: a file stands in its place; move it, or choose another directory with --log-directory"
            ),
            _ => anyhow!(
                "cannot make log directory {shown}: {error}; make it yourself, or choose another with --log-directory"
            ),
        }
    })?;
    for made in missing {
        if let Some(user) = user.filter(|user| !user.is_this_process()) {
            let ids = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
            lchown(made, ids.0, ids.1).map_err(|error| {
                anyhow!(
                    "cannot give log directory {} to user {user}: {error}; it takes root to become another user",
                    made.display()
                )
            })?;
        }
    }
    Ok(())
}

/// Makes sure that files can be made in the log directory, by the user that acctd has become if it has.
pub fn check_directory(directory: &Path, user: Option<&User>) -> Result<()> {
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
            "cannot append to {shown}/{} as user {user}: {error}; chown -R {user}: {shown}, or choose another directory with --log-directory",
            journal::FILE_NAME
        ),
        _ => anyhow!(
            "cannot append to {shown}/{}: {error}; move it away, or choose another directory with --log-directory",
            journal::FILE_NAME
        ),
    })
}

/// The directory itself or one above it, and what is found where it leads.
fn link_that_leads_nowhere(directory: &Path) -> Option<(PathBuf, io::Error)> {
    // Without a slash at its end, which would follow the link.
    let directory: PathBuf = directory.components().collect();
    directory
        .ancestors()
        .filter(|path| path.is_symlink())
        .find_map(|link| Some((link.to_owned(), link.metadata().err()?)))
}

/// Opens all groups but those whose sockets were kept, and makes sure that the kernel has taken their
/// configuration.
pub(crate) fn open_groups(config: &Config, kept: &mut Kept) -> Result<Vec<OpenGroup>> {
    let groups: Vec<OpenGroup> = config
        .groups
        .iter()
        .map(|group| {
            announce(group);
            if let Some(taken_over) = take_over(group, config.flush_timeout, kept) {
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

/// Makes sure that the threads, the signals and the files will have descriptors: tokio panics where
/// there is none for a signal, and a file that cannot be opened would wait for one.
fn check_descriptors(config: &Config, socket: &NflogSocket) -> Result<()> {
    // For each address its own socket, its clients, and the one that waits to be one of them.
    let n_spare = SPARE_DESCRIPTORS + (MOST_CLIENTS + 2) * config.listen.len();
    let spare: io::Result<Vec<OwnedFd>> = (0..n_spare)
        .map(|_| socket.as_fd().try_clone_to_owned())
        .collect();
    spare.map(drop).map_err(|error| {
        anyhow!(
            "cannot open {n_spare} files beside the groups: {error}; raise LimitNOFILE (ulimit -n)"
        )
    })
}
