//! Attaches the programs to an interface's hooks, sees whether they are there and in front, and takes
//! them off when dropped.

use std::fmt;

use acctd_common::contract::{EGRESS_DEST, EGRESS_SOURCE, INGRESS_DEST, INGRESS_SOURCE};
use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use log::{debug, info};

use super::clsact::{self, Clsact};
use super::{bpf_syscall, claims, object};
use crate::config::crosscheck::{AttachMode, End, Watched};
use crate::crosscheck::tc_netlink::index_of;

/// Acctd's programs on one interface.
#[derive(Debug)]
pub struct Attached {
    /// The interface's index while they are on it; it changes when the interface comes back.
    pub index: u32,
    interface: String,
    // Dropped in this order: filters before the qdisc that they are on.
    hooked: Vec<Hooked>,
    clsact: Option<Clsact>,
}

/// A program on a hook.
#[derive(Debug)]
struct Hooked {
    hook: TcAttachType,
    program: u32,
    _link: SchedClassifierLink,
}

/// What has become of acctd's programs on an interface.
#[derive(Debug)]
pub enum Condition {
    /// They are there, and see each packet first.
    Whole,
    /// Somebody has taken this one off: `ingress`.
    Removed(&'static str),
    /// These run before one of them, and may keep packets from it.
    Behind(Vec<InFront>),
}

/// A program or filter of somebody else's that runs before acctd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFront {
    interface: String,
    hook: TcAttachType,
    other: Other,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Other {
    /// By its id.
    Tcx(u32),
    Filter {
        kind: String,
        name: String,
        program: u32,
        priority: u16,
    },
}

impl InFront {
    /// Whether acctd may get in front of it by attaching once more.
    fn can_be_passed(&self, has_tcx: bool) -> bool {
        match &self.other {
            Other::Tcx(_) => has_tcx,
            // The kernel keeps filters of one kind in each priority.
            Other::Filter { kind, .. } => kind == "bpf",
        }
    }
}

impl fmt::Display for InFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = hook_name(self.hook);
        match &self.other {
            Other::Tcx(id) => {
                write!(f, "TCX program id {id}")?;
                match program_name(&self.interface, self.hook, *id) {
                    Some(name) => write!(f, " ({name})")?,
                    None => write!(f, " (see bpftool prog show id {id})")?,
                }
                write!(f, " on {} {hook}", self.interface)
            }
            Other::Filter {
                kind,
                name,
                program,
                priority,
            } => {
                write!(f, "{kind} filter of priority {priority}")?;
                if *program > 0 {
                    write!(f, " (program id {program}, {name})")?;
                }
                write!(f, " on {} {hook}", self.interface)
            }
        }
    }
}

/// Why programs cannot be attached.
#[derive(Debug)]
pub enum AttachError {
    /// Whatever happens on this machine, it will not change that.
    ForGood(anyhow::Error),
    /// It may go another time.
    ForNow(anyhow::Error),
}

impl From<anyhow::Error> for AttachError {
    fn from(error: anyhow::Error) -> Self {
        let errno = error.chain().find_map(errno_of);
        match errno {
            Some(libc::EPERM | libc::EACCES) => Self::ForGood(error),
            _ => Self::ForNow(error),
        }
    }
}

impl AttachError {
    /// What it says.
    #[must_use]
    pub fn into_inner(self) -> anyhow::Error {
        match self {
            Self::ForGood(error) | Self::ForNow(error) => error,
        }
    }
}

fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let error: &std::io::Error = error.downcast_ref()?;
    error.raw_os_error()
}

