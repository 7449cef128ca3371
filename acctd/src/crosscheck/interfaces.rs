//! The interfaces that are cross-checked: acctd's programs are put on each as soon as it is there, and again
//! whenever they are not, or not in front, any more. None of that keeps acctd from accounting: what differs
//! in an interval in which one of them was not seen whole is not checked.

use std::time::{Duration, Instant};

use acctd_common::contract::{SIDE_DEST, SIDE_SOURCE, accounted_bit};
use anyhow::Result;
use aya::Ebpf;
use log::{debug, info, warn};

use super::attach::{AttachError, Attached, Condition, InFront};
use super::link_events::LinkEvents;
use crate::config::crosscheck::{AttachMode, CrossCheckConfig, End, Watched};
use crate::crosscheck::tc_netlink::index_of;
use crate::model::crosscheck_state::InterfaceState;

/// How long to wait for whoever has removed a qdisc that acctd shared to put it back, before acctd adds one of
/// its own, in whose place none of theirs can be put. A shaper that is started again takes some seconds.
const QDISC_COMES_BACK: Duration = Duration::from_secs(10);

/// How many programs that acctd went in front of are remembered.
const MOST_PASSED: usize = 64;

/// All that the command line names.
#[derive(Debug)]
pub struct Interfaces {
    mode: AttachMode,
    all: Vec<Interface>,
    /// `None` where the kernel does not let us hear of them.
    events: Option<LinkEvents>,
}

#[derive(Debug)]
struct Interface {
    watched: Watched,
    /// A group accounts what its egress program counts.
    needs_egress: bool,
    /// `None` while it is away, or cannot be attached to.
    attached: Option<Attached>,
    was_attached: bool,
    /// Acctd has gone in front of these once. Somebody who insists is left there: two who do would be at it
    /// every second.
    passed: Vec<InFront>,
    /// When somebody was seen to have removed a qdisc that acctd shared.
    qdisc_gone: Option<Instant>,
    /// As it was last said.
    trouble: Option<String>,
}

impl Interfaces {
    /// Attaches to those that are there. Fails where that is not a matter of time: a capability that
    /// is missing, a kernel that is too old. An interface that is not there may come.
    pub fn start(config: &CrossCheckConfig, ebpf: &mut Ebpf) -> Result<Self> {
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
            passed: Vec::new(),
            qdisc_gone: None,
            trouble: None,
        });
        // Before the first look, so that nothing is missed.
        let events = LinkEvents::listen()
            .inspect_err(|error| debug!("cannot hear of interfaces that come and go: {error}"));
        let mut interfaces = Self {
            mode: config.attach,
            all: all.collect(),
            events: events.ok(),
        };
        for interface in &mut interfaces.all {
            match interface.put_on(ebpf, config.attach) {
                Err(AttachError::ForGood(error)) => return Err(error),
                Err(AttachError::ForNow(error)) => interface.say(Some(format!("{error:#}"))),
                Ok(()) => {}
            }
        }
        Ok(interfaces)
    }

    /// Looks at all of them, and attaches anew where need be. Returns whether one of them was not seen whole
    /// since the last look.
    pub fn look(&mut self, ebpf: &mut Ebpf) -> bool {
        let mut is_uneven = self.take_off();
        for interface in &mut self.all {
            if interface.attached.is_none()
                && let Err(error) = interface.put_on(ebpf, self.mode)
            {
                let error = error.into_inner();
                interface.say(Some(format!("{error:#}")));
            }
            is_uneven |= interface.trouble.is_some();
        }
        is_uneven
    }

    /// The same, but attaches to none: it is over.
    pub fn look_a_last_time(&mut self) -> bool {
        let is_uneven = self.take_off();
        is_uneven || self.all.iter().any(|one| one.trouble.is_some())
    }

    /// Takes the programs off those interfaces where they are not as they should be. First from all:
    /// two may have exchanged their names. Returns whether there was one.
    fn take_off(&mut self) -> bool {
        let gone = self.events.as_mut().map(LinkEvents::gone);
        let mut is_changed = false;
        for interface in &mut self.all {
            is_changed |= interface.take_off_if_need_be(gone.as_deref().unwrap_or_default());
        }
        is_changed
    }

    /// In the order of the command line.
    #[must_use]
    pub fn states(&self) -> Vec<InterfaceState> {
        let all = self.all.iter();
        all.map(|one| InterfaceState {
            interface: one.watched.interface.clone(),
            is_attached: one.attached.is_some(),
            problem: one.trouble.clone(),
        })
        .collect()
    }
}

