//! Maps that others may read while acctd runs.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::attaching::{
    INGRESS_ONLY, all_match, ensure_nothing_left, fails_behind_the_attaching, n_attached, rig,
    rows, some_traffic, with,
};
use super::checked;
use crate::errors::fails;
use crate::kernel;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (Needs::Root, "crosscheck_pins_are_there_while_it_runs", pins),
    (
        Needs::Root,
        "crosscheck_pins_only_under_bpffs",
        pins_only_under_bpffs,
    ),
];

fn pins() -> Result<()> {
    let rig = rig()?;
    let bpffs = rig.scratch().join("bpf");
    fs::create_dir(&bpffs)?;
    let shown = bpffs.to_str().context("a path of ASCII")?;
    rig.router.run(&["mount", "-t", "bpf", "bpf", shown])?;
    let flag = format!("-crosscheck-pin={shown}/below/acctd");
    let args = with(&INGRESS_ONLY, &[&flag]);
    let directory = format!("{shown}/below/acctd");
    let listed = || rig.router.run(&["ls", &directory]);
    let all = "ACCTD_ADDRESSES\nACCTD_CLOCK\nACCTD_EPOCHS\nACCTD_VLANS\n";
    let killed = rig.acctd(&args)?;
    ensure!(listed()? == all, "{}", listed()?);
    killed.stop(Signal::KILL)?;
    ensure!(listed()? == all);
    // What a killed one leaves without TCX, the next start removes.
    if kernel::tcx().is_ok() {
        ensure_nothing_left(&rig)?;
    }
    let acctd = rig.acctd(&args)?;
    ensure!(listed()? == all);
    ensure!(n_attached(&rig)? == 1);
    fails(
        &rig,
        &["-ip4-src-group=15", "-crosscheck=lan0", &flag],
        1,
        "error: another acctd pins its maps in",
    )?;
    ensure!(listed()? == all);
    some_traffic(&rig, 10_000)?;
    acctd.finish()?;
    ensure!(listed()?.is_empty(), "left are {}", listed()?);
    all_match(rows(&checked(&rig)?), rig.counter("v4")?)?;
    // Nor does a start that fails leave them.
    fails_behind_the_attaching(&rig, &[&flag])?;
    ensure!(listed()?.is_empty());
    Ok(())
}

fn pins_only_under_bpffs() -> Result<()> {
    let rig = rig()?;
    let directory = rig.scratch().join("pins");
    let flag = format!("-crosscheck-pin={}", directory.display());
    let args = with(&INGRESS_ONLY, &[&flag]);
    fails(&rig, &args, 1, "is not on bpffs: choose a directory below")?;
    ensure!(!directory.exists(), "the directory was made");
    fs::create_dir(&directory)?;
    fs::write(directory.join("ACCTD_CLOCK"), "mine")?;
    fails(&rig, &args, 1, "is not on bpffs: choose a directory below")?;
    ensure!(fs::read_to_string(directory.join("ACCTD_CLOCK"))? == "mine");
    ensure_nothing_left(&rig)
}
