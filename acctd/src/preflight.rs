//! Whatever could go wrong at the start, found out before anything runs, and said in one line
//! with what to do about it.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use log::{debug, info, warn};
use rustix::fs::Access;
use rustix::thread::CapabilitySet;

use crate::config::{Config, GroupConfig};
use crate::csv_writer;
use crate::nflog_socket::{
    NflogGroup, NflogSocket, WANTED_RECEIVE_BUFFER, centiseconds, copy_range,
};
use crate::nflog_table::{self, COPY_PACKET, Instance};
use crate::summary;

/// Makes the log directory with its parents, mode 0750 as the seed does, and makes sure that
/// files can be made in it.
pub fn prepare_directory(directory: &Path) -> Result<()> {
    let shown = directory.display();
    csv_writer::make_directory(directory).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => anyhow!(
                "log directory {shown}: a file stands in its place; move it, or choose another directory with --log-directory"
            ),
            _ => anyhow!(
                "cannot make log directory {shown}: {error}; make it yourself, or choose another with --log-directory"
            ),
        })?;
    rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        anyhow!(
            "cannot write to log directory {shown}: {error}; change its owner or mode, or choose another with --log-directory"
        )
    })?;
    summary::check(directory).map_err(|error| {
        anyhow!(
            "cannot append to {shown}/{}: {error}; move it away, or choose another directory with --log-directory",
            summary::FILE_NAME
        )
    })
}

/// Opens all groups and makes sure that the kernel has taken their configuration.
pub fn open_groups(config: &Config) -> Result<Vec<NflogSocket>> {
    let sockets: Vec<NflogSocket> = config
        .groups
        .iter()
        .map(|group| open_group(group, config.flush_timeout))
        .collect::<Result<_>>()?;
    if let Some(socket) = sockets.first() {
        check_receive_buffer(socket);
    }
    Ok(sockets)
}

fn open_group(config: &GroupConfig, flush_timeout: Duration) -> Result<NflogSocket> {
    let family = config.prefix_length.family();
    info!(
        "Monitoring NFLog multicast group {} for IPv{} {} mask /{}",
        config.group,
        family.version(),
        config.side.name(),
        config.prefix_length.bits()
    );
    if let Some(taken) = find_instance(config.group).unwrap_or(None) {
        return Err(taken_by(&taken));
    }
    let socket = NflogSocket::open(config.group, family, flush_timeout)
        .map_err(|error| explain_refusal(config.group, &error))?;
    verify(config, &socket, flush_timeout)?;
    Ok(socket)
}

fn find_instance(group: NflogGroup) -> io::Result<Option<Instance>> {
    let instances = nflog_table::read()?;
    Ok(instances
        .into_iter()
        .find(|instance| instance.group == group))
}

fn taken_by(instance: &Instance) -> anyhow::Error {
    let group = instance.group;
    match nflog_table::owner(instance.port_id) {
        Some(owner) => {
            anyhow!("group {group} is taken by {owner}: stop it or choose another group")
        }
        None => anyhow!(
            "group {group} is taken by a process that is not visible from here (netlink port {}): stop it or choose another group",
            instance.port_id
        ),
    }
}

/// The kernel says EPERM for a group that another socket has and for missing privileges alike.
fn explain_refusal(group: NflogGroup, error: &io::Error) -> anyhow::Error {
    let privileged = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
    if error.kind() == io::ErrorKind::PermissionDenied {
        if !privileged {
            return anyhow!(
                "cannot open NFLOG group {group}: {error}: it takes CAP_NET_ADMIN; run acctd as root or grant it (setcap cap_net_admin+ep, AmbientCapabilities=CAP_NET_ADMIN)"
            );
        }
        return match find_instance(group) {
            Ok(Some(taken)) => taken_by(&taken),
            Ok(None) => anyhow!(
                "cannot open NFLOG group {group}: {error}: CAP_NET_ADMIN does not reach this network namespace; run acctd in the user namespace that owns it"
            ),
            Err(_unreadable) => anyhow!(
                "cannot open NFLOG group {group}: {error}: it is most likely taken by another process; see /proc/net/netfilter/nfnetlink_log as root, stop that process or choose another group"
            ),
        };
    }
    anyhow!(
        "cannot open NFLOG group {group}: {error}; does this kernel have NFLOG (CONFIG_NETFILTER_NETLINK_LOG)?"
    )
}

/// Reads back what the kernel shows of the group's configuration.
fn verify(config: &GroupConfig, socket: &NflogSocket, flush_timeout: Duration) -> Result<()> {
    let group = config.group;
    let instance = match find_instance(group) {
        Ok(instance) => instance.with_context(|| {
            format!("group {group} was bound, but the kernel does not show it; try again")
        })?,
        Err(error) => {
            debug!("group {group}: its configuration cannot be read back: {error}");
            return Ok(());
        }
    };
    if instance.port_id != socket.port_id()? {
        return Err(taken_by(&instance));
    }
    let copy_range = copy_range(config.prefix_length.family());
    let wanted = (COPY_PACKET, copy_range, centiseconds(flush_timeout));
    let found = (
        instance.copy_mode,
        instance.copy_range,
        instance.flush_timeout,
    );
    if found != wanted {
        bail!(
            "group {group}: the kernel has copy mode, copy range and flush timeout {found:?}, asked for was {wanted:?}; try again"
        );
    }
    Ok(())
}

fn check_receive_buffer(socket: &NflogSocket) {
    let granted = socket.receive_buffer();
    if granted < WANTED_RECEIVE_BUFFER {
        warn!(
            "receive buffer is {} KiB instead of {} KiB: packets are lost sooner under load; raise net.core.rmem_max or give acctd CAP_NET_ADMIN in the first user namespace",
            granted / 1024,
            WANTED_RECEIVE_BUFFER / 1024
        );
    }
}