impl Interface {
    /// Returns whether it was.
    fn take_off_if_need_be(&mut self, gone: &[u32]) -> bool {
        let Some(attached) = &self.attached else {
            return false;
        };
        let interface = &self.watched.interface;
        let index = index_of(interface);
        if index != Some(attached.index) || gone.contains(&attached.index) {
            if index.is_some() {
                // What is there now is another one, or was elsewhere for a while.
                warn!("{interface} was gone for a moment: its packets were not cross-checked");
            }
            self.attached = None;
            return true;
        }
        match attached.condition() {
            Condition::Whole => {
                self.say(self.lack(attached));
                false
            }
            Condition::Removed(hook) => {
                warn!(
                    "somebody has removed the cross-check's filters from {interface} ({hook}): they are put back"
                );
                if attached.shares_qdisc() {
                    self.qdisc_gone = Some(Instant::now());
                }
                self.attached = None;
                true
            }
            Condition::Behind(others) => {
                let can_pass =
                    |one: &&InFront| attached.can_pass(one) && !self.passed.contains(one);
                let new: Vec<InFront> = others.iter().filter(can_pass).cloned().collect();
                if new.is_empty() {
                    self.say(Some(stays_in_front(&others)));
                    return false;
                }
                warn!(
                    "{} was put in front of the cross-check's program, which does not see what that one keeps to itself: acctd goes in front again",
                    list(&new)
                );
                self.passed.extend(new);
                let n_forgotten = self.passed.len().saturating_sub(MOST_PASSED);
                self.passed.drain(..n_forgotten);
                self.attached = None;
                true
            }
        }
    }

    /// Attaches, if it is there.
    fn put_on(&mut self, ebpf: &mut Ebpf, mode: AttachMode) -> Result<(), AttachError> {
        let interface = self.watched.interface.clone();
        let Some(index) = index_of(&interface) else {
            self.say(Some(if self.was_attached {
                format!("{interface} is gone: its packets are not cross-checked until it is back")
            } else {
                format!(
                    "there is no interface {interface}: its packets are not cross-checked until it comes; if that is not its name, see ip -br link"
                )
            }));
            return Ok(());
        };
        let gone_for = self.qdisc_gone.map(|since| since.elapsed());
        let may_add_qdisc = gone_for.is_none_or(|time| time >= QDISC_COMES_BACK);
        let attached = Attached::attach(ebpf, &self.watched, index, mode, may_add_qdisc)?;
        if self.was_attached {
            info!("{interface} is back and is cross-checked again");
        } else {
            info!("Cross-checking {}", self.watched);
        }
        self.was_attached = true;
        self.qdisc_gone = None;
        match attached.condition() {
            Condition::Behind(others) => self.say(Some(stays_in_front(&others))),
            // Seen at the next look, if it is so.
            Condition::Whole | Condition::Removed(_) => self.say(self.lack(&attached)),
        }
        self.attached = Some(attached);
        Ok(())
    }

    /// What cannot be had from this interface's qdisc.
    fn lack(&self, attached: &Attached) -> Option<String> {
        let interface = &self.watched.interface;
        (attached.lacks_egress() && self.needs_egress).then(|| format!(
            "{interface} has the qdisc ingress, which acctd shares, in the place of clsact: it has no egress, so what {interface} sends is not cross-checked; use --crosscheck-attach tcx (Linux 6.6)"
        ))
    }

    /// Once, until it is something else.
    fn say(&mut self, trouble: Option<String>) {
        if let Some(trouble) = &trouble
            && self.trouble.as_ref() != Some(trouble)
        {
            warn!("{trouble}");
        }
        self.trouble = trouble;
    }
}

fn stays_in_front(others: &[InFront]) -> String {
    format!(
        "{} stays in front of the cross-check's program, which does not see what that one keeps to itself: what differs is not checked",
        list(others)
    )
}

fn list(others: &[InFront]) -> String {
    let shown: Vec<String> = others.iter().map(ToString::to_string).collect();
    shown.join(" and ")
}
