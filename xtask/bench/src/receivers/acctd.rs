//! acctd, and the program that it replaces.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{
    receiver::{Counted, Place, Receiver, source_group_flag, sum_of_column},
    stage::GROUP,
};

/// acctd, with or without its cross-check.
pub(crate) struct Acctd {
    pub(crate) program: PathBuf,
    pub(crate) crosscheck: bool,
}

impl Receiver for Acctd {
    fn name(&self) -> &'static str {
        if self.crosscheck {
            "acctd+crosscheck"
        } else {
            "acctd"
        }
    }

    fn command(&self, place: &Place<'_>) -> Result<Option<Command>> {
        let mut command = place.stage.receiver(&self.program);
        command.args(account_sources(place));
        if self.crosscheck {
            command
                .arg(format!("-crosscheck={}", place.stage.link.veth.near))
                .arg("-crosscheck-max-prefixes=2000000");
        }
        Ok(Some(command))
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        let packets = sum_of_column(place.directory, "SourcePackets")?;
        let mut datagrams = 0;
        for line in fs::read_to_string(place.directory.join("intervals.jsonl"))?.lines() {
            let summary: Summary = serde_json::from_str(line).context("intervals.jsonl")?;
            datagrams += summary
                .groups
                .iter()
                .map(|group| group.datagrams)
                .sum::<u64>();
        }
        Ok(Counted {
            packets,
            datagrams: Some(datagrams),
        })
    }

    fn has_bpf_programs(&self) -> bool {
        self.crosscheck
    }

    fn settle_time(&self) -> Duration {
        // `SETTLE_TIME` in acctd's timeline.
        Duration::from_millis(1_250)
    }
}

/// go-nflog-acctd, built by whoever runs this.
pub(crate) struct GoNflogAcctd {
    pub(crate) program: PathBuf,
}

impl Receiver for GoNflogAcctd {
    fn name(&self) -> &'static str {
        "go-nflog-acctd"
    }

    fn command(&self, place: &Place<'_>) -> Result<Option<Command>> {
        let mut command = place.stage.receiver(&self.program);
        command.args(account_sources(place));
        // It passes Go pointers to C in a way that newer runtimes than its own refuse.
        command.env("GODEBUG", "cgocheck=0");
        Ok(Some(command))
    }

    fn counted(&self, place: &Place<'_>) -> Result<Counted> {
        Ok(Counted::packets(sum_of_column(
            place.directory,
            "SourcePackets",
        )?))
    }

    /// About one time in four it waits for its socket behind "Stopped accounting".
    fn may_hang(&self) -> bool {
        true
    }
}

/// The flags, which both take.
fn account_sources(place: &Place<'_>) -> [String; 3] {
    [
        format!("-interval={}s", place.interval),
        format!("{}={GROUP}", source_group_flag(place.setup.family)),
        format!("-log-directory={}", place.directory.display()),
    ]
}

/// A line of intervals.jsonl.
#[derive(Deserialize)]
struct Summary {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    datagrams: u64,
}
