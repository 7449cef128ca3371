//! What all who pack are given.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use testkit::{
    process::{self, run},
    programs::cargo,
};

use crate::cross::Target;

/// What is packed, and where to.
pub(super) struct Packing<'a> {
    /// A copy of the sources, and below it what is built of them: what is packed is new there, and those who
    /// pack may write beside it.
    pub(super) sources: &'a Path,
    /// Where the tools are.
    pub(super) target: &'a Path,
    /// What the program is built for.
    pub(super) cross: &'a Target,
    /// Where the packages go.
    pub(super) place: &'a Path,
    /// In seconds since 1970.
    pub(super) date: &'a str,
}

impl Packing<'_> {
    /// Where cargo puts the release build, in its own directory `target`.
    pub(super) fn release(&self, target: &Path) -> PathBuf {
        self.cross.directory(target).join("release")
    }

    /// A tool that packs the sources.
    pub(super) fn tool(&self, name: &str, version: &str, opt_level: &str) -> Result<Command> {
        let mut command = Command::new(tool(self.target, name, version, opt_level)?);
        command
            .env("CARGO", cargo())
            .env("SOURCE_DATE_EPOCH", self.date)
            .current_dir(self.sources);
        Ok(command)
    }
}

/// A command of cargo's that others have written, built with rustc's `opt_level`: they run for seconds, and take minutes to build.
pub(super) fn tool(target: &Path, name: &str, version: &str, opt_level: &str) -> Result<PathBuf> {
    let tools = target.join("tools");
    let install = ["install", name, "--version", version, "--profile", "dev"];
    // A minute or two on two cores; the next run finds it there.
    let how = ["--locked", "--quiet", "--root"];
    let mut build = Command::new(cargo());
    build
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", opt_level)
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    run(build.args(install).args(how).arg(&tools))?;
    Ok(tools.join("bin").join(name))
}

/// The time of the last commit, so that the same sources give the same files.
pub(super) fn source_date(root: &Path) -> Result<String> {
    if let Ok(date) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(date);
    }
    let log = ["log", "-1", "--format=%ct"];
    let date = process::output(Command::new("git").args(log).current_dir(root))
        .context("the time of the last commit")?;
    Ok(date.trim().to_owned())
}
