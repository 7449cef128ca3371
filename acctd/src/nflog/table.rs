//! `/proc/net/netfilter/nfnetlink_log`: which groups are bound, by whom, and with which settings.
//!
//! It has one line per group (`seq_show` in `net/netfilter/nfnetlink_log.c`): group, port id of the owner's
//! socket, packets in the batch, copy mode, copy range, flush timeout (1/100 s), use count. Only the root of
//! the network namespace can read it.

use std::path::Path;
use std::{fs, io};

use crate::model::group::NflogGroup;

/// Of this thread's network namespace; `/proc/net` shows that of the process's first thread.
const TABLE: &str = "/proc/thread-self/net/netfilter/nfnetlink_log";
/// Columns: sk, protocol, port id, groups, rmem, wmem, dump, locks, drops, inode.
const NETLINK_SOCKETS: &str = "/proc/thread-self/net/netlink";
/// `NETLINK_NETFILTER` in `linux/netlink.h`.
const NETLINK_NETFILTER: &str = "12";

/// `NFULNL_COPY_PACKET`.
pub const COPY_PACKET: u8 = 2;

/// A group that is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The group's number.
    pub group: NflogGroup,
    /// The netlink port id of the socket: the owner's pid, or a random number if the owner has more than one
    /// netlink socket.
    pub port_id: u32,
    /// `NFULNL_COPY_*`.
    pub copy_mode: u8,
    /// Bytes of each packet, unless the rule has a smaller snaplen.
    pub copy_range: u32,
    /// Unit: 1/100 s.
    pub flush_timeout: u32,
}

/// The groups that are bound in this network namespace. Errors: `NotFound` if the kernel has not loaded
/// NFLOG, `PermissionDenied` without root.
pub fn read() -> io::Result<Vec<Instance>> {
    Ok(parse(&fs::read_to_string(TABLE)?))
}

/// The groups in the table's text.
#[must_use]
pub fn parse(table: &str) -> Vec<Instance> {
    table.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Instance> {
    let mut columns = line.split_whitespace();
    let group = NflogGroup(columns.next()?.parse().ok()?);
    let port_id = columns.next()?.parse().ok()?;
    let _in_batch = columns.next()?;
    Some(Instance {
        group,
        port_id,
        copy_mode: columns.next()?.parse().ok()?,
        copy_range: columns.next()?.parse().ok()?,
        flush_timeout: columns.next()?.parse().ok()?,
    })
}

/// The process that holds the netlink socket with this port id, as `pid 812 (ulogd)`. `None` if it is not
/// visible from here (another pid namespace, another user). A service manager keeps copies of sockets for
/// others, so it is named only if no other process holds the socket.
#[must_use]
pub fn owner(port_id: u32) -> Option<String> {
    const MANAGER: &str = "1";
    let link = socket_link(port_id)?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let holders = processes.filter(|process| holds(&process.path(), &link));
    let pids = holders.map(|found| found.file_name().to_string_lossy().into_owned());
    let pids: Vec<String> = pids.collect();
    let others = pids.iter().find(|pid| *pid != MANAGER);
    others.or(pids.first()).map(|pid| process(pid))
}

/// Whether this process holds the netlink socket with this port id.
pub(crate) fn is_ours(port_id: u32) -> bool {
    socket_link(port_id).is_some_and(|link| holds(Path::new("/proc/self"), &link))
}

/// The target of the links in `/proc/PID/fd` to this socket.
fn socket_link(port_id: u32) -> Option<String> {
    let sockets = fs::read_to_string(NETLINK_SOCKETS).ok()?;
    let inode = socket_inode(&sockets, port_id)?;
    Some(format!("socket:[{inode}]"))
}

/// A process as messages name it: `pid 812 (ulogd)`.
pub(crate) fn process(pid: &str) -> String {
    match fs::read_to_string(Path::new("/proc").join(pid).join("comm")) {
        Ok(name) => format!("pid {pid} ({})", name.trim_end()),
        Err(_) => format!("pid {pid}"),
    }
}

fn socket_inode(sockets: &str, port_id: u32) -> Option<&str> {
    let port_id = port_id.to_string();
    sockets.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let is_it =
            columns.get(1) == Some(&NETLINK_NETFILTER) && columns.get(2) == Some(&port_id.as_str());
        is_it.then(|| columns.last().copied()).flatten()
    })
}

fn holds(process: &Path, link: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors
        .flatten()
        .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_group() {
        let table =
            "    5  22531     0 2    20    100  1\n65535 4294963200   17 1     0   1000  1\n";
        assert_eq!(
            parse(table),
            [
                Instance {
                    group: NflogGroup(5),
                    port_id: 22_531,
                    copy_mode: COPY_PACKET,
                    copy_range: 20,
                    flush_timeout: 100,
                },
                Instance {
                    group: NflogGroup(65_535),
                    port_id: 4_294_963_200,
                    copy_mode: 1,
                    copy_range: 0,
                    flush_timeout: 1_000,
                }
            ]
        );
        assert_eq!(parse("nonsense\n\n5 6\n"), []);
    }

    #[test]
    fn a_socket_is_found_by_protocol_and_port() {
        let sockets = "\
sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
00000000f1d7c6ad 0   812        00000000 0        0        0     2        0        4001
00000000e0b0a5a4 12  812        00000000 0        0        0     2        0        4002
";
        assert_eq!(socket_inode(sockets, 812), Some("4002"));
        assert_eq!(socket_inode(sockets, 813), None);
    }
}
