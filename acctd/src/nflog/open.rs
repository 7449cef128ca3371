//! Opens a group. If that fails, the error says what to do.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use log::{debug, info, warn};
use rustix::net::{RecvFlags, SendFlags};
use rustix::thread::CapabilitySet;

use crate::model::group::{GroupConfig, NflogGroup};
use crate::nflog::message::{self, MESSAGE_PACKET, NLM_F_ACK, NLM_F_REQUEST};
use crate::nflog::socket::{
    NflogSocket, WANTED_RECEIVE_BUFFER, Waiting, centiseconds, copy_range, netfilter_socket,
};
use crate::nflog::table::{self, COPY_PACKET, Instance};
use crate::restart::handover::{FdStore, socket_name};
use crate::restart::systemd;

/// Opens one group, and passes a copy of its socket to the service manager.
pub(crate) fn open_group(config: &GroupConfig, flush_timeout: Duration) -> Result<NflogSocket> {
    let family = config.prefix_length.family();
    if let Some(taken) = find_instance(config.group).unwrap_or(None) {
        return Err(taken_by(&taken));
    }
    let socket = NflogSocket::open(config.group, family, flush_timeout)
        .map_err(|error| explain_refusal(config.group, &error))?;
    verify(config, &socket, flush_timeout)?;
    systemd::store(&socket_name(config.group), socket.as_fd());
    Ok(socket)
}

/// Fails if another process has one of the groups. It runs before acctd drops its rights, because then
/// acctd can still name that process. Opening a group checks this again.
pub(crate) fn refuse_taken_groups(groups: &[GroupConfig]) -> Result<()> {
    for config in groups {
        match find_instance(config.group) {
            // Otherwise the service manager kept it for us.
            Ok(Some(taken)) if !table::is_ours(taken.port_id) => {
                return Err(taken_by(&taken));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A group that is bound.
pub(crate) struct OpenGroup {
    pub(crate) socket: NflogSocket,
    /// What waits in the socket, if an earlier acctd has bound it.
    pub(crate) kept: Option<Waiting>,
}

/// Logs which group is read, and which address it accounts.
pub(crate) fn announce(config: &GroupConfig) {
    info!(
        "Monitoring NFLog multicast group {} for IPv{} {} mask /{}",
        config.group,
        config.prefix_length.family().version(),
        config.side.name(),
        config.prefix_length.bits()
    );
}

/// The group's socket that the service manager has kept, if there is one. Sockets that fail the checks are
/// closed.
pub(crate) fn take_over(
    config: &GroupConfig,
    flush_timeout: Duration,
    store: &mut FdStore,
) -> Option<OpenGroup> {
    let group = config.group;
    let mut taken_over: Option<OpenGroup> = None;
    let mut is_another_there = false;
    for fd in store.take_sockets(group) {
        if taken_over.is_some() {
            is_another_there = true;
            continue;
        }
        match check_kept(config, flush_timeout, fd) {
            Ok(group) => taken_over = Some(group),
            Err(error) => {
                is_another_there = true;
                warn!(
                    "group {group}: the socket that the service manager has kept is not used: {error:#}; opening the group again"
                );
            }
        }
    }
    if is_another_there {
        let name = socket_name(group);
        systemd::remove_stored(&name);
        if let Some(OpenGroup { socket, .. }) = &taken_over {
            systemd::store(&name, socket.as_fd());
        }
        systemd::barrier_or_warn();
    }
    if taken_over.is_some() {
        info!("Group {group} continues: its socket was kept, with the packets logged meanwhile");
    }
    taken_over
}

fn check_kept(config: &GroupConfig, flush_timeout: Duration, fd: OwnedFd) -> Result<OpenGroup> {
    let family = config.prefix_length.family();
    let (socket, waiting) = NflogSocket::take_over(fd, config.group, family, flush_timeout)?;
    if let Err(error) = verify(config, &socket, flush_timeout) {
        // The service manager has a copy. While that is bound, the group cannot be opened.
        socket.unbind()?;
        return Err(error);
    }
    Ok(OpenGroup {
        socket,
        kept: Some(waiting),
    })
}

fn find_instance(group: NflogGroup) -> io::Result<Option<Instance>> {
    let instances = table::read()?;
    Ok(instances
        .into_iter()
        .find(|instance| instance.group == group))
}

fn taken_by(instance: &Instance) -> anyhow::Error {
    let group = instance.group;
    match table::owner(instance.port_id) {
        Some(owner) => {
            anyhow!("group {group} is taken by {owner}: stop it or choose another group")
        }
        None => anyhow!(
            "group {group} is taken by a process that is not visible from here (netlink port {}): stop it or choose another group",
            instance.port_id
        ),
    }
}

/// The kernel returns EPERM both if another socket has the group and if privileges are missing.
fn explain_refusal(group: NflogGroup, error: &io::Error) -> anyhow::Error {
    let privileged = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
    if error.kind() == io::ErrorKind::PermissionDenied {
        if !privileged {
            return anyhow!(
                "cannot open NFLOG group {group}: {error}: this requires CAP_NET_ADMIN; run acctd as root or grant it (setcap cap_net_admin+ep, AmbientCapabilities=CAP_NET_ADMIN)"
            );
        }
        if may_use_netfilter().is_ok_and(|may| !may) {
            return anyhow!(
                "cannot open NFLOG group {group}: {error}: CAP_NET_ADMIN does not reach this network namespace; run acctd in the user namespace that owns it"
            );
        }
        return match find_instance(group) {
            Ok(Some(taken)) => taken_by(&taken),
            // The table cannot be read, or the owner has just unbound the group.
            _ => anyhow!(
                "cannot open NFLOG group {group}: {error}: it is taken by another process; see /proc/net/netfilter/nfnetlink_log as root, stop that process or choose another group"
            ),
        };
    }
    let cure = match error.raw_os_error() {
        Some(libc::EMFILE) => "raise LimitNOFILE (ulimit -n)",
        Some(libc::ENFILE) => "raise fs.file-max",
        _ => "does this kernel have NFLOG (CONFIG_NETFILTER_NETLINK_LOG)?",
    };
    anyhow!("cannot open NFLOG group {group}: {error}; {cure}")
}

/// Whether the kernel accepts requests from us in this network namespace. The capabilities of a user namespace
/// do not reach a network namespace that another one owns, and netfilter checks this before it looks at a
/// request. So this request is one that the kernel never carries out: a packet.
fn may_use_netfilter() -> io::Result<bool> {
    let request = message::request(MESSAGE_PACKET, NLM_F_REQUEST | NLM_F_ACK, 0, 0, &[]);
    let socket = netfilter_socket()?;
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    // The kernel has replied before `send` returns.
    let mut answer = [0; 256];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::DONTWAIT)?;
    match message::reply(&answer[..length]) {
        Some((_, Err(error))) => Ok(error.raw_os_error() != Some(libc::EPERM)),
        Some((_, Ok(()))) => Ok(true),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Compares the group's settings with those that the kernel shows.
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
            "group {group}: the kernel has copy mode, copy range and flush timeout {found:?} instead of {wanted:?}; try again"
        );
    }
    Ok(())
}

/// Warns if the receive buffer is smaller than requested.
pub(crate) fn check_receive_buffer(socket: &NflogSocket) {
    let granted = socket.receive_buffer();
    if granted < WANTED_RECEIVE_BUFFER {
        warn!(
            "receive buffer is {} KiB instead of {} KiB: packets are lost sooner under load; raise net.core.rmem_max or give acctd CAP_NET_ADMIN in the first user namespace",
            granted / 1024,
            WANTED_RECEIVE_BUFFER / 1024
        );
    }
}
