//! The rules that README.md tells people to add, as they stand there.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::rig::Rig;
use crate::{Case, Needs};

pub(crate) const CASES: &[Case] = &[
    (
        Needs::Namespace,
        "the_readmes_nft_rules_count_all_four_directions",
        the_nft_rules,
    ),
    (
        Needs::Namespace,
        "the_readmes_iptables_rules_count_all_four_directions",
        the_iptables_rules,
    ),
];

/// The block between `<!-- NAME -->` and `<!-- end -->`, without its fence.
pub(crate) fn block(name: &str) -> Result<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let (_, rest) = readme
        .split_once(&format!("<!-- {name} -->"))
        .with_context(|| format!("README.md has no block {name}"))?;
    let (block, _) = rest.split_once("<!-- end -->").context("an end")?;
    let lines = block.lines().filter(|line| !line.starts_with("```"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn the_nft_rules() -> Result<()> {
    let rig = Rig::new()?;
    rig.rules(&block("nft rules")?)?;
    each_direction_is_counted(&rig)
}

fn the_iptables_rules() -> Result<()> {
    let rig = Rig::new()?;
    rig.router
        .run(&["sh", "-e", "-c", &block("iptables rules")?])?;
    each_direction_is_counted(&rig)
}

/// Two requests to this host itself and their replies: four packets out and four in.
fn each_direction_is_counted(rig: &Rig) -> Result<()> {
    let command_line = block("acctd command")?;
    let args: Vec<&str> = command_line
        .trim()
        .strip_prefix("acctd ")
        .context("a command line of acctd's")?
        .split_whitespace()
        .collect();
    let acctd = rig.acctd(&args)?;
    for target in ["127.0.0.1", "::1"] {
        rig.router
            .run(&["ping", "-q", "-c", "2", "-i", "0.01", target])?;
    }
    acctd.finish()?;
    let rows: Vec<_> = rig
        .files()?
        .into_iter()
        .flat_map(|file| file.rows)
        .collect();
    ensure!(rows.len() == 2, "{rows:?}");
    for (row, bytes) in rows.iter().zip([4 * 84, 4 * 104]) {
        ensure!(
            (row.source.packets, row.source.bytes) == (4, bytes),
            "{row:?}"
        );
        ensure!((row.dest.packets, row.dest.bytes) == (4, bytes), "{row:?}");
    }
    Ok(())
}
