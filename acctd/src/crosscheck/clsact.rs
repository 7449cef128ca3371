//! The clsact qdisc, through which programs are attached where TCX is not used. Unlike a TCX link it
//! outlives the process, so acctd removes what it has made and finds what a killed acctd has left.
//!
//! The handle of acctd's filters says whether the qdisc is acctd's too, so that the next acctd can
//! remove both.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use aya::programs::TcAttachType;
use aya::programs::tc::{self, NlOptions, TcError, TcHandle};
use log::warn;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::tc_netlink::{self, CLSACT_EGRESS, CLSACT_INGRESS, Filter};

/// Of filters on a qdisc that was there, and on one that acctd has added.
const HANDLE: TcHandle = TcHandle::new(0, 0xacc1);
const HANDLE_OWN_QDISC: TcHandle = TcHandle::new(0, 0xacc2);

/// The qdisc of one interface, held for as long as acctd's filters are on it.
#[derive(Debug)]
pub struct Clsact {
    interface: String,
    index: u32,
    is_ours: bool,
    _claim: OwnedFd,
}

impl Clsact {
    /// Makes sure that the interface has the qdisc, and that no filter is on it that an acctd which
    /// was killed has left: one of `names`.
    pub fn ensure(interface: &str, index: u32, names: &[&str]) -> Result<Self> {
        let Some(claim) = claim(interface)? else {
            bail!(
                "another acctd cross-checks {interface} by clsact: stop it, or use --crosscheck-attach tcx"
            );
        };
        let mut clsact = Self {
            interface: interface.to_owned(),
            index,
            is_ours: false,
            _claim: claim,
        };
        clsact.remove_leftovers(names)?;
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => clsact.is_ours = true,
            Err(error) if is_there_already(&error) => clsact.must_be_clsact()?,
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("cannot add the clsact qdisc to {interface} (CONFIG_NET_CLS_ACT)")
                });
            }
        }
        Ok(clsact)
    }

    /// Where acctd's filter goes: in front of all others, if they let it.
    pub fn options(&self, hook: TcAttachType) -> Result<NlOptions> {
        let interface = &self.interface;
        let others = tc_netlink::filters(self.index, parent(hook))
            .with_context(|| format!("cannot see which filters {interface} has"))?;
        // The kernel keeps filters of one kind in each priority, the latest in front.
        let is_taken = |priority: u16| {
            others
                .iter()
                .any(|filter| filter.priority() == priority && filter.kind != "bpf")
        };
        let priority = (1..u16::MAX)
            .find(|&priority| !is_taken(priority))
            .with_context(|| format!("{interface} has filters in all priorities"))?;
        if priority > 1 {
            warn!(
                "{interface}: somebody else's {} filter has priority 1, so acctd's comes after it and does not count what that one keeps to itself; give it a higher number",
                others.first().map_or("", |filter| filter.kind.as_str())
            );
        }
        Ok(NlOptions {
            priority,
            handle: if self.is_ours {
                HANDLE_OWN_QDISC
            } else {
                HANDLE
            },
            ..NlOptions::default()
        })
    }

    /// Whether acctd's own filters are there, so many. If that cannot be told, they are.
    #[must_use]
    pub fn has_own_filters(&self, names: &[&str], count: usize) -> bool {
        filters_named(self.index, names).map_or(true, |found| found.len() == count)
    }

    fn remove_leftovers(&mut self, names: &[&str]) -> Result<()> {
        let interface = &self.interface;
        for filter in filters_named(self.index, names)? {
            filter.delete().with_context(|| {
                format!(
                    "cannot remove the filter {} from {interface} that an acctd which was killed has left",
                    filter.name
                )
            })?;
            warn!(
                "{interface}: removed the filter {} that an acctd which was killed had left",
                filter.name
            );
            self.is_ours |= filter.handle() == u32::from(HANDLE_OWN_QDISC);
        }
        Ok(())
    }

    /// Its predecessor has the same place, but no egress: filters for that would run on ingress.
    fn must_be_clsact(&self) -> Result<()> {
        let interface = &self.interface;
        let kind = tc_netlink::qdisc_kind(self.index)
            .with_context(|| format!("cannot see which qdisc {interface} has"))?;
        match kind.as_deref() {
            Some("clsact") | None => Ok(()),
            Some(other) => bail!(
                "{interface} has the qdisc {other} in the place of clsact, which has no egress: remove it, or use --crosscheck-attach tcx"
            ),
        }
    }
}

/// Removes the filters, and the qdisc, that an acctd which was killed has left. What a living one
/// has there stays.
pub fn clean_up(interface: &str, index: u32, names: &[&str]) -> Result<()> {
    if filters_named(index, names)?.is_empty() {
        return Ok(());
    }
    let Some(claim) = claim(interface)? else {
        return Ok(());
    };
    let mut clsact = Clsact {
        interface: interface.to_owned(),
        index,
        is_ours: false,
        _claim: claim,
    };
    clsact.remove_leftovers(names)
}

impl Drop for Clsact {
    /// Somebody else's filters may be on it by now: then it stays.
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let removed = has_filters(self.index).and_then(|has| {
            if has {
                Ok(())
            } else {
                tc_netlink::delete_clsact(self.index)
            }
        });
        match removed {
            Ok(()) => {}
            // The interface is gone, and the qdisc with it, or somebody has removed the qdisc.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)
                ) => {}
            Err(error) => warn!(
                "cannot remove the clsact qdisc from {}: {error}; do it by: tc qdisc del dev {} clsact",
                self.interface, self.interface
            ),
        }
    }
}

fn is_there_already(error: &TcError) -> bool {
    match error {
        TcError::AlreadyAttached => true,
        TcError::NetlinkError(error) => error.raw_os_error() == Some(libc::EEXIST),
        _ => false,
    }
}

/// A name that lives in the network namespace and goes with its holder, however that ends. So a
/// filter on an interface that nobody claims is a dead acctd's. `None` if somebody has it.
fn claim(interface: &str) -> Result<Option<OwnedFd>> {
    let name = format!("acctd/clsact/{interface}");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    match rustix::net::bind(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::ADDRINUSE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parent(hook: TcAttachType) -> u32 {
    match hook {
        TcAttachType::Ingress => CLSACT_INGRESS,
        TcAttachType::Egress => CLSACT_EGRESS,
        TcAttachType::Custom(parent) => parent,
    }
}

/// Acctd's filters, whether the acctd lives or not.
fn filters_named(index: u32, names: &[&str]) -> Result<Vec<Filter>> {
    let mut found: Vec<Filter> = Vec::new();
    for parent in [CLSACT_INGRESS, CLSACT_EGRESS] {
        let filters = tc_netlink::filters(index, parent).context("cannot see the filters")?;
        found.extend(
            filters
                .into_iter()
                .filter(|filter| filter.kind == "bpf" && names.contains(&filter.name.as_str())),
        );
    }
    Ok(found)
}

fn has_filters(index: u32) -> io::Result<bool> {
    for parent in [CLSACT_INGRESS, CLSACT_EGRESS] {
        if !tc_netlink::filters(index, parent)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
