//! The interfaces that are cross-checked. acctd attaches its programs to each as soon as it exists, and again
//! if they are removed or do not run first any more. None of this stops the accounting: if the programs did not
//! see all packets of an interval, its differences are `not checked`.

use std::time::{Duration, Instant};

use acctd_common::contract::{SIDE_DEST, SIDE_SOURCE, accounted_bit};
use anyhow::Result;
use aya::Ebpf;
use log::{debug, info, warn};

use super::attach::{AttachError, AttachState, Attached, PrecedingProgram};
use super::link_events::LinkEvents;
use crate::config::crosscheck::{AttachMode, CrossCheckConfig, End, Watched};
use crate::crosscheck::tc_netlink::index_of;
use crate::model::crosscheck_state::InterfaceState;

/// If a qdisc that acctd shared is removed, acctd waits this long before it adds its own, which would keep the
/// other program from adding it again. A shaper that restarts takes some seconds.
const QDISC_RETURN_TIME: Duration = Duration::from_secs(10);

/// How many overtaken programs to remember.
const MAX_OVERTAKEN: usize = 64;

/// In the order of the command line.
#[derive(Debug)]
pub(crate) struct Interfaces {
    mode: AttachMode,
    all: Vec<Interface>,
    /// `None` if the kernel refuses the subscription.
    events: Option<LinkEvents>,
}

#[derive(Debug)]
struct Interface {
    watched: Watched,
    /// Whether a group accounts what the egress program counts.
    needs_egress: bool,
    /// `None` while the interface does not exist, or attaching fails.
    attached: Option<Attached>,
    was_attached: bool,
    /// acctd has moved in front of these once. One that comes back stays in front: two programs that insist
    /// would attach again every second.
    overtaken: Vec<PrecedingProgram>,
    /// When acctd noticed that a qdisc that it shared was removed.
    qdisc_removed_at: Option<Instant>,
    /// The last one that was logged, while it lasts.
    problem: Option<String>,
}

impl Interfaces {
    /// Attaches to the interfaces that exist. Fails only if no retry can succeed: a capability is missing, or
    /// the kernel is too old.
    pub(crate) fn start(config: &CrossCheckConfig, ebpf: &mut Ebpf) -> Result<Self> {
        let accounts = |side| {
            let both = accounted_bit(4, side) | accounted_bit(6, side);
            config.accounted & both != 0
        };
        let all = config.watched.iter().map(|watched| Interface {
            watched: watched.clone(),
            needs_egress: match watched.end {
                End::Far => accounts(SIDE_DEST),
                End::Near => accounts(SIDE_SOURCE),
            },
            attached: None,
            was_attached: false,
            overtaken: Vec::new(),
            qdisc_removed_at: None,
            problem: None,
        });
        // Before the interfaces are read, so that no event is missed.
        let events = LinkEvents::listen()
            .inspect_err(|error| debug!("cannot subscribe to interface events: {error}"));
        let mut interfaces = Self {
            mode: config.attach,
            all: all.collect(),
            events: events.ok(),
        };
        for interface in &mut interfaces.all {
            match interface.attach(ebpf, config.attach) {
                Err(AttachError::Permanent(error)) => return Err(error),
                Err(AttachError::Temporary(error)) => {
                    interface.set_problem(Some(format!("{error:#}")));
                }
                Ok(()) => {}
            }
        }
        Ok(interfaces)
    }

    /// Checks all interfaces and attaches again where necessary. Returns whether the programs may have missed
    /// packets since the last check.
    pub(crate) fn check(&mut self, ebpf: &mut Ebpf) -> bool {
        let mut is_incomplete = self.detach_changed();
        for interface in &mut self.all {
            if interface.attached.is_none() {
                // If it is back, packets have come already.
                is_incomplete = true;
                if let Err(error) = interface.attach(ebpf, self.mode) {
                    let error = error.into_inner();
                    interface.set_problem(Some(format!("{error:#}")));
                }
            }
            is_incomplete |= interface.problem.is_some();
        }
        is_incomplete
    }

    /// As [`Self::check`], but does not attach again.
    pub(crate) fn check_before_stop(&mut self) -> bool {
        let is_incomplete = self.detach_changed();
        is_incomplete || self.all.iter().any(|one| one.problem.is_some())
    }

    /// Detaches the programs from all interfaces that changed, before any is attached again: two interfaces may
    /// have swapped their names. Returns whether there was one.
    fn detach_changed(&mut self) -> bool {
        let removed = self.events.as_mut().map(LinkEvents::removed);
        let mut is_changed = false;
        for interface in &mut self.all {
            is_changed |= interface.detach_if_changed(removed.as_deref().unwrap_or_default());
        }
        is_changed
    }

