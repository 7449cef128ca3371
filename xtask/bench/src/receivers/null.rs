//! The floor: receivers that count nothing but packets.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    receiver::{Counted, Place, Receiver},
    stage::GROUP,
};

/// What it looks at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Walk {
    /// The netlink headers alone.
    Headers,
    /// All attributes of each packet, by `libnetfilter_log`.
    Library,
}

/// acctd's example `null_receiver`.
pub(crate) struct Null {
    pub(crate) program: PathBuf,
    pub(crate) walk: Walk,
}

impl Receiver for Null {
    fn name(&self) -> &'static str {
        match self.walk {
            Walk::Headers => "null",
            Walk::Library => "library",
        }
    }

    fn command(&self, place: &Place<'_>) -> Result<Option<Command>> {
        let mut command = place.stage.receiver(&self.program);
        command.arg(match self.walk {
            Walk::Headers => "headers",
            Walk::Library => "library",
        });
        command.arg(GROUP.to_string());
        Ok(Some(command))
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        let json = fs::read_to_string(place.stdout())?;
        serde_json::from_str(&json).context("what the null receiver printed")
    }
}
