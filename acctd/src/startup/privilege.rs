//! Drops privileges. What requires more rights happens at the start. After that, acctd keeps only the
//! capabilities of `needed` and `permitted_only`, whoever started it. So a flaw that a packet or a file can
//! trigger gives an attacker no more than these.
//!
//! Linux has capabilities and ids per thread, so acctd drops them while it has one thread.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use log::{debug, info, warn};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::Config;
use crate::model::columns::JOURNAL;
use crate::nflog::network_namespace::NetworkNamespace;
use crate::output::log_directory::LogDirectory;
use crate::output::{atomic_file, journal, recovery};
use crate::process::user::{User, is_in_first_user_namespace};

/// Capabilities that bypass file permissions or change the user. `CAP_DAC_READ_SEARCH` is not among them: it is
/// kept until the end of the start, because only root can read the table of groups.
const FILE_AND_USER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP);

/// Makes this thread run as `user` permanently. It keeps the capabilities that the rest of the start requires,
/// but none to bypass the permissions of files.
pub(crate) fn become_user(user: &User) -> Result<()> {
    if user.is_this_process() {
        return Ok(());
    }
    let change = || -> io::Result<()> {
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_groups(&user.groups)?;
        rustix::thread::set_thread_res_gid(user.gid, user.gid, user.gid)?;
        rustix::thread::set_thread_res_uid(user.uid, user.uid, user.uid)?;
        rustix::thread::set_keep_capabilities(false)?;
        let kept = rustix::thread::capabilities(None)?.permitted - FILE_AND_USER;
        set(kept, kept)
    };
    change().map_err(|error| {
        anyhow!(
            "cannot become user {user}: {error}; only root can (CAP_SETUID and CAP_SETGID): start acctd as root, or as that user without --user"
        )
    })?;
    info!("acctd is user {user} (uid {}) from here on", user.uid);
    Ok(())
}

/// Drops all capabilities except those that are needed from now on: for this thread, those that it starts, and
/// programs that they would start. Missing capabilities are not an error. But it is an error if the user of
/// `--user` cannot access a file.
pub(crate) fn drop_capabilities(config: &Config) -> Result<()> {
    // First, because it requires CAP_SETPCAP. Without it, the bounding set stays. That is harmless: only
    // programs with capabilities or setuid could use it, and no_new_privs prevents that.
    empty_bounding_set();
    let kept = rustix::thread::set_no_new_privs(true)
        .map_err(io::Error::from)
        .and_then(|()| keep_needed(config));
    match kept {
        Ok(kept) => debug!("capabilities kept: {kept:?}"),
        // acctd can account all the same.
        Err(error) => warn!(
            "cannot drop privileges: {error}; acctd keeps those that it was started with; does a system call filter forbid capset or prctl?"
        ),
    }
    if let Some(user) = &config.user {
        return check_access(config, user);
    }
    if is_root_of_the_machine() {
        warn!(
            "acctd stays root: start it with --user NAME, so that it becomes that user and keeps only the capabilities that it needs; to stay root without this line, use --user root"
        );
    }
    Ok(())
}

fn check_access(config: &Config, user: &User) -> Result<()> {
    match inaccessible_path(config) {
        Some(path) => Err(anyhow!(
            "user {user} cannot access {}: chown it to {user}, or choose another with the flag that names it",
            path.display()
        )),
        None => Ok(()),
    }
}

/// Root of another user namespace is an ordinary user outside of it.
fn is_root_of_the_machine() -> bool {
    rustix::process::geteuid().is_root() && is_in_first_user_namespace()
}

/// The capabilities that are effective in the whole run.
fn needed(config: &Config, permitted: CapabilitySet) -> CapabilitySet {
    // To bind a group again, with a receive buffer larger than net.core.rmem_max, and to attach programs to
    // an interface that appears again.
    let mut needed = CapabilitySet::NET_ADMIN;
    if config.crosscheck.is_some() {
        needed |= needed_for_bpf(permitted);
    }
    needed & permitted
}

/// Capabilities that are permitted but not effective. A thread that needs one makes it effective for itself.
fn permitted_only(permitted: CapabilitySet) -> CapabilitySet {
    // To enter a network namespace that is created again under the same name. One without a name is not.
    let to_follow = if NetworkNamespace::current().has_name() {
        CapabilitySet::SYS_ADMIN
    } else {
        CapabilitySet::empty()
    };
    to_follow & permitted
}