    pub(crate) fn states(&self) -> Vec<InterfaceState> {
        let all = self.all.iter();
        all.map(|one| InterfaceState {
            interface: one.watched.interface.clone(),
            is_attached: one.attached.is_some(),
            problem: one.problem.clone(),
        })
        .collect()
    }
}

impl Interface {
    fn detach_if_changed(&mut self, removed: &[u32]) -> bool {
        let Some(attached) = &self.attached else {
            return false;
        };
        let interface = &self.watched.interface;
        let index = index_of(interface);
        if index != Some(attached.index) || removed.contains(&attached.index) {
            if index.is_some() {
                // Either another interface has the name now, or this one was in another network namespace.
                warn!("{interface} was gone for a moment: its packets were not cross-checked");
            }
            self.attached = None;
            return true;
        }
        match attached.state() {
            AttachState::Complete => {
                self.set_problem(self.egress_problem(attached));
                false
            }
            AttachState::Removed(hook) => {
                warn!(
                    "somebody has removed the cross-check's filters from {interface} ({hook}): acctd attaches them again"
                );
                if attached.shares_qdisc() {
                    self.qdisc_removed_at = Some(Instant::now());
                }
                self.attached = None;
                true
            }
            AttachState::Preceded(others) => {
                let is_new = |one: &&PrecedingProgram| {
                    attached.can_overtake(one) && !self.overtaken.contains(one)
                };
                let new: Vec<PrecedingProgram> = others.iter().filter(is_new).cloned().collect();
                if new.is_empty() {
                    self.set_problem(Some(stays_in_front(&others)));
                    return false;
                }
                warn!(
                    "{} was put in front of the cross-check's program and may hide packets from it: acctd moves to the front again",
                    list(&new)
                );
                self.overtaken.extend(new);
                let n_forgotten = self.overtaken.len().saturating_sub(MAX_OVERTAKEN);
                self.overtaken.drain(..n_forgotten);
                self.attached = None;
                true
            }
        }
    }

    /// Attaches, if the interface exists.
    fn attach(&mut self, ebpf: &mut Ebpf, mode: AttachMode) -> Result<(), AttachError> {
        let interface = self.watched.interface.clone();
        let Some(index) = index_of(&interface) else {
            self.set_problem(Some(if self.was_attached {
                format!("{interface} is gone: its packets are not cross-checked until it is back")
            } else {
                format!(
                    "there is no interface {interface}: its packets are not cross-checked until it comes; if that is not its name, see ip -br link"
                )
            }));
            return Ok(());
        };
        let waited = self.qdisc_removed_at.map(|at| at.elapsed());
        let may_add_qdisc = waited.is_none_or(|time| time >= QDISC_RETURN_TIME);
        let attached = Attached::attach(ebpf, &self.watched, index, mode, may_add_qdisc)?;
        if self.was_attached {
            info!("{interface} is back and is cross-checked again");
        } else {
            info!("Cross-checking {}", self.watched);
        }
        self.was_attached = true;
        self.qdisc_removed_at = None;
        match attached.state() {
            AttachState::Preceded(others) => self.set_problem(Some(stays_in_front(&others))),
            // The next check handles a removal.
            AttachState::Complete | AttachState::Removed(_) => {
                self.set_problem(self.egress_problem(&attached));
            }
        }
        self.attached = Some(attached);
        Ok(())
    }

    fn egress_problem(&self, attached: &Attached) -> Option<String> {
        let interface = &self.watched.interface;
        (attached.lacks_egress() && self.needs_egress).then(|| format!(
            "{interface} has the qdisc ingress, which acctd shares, in the place of clsact: it has no egress, so what {interface} sends is not cross-checked; use --crosscheck-attach tcx (Linux 6.6)"
        ))
    }

    /// Logs the problem, unless it is the one that was logged last.
    fn set_problem(&mut self, problem: Option<String>) {
        if let Some(problem) = &problem
            && self.problem.as_ref() != Some(problem)
        {
            warn!("{problem}");
        }
        self.problem = problem;
    }
}

fn stays_in_front(others: &[PrecedingProgram]) -> String {
    format!(
        "{} stays in front of the cross-check's program and may hide packets from it: differences are not checked",
        list(others)
    )
}

fn list(others: &[PrecedingProgram]) -> String {
    let shown: Vec<String> = others.iter().map(ToString::to_string).collect();
    shown.join(" and ")
}
