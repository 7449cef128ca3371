//! Removes the tables with counters of `acctd doctor --live`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::rules::external::{self, ExternalError};

/// The process id follows.
pub(crate) const NAME_PREFIX: &str = "acctd_doctor_";

/// Removes the tables of doctors that were killed.
pub(crate) fn remove_left_over() -> Result<(), ExternalError> {
    remove(|name| {
        let pid = name.strip_prefix(NAME_PREFIX);
        let is_alive = |pid: &str| {
            let comm = fs::read_to_string(Path::new("/proc").join(pid).join("comm"));
            comm.is_ok_and(|it| it.trim_end() == "acctd")
        };
        pid.is_some_and(|pid| !is_alive(pid))
    })
}

/// Removes the tables whose name `is_selected`.
pub(crate) fn remove(is_selected: impl Fn(&str) -> bool) -> Result<(), ExternalError> {
    let text = external::run("nft", &["list", "tables"], "")?;
    let mut commands = String::new();
    for line in text.lines() {
        if let ["table", family, name] = line.split_whitespace().collect::<Vec<_>>()[..]
            && is_selected(name)
        {
            let _always = writeln!(commands, "delete table {family} {name}");
        }
    }
    if !commands.is_empty() {
        external::run("nft", &["-f", "-"], &commands)?;
    }
    Ok(())
}
