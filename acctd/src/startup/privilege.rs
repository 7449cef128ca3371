//! What acctd may do. All that takes more happens at the start; from then on it keeps what `needed`
//! and `in_reserve` name and nothing else, whoever started it. A flaw that a packet or a file could
//! reach gives no more away than that.
//!
//! Linux keeps capabilities and ids for each thread, so they are given up while there is only one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use log::{debug, info, warn};
use rustix::fs::{Access, AtFlags, CWD};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::config::Config;
use crate::nflog::network_namespace::NetworkNamespace;
use crate::output::log_directory::LogDirectory;
use crate::output::{atomic_file, journal, recovery};
use crate::process::user::User;

/// What gets past file permissions and makes another user of one. To read remains up to the end of the
/// start, as the table of groups is root's.
const OF_ANY_USER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETFCAP);

/// Makes this thread `user`'s for good, with the capabilities that the rest of the start takes. None is left
/// that would get past the permissions of files.
pub fn become_user(user: &User) -> Result<()> {
    if user.is_this_process() {
        return Ok(());
    }
    let change = || -> io::Result<()> {
        rustix::thread::set_keep_capabilities(true)?;
        rustix::thread::set_thread_groups(&user.groups)?;
        rustix::thread::set_thread_res_gid(user.gid, user.gid, user.gid)?;
        rustix::thread::set_thread_res_uid(user.uid, user.uid, user.uid)?;
        rustix::thread::set_keep_capabilities(false)?;
        let kept = rustix::thread::capabilities(None)?.permitted - OF_ANY_USER;
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

/// Gives up all capabilities but those that are needed from here on, for this thread and those that it
/// starts, and for programs that one of them would start. Having fewer is no error, but what `--user` cannot
/// reach is.
pub fn give_up(config: &Config) -> Result<()> {
    // First, as it takes CAP_SETPCAP. Whoever lacks that keeps the bounding set, out of which nothing
    // can be had but from programs with capabilities or another user's id, and these give none any more.
    empty_bounding_set();
    let given_up = rustix::thread::set_no_new_privs(true)
        .map_err(io::Error::from)
        .and_then(|()| keep_what_is_needed(config));
    match given_up {
        Ok(kept) => debug!("kept are the capabilities {kept:?}"),
        // No reason not to account.
        Err(error) => warn!(
            "cannot give up privileges: {error}; acctd keeps those that it was started with: does a system call filter forbid capset or prctl?"
        ),
    }
    if let Some(user) = &config.user {
        return refuse_what_is_out_of_reach(config, user);
    }
    if is_root_of_the_machine() {
        warn!(
            "acctd stays root: start it with --user NAME, and it becomes that user and keeps the capabilities that it needs; --user root says that it is meant so"
        );
    }
    Ok(())
}

fn refuse_what_is_out_of_reach(config: &Config, user: &User) -> Result<()> {
    match out_of_reach(config) {
        Some(path) => Err(anyhow!(
            "user {user} cannot get at {}: chown it to {user}, or choose another with the flag that names it",
            path.display()
        )),
        None => Ok(()),
    }
}

/// Root of a user namespace of its own is an ordinary user outside of it, and what it may do elsewhere is
/// not ours to judge.
fn is_root_of_the_machine() -> bool {
    // A line of user_namespaces(7): the first id within, the first outside, and how many.
    let is_mapped_to_itself = |map: String| {
        let numbers: Vec<&str> = map.split_whitespace().take(2).collect();
        numbers == ["0", "0"]
    };
    rustix::process::geteuid().is_root()
        && fs::read_to_string("/proc/self/uid_map").map_or(true, is_mapped_to_itself)
}

/// What is in effect for the whole life, and why.
fn needed(config: &Config, permitted: CapabilitySet) -> CapabilitySet {
    // To bind a group again, with a receive buffer beyond net.core.rmem_max, and to attach programs
    // to an interface that comes back.
    let mut needed = CapabilitySet::NET_ADMIN;
    if config.crosscheck.is_some() {
        needed |= needed_for_bpf(permitted);
    }
    needed & permitted
}

/// What is kept without being in effect: a thread that needs it raises it for itself.
fn in_reserve(permitted: CapabilitySet) -> CapabilitySet {
    // To follow a network namespace by its name. One without a name is never made again.
    let to_follow = if NetworkNamespace::current().has_name() {
        CapabilitySet::SYS_ADMIN
    } else {
        CapabilitySet::empty()
    };
    to_follow & permitted
}

/// `CAP_BPF` for each call of bpf(2): every epoch has maps of its own. `CAP_PERFMON` for the verifier to
/// let programs compare and store pointers. Nothing is needed for pins but a directory to write to.
///
/// `CAP_SYS_ADMIN` stands for both: before Linux 5.8 there was nothing else, and a container may have
/// been given no other.
fn needed_for_bpf(permitted: CapabilitySet) -> CapabilitySet {
    let both = CapabilitySet::BPF | CapabilitySet::PERFMON;
    if permitted.contains(both) {
        both
    } else {
        both | CapabilitySet::SYS_ADMIN
    }
}

/// Returns what that is.
fn keep_what_is_needed(config: &Config) -> io::Result<CapabilitySet> {
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let reserve = in_reserve(permitted);
    let mut kept = needed(config, permitted);
    if permitted.contains(CapabilitySet::DAC_OVERRIDE) {
        // Both may be tried while it is permitted.
        set(kept, permitted)?;
        if let Some(path) = out_of_reach(config) {
            set(kept | CapabilitySet::DAC_OVERRIDE, permitted)?;
            if out_of_reach(config).as_ref() != Some(&path) {
                kept |= CapabilitySet::DAC_OVERRIDE;
                info!(
                    "{} is another user's, so acctd keeps CAP_DAC_OVERRIDE to get at it; to do without: chown it to uid {}",
                    path.display(),
                    rustix::process::geteuid()
                );
            }
        }
    }
    set(kept, kept | reserve)?;
    Ok(kept | reserve)
}

fn set(effective: CapabilitySet, permitted: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets {
        effective,
        permitted,
        // Which empties the ambient set too.
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn empty_bounding_set() {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        // The kernel knows no more, or lets us drop none.
        if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
}

/// The first of the files and directories of acctd's life that file permissions keep it from. Whatever
/// else may be wrong with them, it is not cured by a capability.
fn out_of_reach(config: &Config) -> Option<PathBuf> {
    let directory = &config.log_directory;
    let crosscheck = config.crosscheck.as_ref();
    let object = crosscheck.and_then(|crosscheck| crosscheck.object.as_ref());
    let pins = crosscheck.and_then(|crosscheck| crosscheck.pin.as_ref());
    let tried = [
        Some((directory.clone(), try_to_create(config))),
        Some((
            directory.join(journal::FILE_NAME),
            LogDirectory::open(directory).and_then(|directory| journal::check(&directory)),
        )),
        Some(recovery::try_to_read(directory)),
        object.map(|object| (object.clone(), File::open(object).map(drop))),
        pins.map(|pins| try_to_enter(pins)),
    ];
    let mut refused = tried
        .into_iter()
        .flatten()
        .filter(|(_, tried)| is_refused(tried));
    refused.next().map(|(path, _)| path)
}

fn is_refused<T>(tried: &io::Result<T>) -> bool {
    matches!(tried, Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
}

/// As for any file of an interval: should acctd be killed here, the next start removes it.
fn try_to_create(config: &Config) -> io::Result<()> {
    let directory = LogDirectory::open(&config.log_directory)?;
    let (name, _) = atomic_file::create_temporary(&directory, config.tag(), "trial")?;
    directory.remove(&name)
}

/// The directory, or the one that it would be made in.
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
    fn cap_sys_admin_is_kept_only_for_what_is_missing() {
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
