//! Attaches the programs to an interface's hooks, checks that they are still attached and run first, and
//! detaches them when dropped.

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

/// acctd's programs on one interface.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The interface's index when they were attached. An interface that comes back may have another one.
    pub(crate) index: u32,
    interface: String,
    // Dropped in this order: the filters before their qdisc.
    programs: Vec<AttachedProgram>,
    clsact: Option<Clsact>,
}

#[derive(Debug)]
struct AttachedProgram {
    hook: TcAttachType,
    id: u32,
    _link: SchedClassifierLink,
}

/// The state of acctd's programs on an interface.
#[derive(Debug)]
pub(crate) enum AttachState {
    /// All are attached, and see each packet first.
    Complete,
    /// The program of this hook (`ingress`, `egress`) is not attached any more.
    Removed(&'static str),
    /// These programs run before one of acctd's, and may hide packets from it.
    Preceded(Vec<PrecedingProgram>),
}

/// A foreign program or filter that runs before acctd's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrecedingProgram {
    interface: String,
    hook: TcAttachType,
    kind: ProgramKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ProgramKind {
    /// The program's id.
    Tcx(u32),
    Filter {
        kind: String,
        name: String,
        program: u32,
        priority: u16,
    },
}

impl PrecedingProgram {
    fn can_be_overtaken(&self, by_tcx: bool) -> bool {
        match &self.kind {
            ProgramKind::Tcx(_) => by_tcx,
            // Filters of one priority are all of one kind, and the latest runs first.
            ProgramKind::Filter { kind, .. } => kind == "bpf",
        }
    }
}

impl fmt::Display for PrecedingProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = hook_name(self.hook);
        match &self.kind {
            ProgramKind::Tcx(id) => {
                write!(f, "TCX program id {id}")?;
                match program_name(&self.interface, self.hook, *id) {
                    Some(name) => write!(f, " ({name})")?,
                    None => write!(f, " (see bpftool prog show id {id})")?,
                }
                write!(f, " on {} {hook}", self.interface)
            }
            ProgramKind::Filter {
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
pub(crate) enum AttachError {
    /// A retry cannot succeed: a capability is missing, or the kernel is too old.
    Permanent(anyhow::Error),
    /// A retry may succeed.
    Temporary(anyhow::Error),
}

impl From<anyhow::Error> for AttachError {
    fn from(error: anyhow::Error) -> Self {
        let errno = error.chain().find_map(errno_of);
        match errno {
            Some(libc::EPERM | libc::EACCES) => Self::Permanent(error),
            _ => Self::Temporary(error),
        }
    }
}

impl AttachError {
    pub(crate) fn into_inner(self) -> anyhow::Error {
        match self {
            Self::Permanent(error) | Self::Temporary(error) => error,
        }
    }
}

fn errno_of(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let error: &std::io::Error = error.downcast_ref()?;
    error.raw_os_error()
}

impl Attached {
    /// Attaches the two programs that `watched` needs. Adds a qdisc only if `may_add_qdisc`.
    pub(crate) fn attach(
        ebpf: &mut Ebpf,
        watched: &Watched,
        index: u32,
        mode: AttachMode,
        may_add_qdisc: bool,
    ) -> Result<Self, AttachError> {
        let interface = &watched.interface;
        if mode != AttachMode::Clsact {
            // A killed acctd may have used clsact.
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
                    return Err(AttachError::Permanent(anyhow!(
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
        // aya attaches by name, so the index may have changed meanwhile.
        if index_of(interface) != Some(index) {
            let changed = anyhow!("another interface has the name {interface} since a moment ago");
            return Err(AttachError::Temporary(changed));
        }
        Ok(attached)
    }

    /// Whether the interface's qdisc has no egress hook.
    pub(crate) fn lacks_egress(&self) -> bool {
        self.clsact
            .as_ref()
            .is_some_and(|clsact| !clsact.has_egress)
    }

    /// Whether the qdisc is not acctd's.
    pub(crate) fn shares_qdisc(&self) -> bool {
        self.clsact.as_ref().is_some_and(|clsact| !clsact.is_ours)
    }

    /// Another program may remove a qdisc with its filters, detach a link by force, or attach a program that runs
    /// first and stops the packet there. If a hook cannot be read, it counts as complete.
    pub(crate) fn state(&self) -> AttachState {
        let mut in_front = Vec::new();
        for program in &self.programs {
            let found = match &self.clsact {
                None => self.before_tcx(program),
                Some(_) => self.before_filter(program),
            };
            match found {
                Ok(Some(others)) => in_front.extend(others),
                Ok(None) => return AttachState::Removed(hook_name(program.hook)),
                Err(error) => debug!("cannot list the programs on {}: {error:#}", self.interface),
            }
        }
        if in_front.is_empty() {
            AttachState::Complete
        } else {
            AttachState::Preceded(in_front)
        }
    }

    /// Whether acctd runs before `other` if it attaches again.
    pub(crate) fn can_overtake(&self, other: &PrecedingProgram) -> bool {
        other.can_be_overtaken(self.clsact.is_none())
    }

    /// What runs before acctd's program; `None` if that one is not attached.
    fn before_tcx(&self, own: &AttachedProgram) -> Result<Option<Vec<PrecedingProgram>>> {
        let programs = bpf_syscall::tcx_programs(self.index, own.hook)?;
        let place = programs.iter().position(|&id| id == own.id);
        Ok(place.map(|place| self.foreign_tcx(&programs[..place], own.hook)))
    }

    fn before_filter(&self, own: &AttachedProgram) -> Result<Option<Vec<PrecedingProgram>>> {
        let filters = clsact::filters_of(self.index, own.hook)?;
        let is_own = |filter: &clsact::Filter| {
            filter.kind == "bpf" && filter.handle() != 0 && filter.program == own.id
        };
        let Some(place) = filters.iter().position(is_own) else {
            return Ok(None);
        };
        // TCX programs run before all filters.
        let programs = bpf_syscall::tcx_programs(self.index, own.hook)?;
        let mut in_front = self.foreign_tcx(&programs, own.hook);
        let others = filters[..place].iter();
        let others = others.filter(|filter| {
            filter.takes_packets() && !(filter.program > 0 && claims::is_claimed(filter.program))
        });
        in_front.extend(others.map(|filter| PrecedingProgram {
            interface: self.interface.clone(),
            hook: own.hook,
            kind: ProgramKind::Filter {
                kind: filter.kind.clone(),
                name: filter.name.clone(),
                program: filter.program,
                priority: filter.priority(),
            },
        }));
        // One filter may have several entries.
        in_front.dedup();
        Ok(Some(in_front))
    }

    /// Without the programs of other acctds, which let all packets pass.
    fn foreign_tcx(&self, programs: &[u32], hook: TcAttachType) -> Vec<PrecedingProgram> {
        let others = programs.iter().filter(|&&id| !claims::is_claimed(id));
        others
            .map(|&id| PrecedingProgram {
                interface: self.interface.clone(),
                hook,
                kind: ProgramKind::Tcx(id),
            })
            .collect()
    }

    /// Before all others, so that none that redirects or drops packets hides them.
    fn by_tcx(ebpf: &mut Ebpf, watched: &Watched, index: u32) -> Result<Self, ProgramError> {
        let mut programs = Vec::new();
        for (hook, name) in watched.programs() {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            programs.push(attach_program(ebpf, watched, hook, name, options)?);
        }
        Ok(Self {
            index,
            interface: watched.interface.clone(),
            programs,
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
        let mut programs = Vec::new();
        for (hook, name) in watched.programs() {
            if hook == TcAttachType::Egress && !clsact.has_egress {
                // The kernel would run it on ingress.
                continue;
            }
            let program = classifier(ebpf, name)?.info()?.id();
            let options: NlOptions = clsact.options(hook, program)?;
            let options = TcAttachOptions::Netlink(options);
            programs.push(
                attach_program(ebpf, watched, hook, name, options)
                    .with_context(|| format!("cannot attach to {interface} by clsact"))?,
            );
        }
        info!("{interface}: attached as filters of its qdisc");
        Ok(Self {
            index,
            interface: interface.clone(),
            programs,
            clsact: Some(clsact),
        })
    }
}

fn attach_program(
    ebpf: &mut Ebpf,
    watched: &Watched,
    hook: TcAttachType,
    name: &str,
    options: TcAttachOptions,
) -> Result<AttachedProgram, ProgramError> {
    let classifier = classifier(ebpf, name)?;
    let id = classifier.info()?.id();
    let link = classifier.attach_with_options(&watched.interface, hook, options)?;
    Ok(AttachedProgram {
        hook,
        id,
        // Taken from aya, so that it can be dropped when the interface disappears.
        _link: classifier.take_link(link)?,
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

/// Requires `CAP_SYS_ADMIN`, which acctd has usually dropped.
fn program_name(interface: &str, hook: TcAttachType, id: u32) -> Option<String> {
    let (_, programs) = SchedClassifier::query_tcx(interface, hook).ok()?;
    let program = programs.iter().find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}

/// The error of a kernel that does not know the attach types of TCX.
fn is_unsupported(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::EINVAL),
        _ => false,
    }
}

/// All programs of the map contract.
pub(crate) const PROGRAMS: [&str; 4] = [INGRESS_SOURCE, INGRESS_DEST, EGRESS_SOURCE, EGRESS_DEST];

impl Watched {
    /// The program of each hook.
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
