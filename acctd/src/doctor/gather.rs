//! Gathers the facts of this machine.

use std::path::Path;
use std::{fs, io};

use rustix::fs::{Access, AtFlags, CWD, StatVfsMountFlags};
use rustix::thread::CapabilitySet;

use crate::config::Config;
use crate::crosscheck::session;
use crate::doctor::clock_sync;
use crate::doctor::facts::{Directory, Facts, Kernel};
use crate::doctor::interface_facts::InterfaceFacts;
use crate::nflog::socket::{WANTED_RECEIVE_BUFFER, set_receive_buffer};
use crate::nflog::{socket_option, table};
use crate::output::journal;
use crate::output::log_directory::LogDirectory;
use crate::process::kernel::{kernel_version, raise_memlock_limit};
use crate::process::time_zone;
use crate::rules::external::{self, ExternalError};
use crate::rules::interfaces;
use crate::rules::loaded;

impl Facts {
    pub(crate) fn gather(config: &Config) -> Self {
        let sets = rustix::thread::capabilities(None);
        let bound_groups = match table::read() {
            Ok(instances) => Some(instances),
            // The kernel creates the table with the first group.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
            Err(_) => None,
        };
        let bound_groups = bound_groups.map(|instances| {
            let with_owners = instances
                .iter()
                .map(|it| (it.group.0, table::owner(it.port_id)));
            with_owners.collect()
        });
        let (ruleset, is_nft_missing) = loaded::read();
        Self {
            capabilities: sets.map_or(CapabilitySet::empty(), |sets| sets.effective),
            lowest_nice: lowest_nice(),
            receive_buffer: receive_buffer().unwrap_or(WANTED_RECEIVE_BUFFER),
            bound_groups,
            ruleset,
            is_nft_missing,
            interfaces: interfaces::read(),
            forwarding: interfaces::forwarding(),
            has_global_ip6: has_global_ip6(),
            directory: directory(&config.log_directory),
            is_clock_synchronised: clock_sync::is_synchronised(),
            time_zone: time_zone::check(config.zone).err(),
            kernel: kernel(),
            crosscheck_error: crosscheck_error(config),
            links: InterfaceFacts::gather(config),
        }
    }
}

/// Loads the cross-check, as the daemon does at its start.
fn crosscheck_error(config: &Config) -> Option<String> {
    let crosscheck = config.crosscheck.as_ref()?;
    raise_memlock_limit();
    let tried = session::try_to_load(crosscheck, config.interval);
    tried.err().map(|error| format!("{error:#}"))
}

fn lowest_nice() -> i32 {
    // RLIMIT_NICE is 20 less the nice value (getrlimit(2)).
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nice);
    let limit = limit.current.unwrap_or(40).min(40);
    let own = rustix::process::getpriority_process(None).unwrap_or(0);
    own.min(20 - i32::try_from(limit).unwrap_or(40))
}

/// Requested in the same way as the daemon requests it.
fn receive_buffer() -> io::Result<usize> {
    set_receive_buffer(&socket_option::udp_socket()?)
}

fn has_global_ip6() -> bool {
    // Address, index, prefix length, scope (0 is global), flags, device; if_inet6 of proc_net(5).
    let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        // Private networks (fc00::/7) do not count: containers have such addresses.
        let is_private = columns
            .first()
            .is_some_and(|it| it.starts_with("fc") || it.starts_with("fd"));
        columns.get(3) == Some(&"00") && columns.get(5) != Some(&"lo") && !is_private
    })
}

fn directory(wanted: &Path) -> Directory {
    /// `linux/magic.h`.
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    const RAMFS_MAGIC: i64 = 0x8584_58f6;
    let wanted = &std::path::absolute(wanted).unwrap_or_else(|_| wanted.to_owned());
    let existing = wanted.ancestors().find(|path| path.exists());
    let existing = existing.unwrap_or(Path::new("/")).to_owned();
    let access = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let jsonl = LogDirectory::open(wanted).and_then(|directory| journal::check(&directory));
    let space = rustix::fs::statvfs(&existing).ok();
    let kind = rustix::fs::statfs(&existing).ok();
    #[allow(clippy::unnecessary_cast, reason = "the type differs between machines")]
    let kind = kind.map(|found| found.f_type as i64);
    Directory {
        is_a_file: !existing.is_dir(),
        is_writable: rustix::fs::accessat(CWD, &existing, access, AtFlags::EACCESS).is_ok(),
        jsonl_error: jsonl
            .err()
            .filter(|error| error.kind() != io::ErrorKind::NotFound)
            .map(|error| error.to_string()),
        is_read_only: space
            .as_ref()
            .is_some_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY)),
        is_in_memory: matches!(kind, Some(TMPFS_MAGIC | RAMFS_MAGIC)),
        free_bytes: space
            .as_ref()
            .map_or(u64::MAX, |it| it.f_bavail.saturating_mul(it.f_frsize)),
        free_files: space.filter(|it| it.f_files > 0).map(|it| it.f_favail),
        existing,
    }
}

fn kernel() -> Kernel {
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok();
    // The table exists once NFLOG is loaded. Until then, a module may be loaded on demand.
    let has_nflog = Path::new("/proc/thread-self/net/netfilter/nfnetlink_log").exists()
        || !matches!(
            external::run("modprobe", &["--dry-run", "nfnetlink_log"], ""),
            Err(ExternalError::Refused { .. })
        );
    let tracked = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    Kernel {
        version: kernel_version(),
        has_nflog,
        tracks_connections: tracked.is_ok_and(|count| count.trim() != "0"),
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        has_bpf_jit: jit.map(|it| it.trim() != "0"),
    }
}
