//! The clsact qdisc, to which programs are attached if TCX is not used. Unlike a TCX link, it outlives the
//! process. So acctd removes what it has added, and what a killed acctd has left: filters with acctd's names
//! whose programs nobody claims.
//!
//! The handle of a filter of acctd's says whether an acctd added the qdisc as well. So the last acctd on an
//! interface removes both.
//!
//! An interface has either `clsact` or its predecessor `ingress`, which shapers use. acctd shares `ingress`
//! too, but that one has no egress.

use std::io;

use anyhow::{Context, Result, bail};
use aya::programs::TcAttachType;
use aya::programs::tc::{self, NlOptions, TcError, TcHandle};
use log::{info, warn};

use super::claims;
pub(super) use super::tc_netlink::Filter;
use super::tc_netlink::{self, CLSACT_EGRESS, CLSACT_INGRESS};

/// The handle of a filter contains the program's id, so that several acctds never use the same handle.
const HANDLES: u32 = 0x4000_0000;
const HANDLE_ID_BITS: u32 = 0x0fff_ffff;
/// In the handle: an acctd added the qdisc.
const OWN_QDISC: u32 = 1;

/// The qdisc of one interface, for as long as acctd's filters are on it.
#[derive(Debug)]
pub(crate) struct Clsact {
    interface: String,
    index: u32,
    /// Whether an acctd added it.
    pub(crate) is_ours: bool,
    /// False for the `ingress` qdisc.
    pub(crate) has_egress: bool,
}

impl Clsact {
    /// Makes sure that the interface has a qdisc for filters, and removes filters called one of `names` that
    /// a killed acctd has left. Adds a qdisc only if `may_add`.
    pub(crate) fn ensure(
        interface: &str,
        index: u32,
        names: &[&str],
        may_add: bool,
    ) -> Result<Self> {
        let mut clsact = Self::found(interface, index)?;
        clsact.remove_leftovers(names)?;
        if clsact.kind()?.is_some() {
            return Ok(clsact);
        }
        if !may_add {
            bail!(
                "{interface} has no qdisc for filters: somebody has removed the one that acctd shared"
            );
        }
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => {
                clsact.is_ours = true;
                clsact.has_egress = true;
                info!(
                    "{interface}: acctd has added the clsact qdisc; while it is there, no ingress qdisc can be added (tc qdisc add dev {interface} ingress): a shaper that needs one is started before acctd, which then shares it"
                );
                Ok(clsact)
            }
            // Another program added it since.
            Err(error) if is_there_already(&error) => Self::found(interface, index),
            Err(error) => Err(error).with_context(|| {
                format!("cannot add the clsact qdisc to {interface} (CONFIG_NET_CLS_ACT)")
            }),
        }
    }

    fn found(interface: &str, index: u32) -> Result<Self> {
        let mut clsact = Self {
            interface: interface.to_owned(),
            index,
            is_ours: false,
            has_egress: true,
        };
        clsact.has_egress = clsact.kind()?.as_deref() != Some("ingress");
        Ok(clsact)
    }

    /// Priority and handle of this program's filter: before all others, if possible.
    pub(crate) fn options(&self, hook: TcAttachType, program: u32) -> Result<NlOptions> {
        let interface = &self.interface;
        let others = filters_of(self.index, hook)?;
        // Filters of one priority are all of one kind, and the latest runs first.
        let is_taken = |priority: u16| {
            others
                .iter()
                .any(|filter| filter.priority() == priority && filter.kind != "bpf")
        };
        let priority = (1..u16::MAX)
            .find(|&priority| !is_taken(priority))
            .with_context(|| format!("{interface} has filters in all priorities"))?;
        let handle =
            HANDLES | ((program & HANDLE_ID_BITS) << 1) | if self.is_ours { OWN_QDISC } else { 0 };
        Ok(NlOptions {
            priority,
            handle: TcHandle::from(handle),
            ..NlOptions::default()
        })
    }

    fn remove_leftovers(&mut self, names: &[&str]) -> Result<()> {
        let interface = &self.interface;
        for filter in self.filters_named(names)? {
            // Even if its acctd is running: the last acctd removes the qdisc.
            self.is_ours |= filter.handle() & !(HANDLE_ID_BITS << 1) == HANDLES | OWN_QDISC;
            if claims::is_claimed(filter.program) {
                continue;
            }
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
        }
        Ok(())
    }

    /// `clsact`, `ingress` or none.
    fn kind(&self) -> Result<Option<String>> {
        tc_netlink::qdisc_kind(self.index)
            .with_context(|| format!("cannot read the qdiscs of {}", self.interface))
    }

    /// Asked for the egress filters of an `ingress` qdisc, the kernel lists those of ingress again.
    fn hooks(&self) -> &'static [TcAttachType] {
        if self.has_egress {
            &[TcAttachType::Ingress, TcAttachType::Egress]
        } else {
            &[TcAttachType::Ingress]
        }
    }

    /// The filters of acctds, running or killed.
    fn filters_named(&self, names: &[&str]) -> Result<Vec<Filter>> {
        let mut found = Vec::new();
        for hook in self.hooks() {
            let filters = filters_of(self.index, *hook)?.into_iter();
            found
                .extend(filters.filter(|filter| {
                    filter.kind == "bpf" && names.contains(&filter.name.as_str())
                }));
        }
        Ok(found)
    }

    fn has_filters(&self) -> io::Result<bool> {
        for hook in self.hooks() {
            if !tc_netlink::filters(self.index, parent(*hook))?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Removes the filters and the qdisc that a killed acctd has left. Those of a running acctd stay.
pub(crate) fn clean_up(interface: &str, index: u32, names: &[&str]) -> Result<()> {
    let mut clsact = Clsact::found(interface, index)?;
    // Then the drop removes the qdisc, if an acctd added it and nobody uses it.
    clsact.remove_leftovers(names)
}

impl Drop for Clsact {
    /// The qdisc stays if it has foreign filters by now.
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let removed = self.has_filters().and_then(|has| {
            if has {
                Ok(())
            } else {
                tc_netlink::delete_clsact(self.index)
            }
        });
        match removed {
            Ok(()) => {}
            // The interface is gone, or somebody has removed the qdisc.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)
                ) => {}
            Err(error) => warn!(
                "cannot remove the clsact qdisc from {}: {error}; remove it with: tc qdisc del dev {} clsact",
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

fn parent(hook: TcAttachType) -> u32 {
    match hook {
        TcAttachType::Ingress => CLSACT_INGRESS,
        TcAttachType::Egress => CLSACT_EGRESS,
        TcAttachType::Custom(parent) => parent,
    }
}

/// The filters of a hook, in the order in which they run.
pub(crate) fn filters_of(index: u32, hook: TcAttachType) -> Result<Vec<Filter>> {
    tc_netlink::filters(index, parent(hook)).context("cannot read the filters")
}