/// `CAP_BPF` for bpf(2), which acctd calls in the whole run: each epoch has new maps. `CAP_PERFMON` for the
/// verifier, which otherwise lets programs neither compare nor store pointers. Pins only need a writable
/// directory.
///
/// `CAP_SYS_ADMIN` includes both. Linux before 5.8 has only that, and a container may have been given only that.
fn needed_for_bpf(permitted: CapabilitySet) -> CapabilitySet {
    let both = CapabilitySet::BPF | CapabilitySet::PERFMON;
    if permitted.contains(both) {
        both
    } else {
        both | CapabilitySet::SYS_ADMIN
    }
}

/// Returns the capabilities that are kept.
fn keep_needed(config: &Config) -> io::Result<CapabilitySet> {
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let not_effective = permitted_only(permitted);
    let mut kept = needed(config, permitted);
    if permitted.contains(CapabilitySet::DAC_OVERRIDE) {
        // Tries whether acctd needs it: without it, then with it.
        set(kept, permitted)?;
        if let Some(path) = inaccessible_path(config) {
            set(kept | CapabilitySet::DAC_OVERRIDE, permitted)?;
            if inaccessible_path(config).as_ref() != Some(&path) {
                kept |= CapabilitySet::DAC_OVERRIDE;
                info!(
                    "{} belongs to another user, so acctd keeps CAP_DAC_OVERRIDE to access it; to avoid that, chown it to uid {}",
                    path.display(),
                    rustix::process::geteuid()
                );
            }
        }
    }
    set(kept, kept | not_effective)?;
    Ok(kept | not_effective)
}

fn set(effective: CapabilitySet, permitted: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective,
        permitted,
        // This also empties the ambient set.
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn empty_bounding_set() {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // The kernel has no more capabilities, or does not allow to drop them.
        if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
}

/// The first file or directory of this run that acctd has no permission for. Other errors are ignored, because
/// no capability cures them.
fn inaccessible_path(config: &Config) -> Option<PathBuf> {
    let directory = &config.log_directory;
    let crosscheck = config.crosscheck.as_ref();
    let object = crosscheck.and_then(|crosscheck| crosscheck.object.as_ref());
    let pins = crosscheck.and_then(|crosscheck| crosscheck.pin.as_ref());
    let tried = [
        Some((directory.clone(), try_to_create(config))),
        Some((
            directory.join(JOURNAL),
            LogDirectory::open(directory).and_then(|directory| journal::check(&directory)),
        )),
        Some(recovery::try_to_read(directory)),
        object.map(|object| (object.clone(), File::open(object).map(drop))),
        pins.map(|pins| try_to_enter(pins)),
    ];
    let mut denied = tried
        .into_iter()
        .flatten()
        .filter(|(_, tried)| is_permission_denied(tried));
    denied.next().map(|(path, _)| path)
}

fn is_permission_denied<T>(tried: &io::Result<T>) -> bool {
    matches!(tried, Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
}

/// Under the name of a temporary file: if acctd is killed here, the next start removes it.
fn try_to_create(config: &Config) -> io::Result<()> {
    let directory = LogDirectory::open(&config.log_directory)?;
    let (name, _) = atomic_file::create_temporary(&directory, config.tag(), "trial")?;
    directory.remove(&name)
}

/// Tries the directory, or the existing one that it would be created in.
fn try_to_enter(directory: &Path) -> (PathBuf, io::Result<()>) {
    let existing = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(directory);
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let tried = rustix::fs::accessat(CWD, existing, access, AtFlags::EACCESS);
    (existing.to_owned(), tried.map_err(io::Error::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cap_sys_admin_is_kept_only_if_bpf_or_perfmon_is_missing() {
        const BPF: CapabilitySet = CapabilitySet::BPF;
        const PERFMON: CapabilitySet = CapabilitySet::PERFMON;
        const ADMIN: CapabilitySet = CapabilitySet::SYS_ADMIN;
        for (permitted, kept) in [
            (CapabilitySet::all(), BPF | PERFMON),
            (BPF | PERFMON, BPF | PERFMON),
            // Before Linux 5.8, and in a container.
            (ADMIN, ADMIN),
            (BPF | ADMIN, BPF | ADMIN),
            (BPF, BPF),
        ] {
            assert_eq!(needed_for_bpf(permitted) & permitted, kept);
        }
    }
}
