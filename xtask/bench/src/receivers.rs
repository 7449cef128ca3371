//! Those who are measured, by name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use testkit::{debian::Debian, interrupt::Interrupt, netns::find_program, programs::build};

use crate::receiver::Receiver;

mod acctd;
mod kernel;
mod null;
mod uacctd;
mod ulogd;

pub(crate) use acctd::Acctd;
pub(crate) use kernel::Nobody;

use acctd::GoNflogAcctd;
use kernel::NftSet;
use null::{Null, Walk};
use uacctd::Uacctd;
use ulogd::Ulogd;

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// A counter alone
    Nobody,
    /// A receiver that looks at headers alone
    Null,
    /// A receiver that lets `libnetfilter_log` walk the packets
    Library,
    Acctd,
    #[value(name = "acctd+crosscheck")]
    CrossCheck,
    /// A dynamic set of nftables, without a process
    NftSet,
    /// pmacct's, installed if it is missing
    Uacctd,
    /// Debian's, installed if it is missing
    Ulogd2,
    /// Needs --go-nflog-acctd
    GoNflogAcctd,
}

/// Which receivers.
#[derive(Debug, clap::Args)]
pub(crate) struct Choice {
    /// A go-nflog-acctd to measure too
    #[arg(long, value_name = "PROGRAM")]
    go_nflog_acctd: Option<PathBuf>,

    /// Only these receivers
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    receivers: Vec<Name>,
}

impl Choice {
    /// Those that are asked for; without a choice those of `default`.
    pub(crate) fn make(
        &self,
        default: &[Name],
        interrupt: &Interrupt,
    ) -> Result<Vec<Box<dyn Receiver>>> {
        let names = if self.receivers.is_empty() {
            default
        } else {
            &self.receivers
        };
        make(names, self.go_nflog_acctd.as_deref(), interrupt)
    }
}

/// These receivers; go-nflog-acctd where there is one.
pub(crate) fn make(
    names: &[Name],
    go_nflog_acctd: Option<&Path>,
    interrupt: &Interrupt,
) -> Result<Vec<Box<dyn Receiver>>> {
    let programs = [("--bin", "acctd"), ("--example", "null_receiver")];
    let [acctd, null] = build(programs, interrupt)?;
    let acctd = |crosscheck| Acctd {
        program: acctd.clone(),
        crosscheck,
    };
    let null = |walk| Null {
        program: null.clone(),
        walk,
    };
    let mut receivers: Vec<Box<dyn Receiver>> = Vec::new();
    for name in names {
        receivers.push(match name {
            Name::Nobody => Box::new(Nobody),
            Name::Null => Box::new(null(Walk::Headers)),
            Name::Library => Box::new(null(Walk::Library)),
            Name::Acctd => Box::new(acctd(false)),
            Name::CrossCheck => Box::new(acctd(true)),
            Name::NftSet => Box::new(NftSet),
            Name::Uacctd => Box::new(Uacctd {
                program: peer("pmacct", "uacctd")?,
            }),
            Name::Ulogd2 => Box::new(Ulogd {
                program: peer("ulogd2", "ulogd")?,
            }),
            Name::GoNflogAcctd => {
                let Some(program) = go_nflog_acctd else {
                    continue;
                };
                let program = fs::canonicalize(program)
                    .with_context(|| format!("--go-nflog-acctd {}", program.display()))?;
                Box::new(GoNflogAcctd { program })
            }
        });
    }
    Ok(receivers)
}

/// The program of a Debian package, which is installed if it is missing.
fn peer(package: &str, program: &str) -> Result<PathBuf> {
    if find_program(program).is_none()
        && let Some(debian) = Debian::find()
    {
        debian.install(&[package])?;
    }
    find_program(program).with_context(|| {
        format!("{program} is not installed (Debian: {package}); or leave it out with --receivers")
    })
}