impl Attached {
    /// Attaches the two programs that `watched` needs, in the way that `mode` says. A qdisc is only added
    /// if `may_add_qdisc`.
    pub fn attach(
        ebpf: &mut Ebpf,
        watched: &Watched,
        index: u32,
        mode: AttachMode,
        may_add_qdisc: bool,
    ) -> Result<Self, AttachError> {
        let interface = &watched.interface;
        if mode != AttachMode::Clsact {
            // An acctd that was killed may have used it.
            clsact::clean_up(interface, index, &PROGRAMS)?;
        }
        let attached = match mode {
            AttachMode::Clsact => Self::by_clsact(ebpf, watched, index, may_add_qdisc)?,
            AttachMode::Tcx | AttachMode::Auto => match Self::by_tcx(ebpf, watched, index) {
                Ok(attached) => attached,
                Err(error) if is_unsupported(&error) && mode == AttachMode::Auto => {
                    debug!("{interface}: this kernel has no TCX, using clsact");
                    Self::by_clsact(ebpf, watched, index, may_add_qdisc)?
                }
                Err(error) if is_unsupported(&error) => {
                    return Err(AttachError::ForGood(anyhow!(
                        "cannot attach to {interface} by TCX: {error}: TCX needs Linux 6.6; use --crosscheck-attach clsact"
                    )));
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    let context = format!("cannot attach to {interface} by TCX");
                    return Err(error.context(context).into());
                }
            },
        };
        // They were attached by the name.
        if index_of(interface) != Some(index) {
            let changed = anyhow!("{interface} became another interface meanwhile");
            return Err(AttachError::ForNow(changed));
        }
        Ok(attached)
    }

    /// Whether it cannot have a program on egress.
    #[must_use]
    pub fn lacks_egress(&self) -> bool {
        self.clsact
            .as_ref()
            .is_some_and(|clsact| !clsact.has_egress)
    }

    /// Whether it is on a qdisc that is not acctd's own.
    #[must_use]
    pub fn shares_qdisc(&self) -> bool {
        self.clsact.as_ref().is_some_and(|clsact| !clsact.is_ours)
    }

    /// Whether the programs are still there, and in front: anybody may remove a qdisc with the filters on
    /// it, detach a link by force, and put a program in front that lets no other run. What cannot be
    /// seen is taken for as it was.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let mut in_front = Vec::new();
        for hooked in &self.hooked {
            let found = match &self.clsact {
                None => self.condition_of_tcx(hooked),
                Some(_) => self.condition_of_filter(hooked),
            };
            match found {
                Ok(Some(others)) => in_front.extend(others),
                Ok(None) => return Condition::Removed(hook_name(hooked.hook)),
                Err(error) => debug!("cannot see what is on {}: {error:#}", self.interface),
            }
        }
        if in_front.is_empty() {
            Condition::Whole
        } else {
            Condition::Behind(in_front)
        }
    }

    /// Whether attaching once more puts acctd in front of this one.
    #[must_use]
    pub fn can_pass(&self, other: &InFront) -> bool {
        other.can_be_passed(self.clsact.is_none())
    }

    /// What runs before it; `None` if it is not there.
    fn condition_of_tcx(&self, hooked: &Hooked) -> Result<Option<Vec<InFront>>> {
        let programs = bpf_syscall::tcx_programs(self.index, hooked.hook)?;
        let own = programs.iter().position(|&id| id == hooked.program);
        Ok(own.map(|own| self.not_acctds(&programs[..own], hooked.hook)))
    }

    fn condition_of_filter(&self, hooked: &Hooked) -> Result<Option<Vec<InFront>>> {
        let filters = clsact::filters_of(self.index, hooked.hook)?;
        let is_own = |filter: &clsact::Filter| {
            filter.kind == "bpf" && filter.handle() != 0 && filter.program == hooked.program
        };
        let Some(own) = filters.iter().position(is_own) else {
            return Ok(None);
        };
        // TCX programs come before all filters.
        let programs = bpf_syscall::tcx_programs(self.index, hooked.hook)?;
        let mut in_front = self.not_acctds(&programs, hooked.hook);
        let others = filters[..own].iter();
        let others = others.filter(|filter| {
            filter.takes_packets() && !(filter.program > 0 && claims::is_claimed(filter.program))
        });
        in_front.extend(others.map(|filter| InFront {
            interface: self.interface.clone(),
            hook: hooked.hook,
            other: Other::Filter {
                kind: filter.kind.clone(),
                name: filter.name.clone(),
                program: filter.program,
                priority: filter.priority(),
            },
        }));
        // A filter may have many entries.
        in_front.dedup();
        Ok(Some(in_front))
    }

    /// An acctd's programs keep no packet from others.
    fn not_acctds(&self, programs: &[u32], hook: TcAttachType) -> Vec<InFront> {
        let others = programs.iter().filter(|&&id| !claims::is_claimed(id));
        others
            .map(|&id| InFront {
                interface: self.interface.clone(),
                hook,
                other: Other::Tcx(id),
            })
            .collect()
    }

    /// In front of all others: one that redirects or drops hides nothing.
    fn by_tcx(ebpf: &mut Ebpf, watched: &Watched, index: u32) -> Result<Self, ProgramError> {
        let mut hooked = Vec::new();
        for (hook, name) in watched.programs() {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            hooked.push(put_on(ebpf, watched, hook, name, options)?);
        }
        Ok(Self {
            index,
            interface: watched.interface.clone(),
            hooked,
            clsact: None,
        })
    }

    fn by_clsact(
        ebpf: &mut Ebpf,
        watched: &Watched,
        index: u32,
        may_add_qdisc: bool,
    ) -> Result<Self> {
        let interface = &watched.interface;
        let clsact = Clsact::ensure(interface, index, &PROGRAMS, may_add_qdisc)?;
        let mut hooked = Vec::new();
        for (hook, name) in watched.programs() {
            if hook == TcAttachType::Egress && !clsact.has_egress {
                // A filter for it would run on ingress.
                continue;
            }
            let program = classifier(ebpf, name)?.info()?.id();
            let options: NlOptions = clsact.options(hook, program)?;
            let options = TcAttachOptions::Netlink(options);
            hooked.push(
                put_on(ebpf, watched, hook, name, options)
                    .with_context(|| format!("cannot attach to {interface} by clsact"))?,
            );
        }
        info!("{interface}: attached as filters of its qdisc");
        Ok(Self {
            index,
            interface: interface.clone(),
            hooked,
            clsact: Some(clsact),
        })
    }
}

