//! The sums of acctd's files, which are removed as they are read, as an operator's script does.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use testkit::{nft::Count, print, rows};

/// What all files together have counted.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    ip4: Count,
    ip6: Count,
    files: u64,
    rows: u64,
}

/// What is known to be lost, and in how many intervals.
#[derive(Debug, Default)]
pub(super) struct Lost {
    ip4: u64,
    ip6: u64,
    late: u64,
    gaps: u64,
    intervals: u64,
    uncovered: u64,
}

impl Accounts {
    /// Takes in the files that are complete.
    pub(super) fn collect(&mut self, directory: &Path) -> Result<()> {
        for path in rows::paths(directory)? {
            for row in rows::read(&path)?.rows {
                let sum = if row.is_ipv6() {
                    &mut self.ip6
                } else {
                    &mut self.ip4
                };
                sum.bytes += row.source_bytes;
                sum.packets += row.source_packets;
                self.rows += 1;
            }
            self.files += 1;
            fs::remove_file(&path)?;
        }
        Ok(())
    }

    /// From intervals.jsonl, which must have a line for each file.
    pub(super) fn lost(&self, directory: &Path) -> Result<Lost> {
        let text = fs::read_to_string(directory.join("intervals.jsonl"))?;
        let mut lost = Lost::default();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line)?;
            for group in line["groups"].as_array().into_iter().flatten() {
                let n_lost = group["lost"].as_u64().context("no lost")?;
                match group["group"].as_u64() {
                    Some(5) => lost.ip4 += n_lost,
                    _ => lost.ip6 += n_lost,
                }
                ensure!(group["lost_is_complete"] == true, "{line}");
            }
            lost.late += line["late"].as_u64().unwrap_or(0);
            let gaps = line["gaps"].as_array().map_or(0, Vec::len);
            lost.gaps += u64::try_from(gaps)?;
            let uncovered = &line["crosscheck"]["verdicts"]["uncovered"]["prefixes"];
            let n_uncovered = uncovered.as_u64().unwrap_or(0);
            if n_uncovered > 0 && lost.uncovered == 0 {
                print::line(format!(
                    "  the first interval with uncovered prefixes: {line}"
                ))?;
            }
            lost.uncovered += n_uncovered;
            lost.intervals += 1;
        }
        ensure!(
            lost.intervals == self.files,
            "{} lines for {} files",
            lost.intervals,
            self.files
        );
        Ok(lost)
    }

    /// Prints the sums, and says whether they are right.
    pub(super) fn compare(&self, counters: &BTreeMap<String, Count>, lost: &Lost) -> Result<bool> {
        print::line(format!(
            "  {} files, {} rows, {} packets late, {} gaps, {} prefixes uncovered",
            self.files, self.rows, lost.late, lost.gaps, lost.uncovered
        ))?;
        let mut is_exact = lost.uncovered == 0;
        for (name, counted, n_lost) in [("v4", self.ip4, lost.ip4), ("v6", self.ip6, lost.ip6)] {
            let logged = counters.get(name).context("nft has lost a counter")?;
            let sum = counted.packets + n_lost;
            print::line(format!(
                "  {name}: {} in rows + {n_lost} lost = {sum}; logged: {}",
                counted.packets, logged.packets
            ))?;
            is_exact &= sum == logged.packets;
            is_exact &= n_lost > 0 || counted.bytes == logged.bytes;
        }
        Ok(is_exact)
    }
}
