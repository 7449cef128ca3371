//! Attaches the programs to an interface's hooks, and takes them off when dropped.

use anyhow::{Context, Result, anyhow};
use aya::Ebpf;
use aya::programs::tc::{SchedClassifierLink, TcAttachOptions};
use aya::programs::{LinkOrder, ProgramError, TcAttachType};
use log::info;

use super::clsact::{self, Clsact};
use super::{AttachMode, Watched, object};

/// Acctd's programs on one interface.
#[derive(Debug)]
pub struct Attached {
    /// The interface's index while they are on it; it changes when the interface comes back.
    pub index: u32,
    // Dropped in this order: filters before the qdisc that they are on.
    links: Vec<SchedClassifierLink>,
    clsact: Option<Clsact>,
}

impl Attached {
    /// Attaches the two programs that `watched` needs, in the way that `mode` says.
    pub fn attach(
        ebpf: &mut Ebpf,
        watched: &Watched,
        index: u32,
        mode: AttachMode,
    ) -> Result<Self> {
        let interface = &watched.interface;
        if mode != AttachMode::Clsact {
            // An acctd that was killed may have used it.
            clsact::clean_up(interface, index, &super::PROGRAMS)?;
        }
        let attached = match mode {
            AttachMode::Tcx => Self::by_tcx(ebpf, watched, index),
            AttachMode::Clsact => return Self::by_clsact(ebpf, watched, index),
            AttachMode::Auto => match Self::by_tcx(ebpf, watched, index) {
                Err(error) if is_unsupported(&error) => {
                    info!("{interface}: this kernel has no TCX, using clsact");
                    return Self::by_clsact(ebpf, watched, index);
                }
                attached => attached,
            },
        };
        attached
            .map_err(|error| {
                if is_unsupported(&error) {
                    anyhow!("{error}: TCX needs Linux 6.6; use --crosscheck-attach clsact")
                } else {
                    error.into()
                }
            })
            .with_context(|| format!("cannot attach to {interface} by TCX"))
    }

    /// Whether the programs are still there: anybody may remove a qdisc with the filters on it. A
    /// TCX link is acctd's own.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let nlinks = self.links.len();
        self.clsact
            .as_ref()
            .is_none_or(|clsact| clsact.has_own_filters(&super::PROGRAMS, nlinks))
    }

    /// In front of all others: one that redirects or drops hides nothing.
    fn by_tcx(ebpf: &mut Ebpf, watched: &Watched, index: u32) -> Result<Self, ProgramError> {
        let mut links = Vec::new();
        for (hook, name) in watched.programs() {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            links.push(link(ebpf, watched, hook, name, options)?);
        }
        Ok(Self {
            index,
            links,
            clsact: None,
        })
    }

    fn by_clsact(ebpf: &mut Ebpf, watched: &Watched, index: u32) -> Result<Self> {
        let interface = &watched.interface;
        let clsact = Clsact::ensure(interface, index, &super::PROGRAMS)?;
        let mut links = Vec::new();
        for (hook, name) in watched.programs() {
            let options = TcAttachOptions::Netlink(clsact.options(hook)?);
            let link = link(ebpf, watched, hook, name, options)
                .with_context(|| format!("cannot attach to {interface} by clsact"))?;
            links.push(link);
        }
        Ok(Self {
            index,
            links,
            clsact: Some(clsact),
        })
    }
}

fn link(
    ebpf: &mut Ebpf,
    watched: &Watched,
    hook: TcAttachType,
    name: &str,
    options: TcAttachOptions,
) -> Result<SchedClassifierLink, ProgramError> {
    let program = object::classifier(ebpf, name)
        .map_err(|error| ProgramError::IOError(std::io::Error::other(format!("{error:#}"))))?;
    let id = program.attach_with_options(&watched.interface, hook, options)?;
    // Ours from here on, so that it can be dropped when the interface has gone.
    program.take_link(id)
}

/// What a kernel says that does not know the attach types of TCX.
fn is_unsupported(error: &ProgramError) -> bool {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::EINVAL),
        _ => false,
    }
}