fn put_on(
    ebpf: &mut Ebpf,
    watched: &Watched,
    hook: TcAttachType,
    name: &str,
    options: TcAttachOptions,
) -> Result<Hooked, ProgramError> {
    let classifier = classifier(ebpf, name)?;
    let program = classifier.info()?.id();
    let id = classifier.attach_with_options(&watched.interface, hook, options)?;
    Ok(Hooked {
        hook,
        program,
        // Ours from here on, so that it can be dropped when the interface has gone.
        _link: classifier.take_link(id)?,
    })
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ProgramError> {
    object::classifier(ebpf, name)
        .map_err(|error| ProgramError::IOError(std::io::Error::other(format!("{error:#}"))))
}

fn hook_name(hook: TcAttachType) -> &'static str {
    match hook {
        TcAttachType::Ingress => "ingress",
        TcAttachType::Egress => "egress",
        TcAttachType::Custom(_) => "another hook",
    }
}

/// It takes `CAP_SYS_ADMIN`, which acctd mostly has given up.
fn program_name(interface: &str, hook: TcAttachType, id: u32) -> Option<String> {
    let (_, programs) = SchedClassifier::query_tcx(interface, hook).ok()?;
    let program = programs.iter().find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}

/// What a kernel says that does not know the attach types of TCX.
fn is_unsupported(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::EINVAL),
        _ => false,
    }
}

/// All programs of the contract.
pub(crate) const PROGRAMS: [&str; 4] = [INGRESS_SOURCE, INGRESS_DEST, EGRESS_SOURCE, EGRESS_DEST];

impl Watched {
    /// The hooks and the programs for them.
    pub(crate) fn programs(&self) -> [(TcAttachType, &'static str); 2] {
        match self.end {
            End::Far => [
                (TcAttachType::Ingress, INGRESS_SOURCE),
                (TcAttachType::Egress, EGRESS_DEST),
            ],
            End::Near => [
                (TcAttachType::Ingress, INGRESS_DEST),
                (TcAttachType::Egress, EGRESS_SOURCE),
            ],
        }
    }
}
