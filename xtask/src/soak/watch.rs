//! Whether acctd grows: its memory, its descriptors, the BPF maps that it holds.

use std::{fs, time::Instant};

use anyhow::{Context as _, Result};

use testkit::{daemon::Daemon, print};

/// More than this within an hour is growth; less is the allocator's.
const MOST_GROWTH_AN_HOUR: f64 = 16.0 * 1024.0;
/// With fewer looks, nothing can be said.
const FEWEST_LOOKS: usize = 8;

/// All looks at one process.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pid: u32,
    looks: Vec<Look>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    resident_kib: u64,
    n_descriptors: u64,
    n_maps: u64,
}

impl Watch {
    pub(super) fn look(&mut self, acctd: &Daemon) -> Result<()> {
        let pid = acctd.pid();
        if pid != self.pid {
            self.looks.clear();
            self.pid = pid;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS")?;
        let mut n_descriptors = 0;
        let mut n_maps = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
            // It may be closed by now.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            n_descriptors += 1;
            n_maps += u64::from(info.contains("map_id:"));
        }
        self.looks.push(Look {
            at: Instant::now(),
            resident_kib: resident.parse()?,
            n_descriptors,
            n_maps,
        });
        Ok(())
    }

    /// Prints how it went, and says whether it is well.
    pub(super) fn report(&self) -> Result<bool> {
        let (Some(first), Some(last)) = (self.looks.first(), self.looks.last()) else {
            print::line("  no look at the memory: too short")?;
            return Ok(true);
        };
        // Until each fault has been there, the allocator's share grows.
        let settled = &self.looks[self.looks.len() / 2..];
        let slope = slope_kib_an_hour(settled);
        let minutes = (last.at - first.at).as_secs() / 60;
        let series = self.looks.iter().map(|look| look.resident_kib / 1024);
        let series: Vec<String> = series.map(|mib| mib.to_string()).collect();
        print::line(format!(
            "  memory over {minutes} minutes, MiB: {}; {slope:+.0} KiB an hour in the second half of them",
            series.join(" ")
        ))?;
        let fewest = |of: fn(&Look) -> u64| self.looks.iter().map(of).min().unwrap_or(0);
        let most = |of: fn(&Look) -> u64| self.looks.iter().map(of).max().unwrap_or(0);
        let half = self.looks.len() / 2;
        let most_early = |of: fn(&Look) -> u64| self.looks[..half].iter().map(of).max();
        let late = &self.looks[half..];
        let least_late = |of: fn(&Look) -> u64| late.iter().map(of).min();
        let mut is_well = true;
        for (what, of) in [
            (
                "descriptors",
                (|look| look.n_descriptors) as fn(&Look) -> u64,
            ),
            ("BPF maps", |look| look.n_maps),
        ] {
            print::line(format!("  {what}: {} to {}", fewest(of), most(of)))?;
            // Some come and go; those that stay are leaked.
            is_well &= self.looks.len() < FEWEST_LOOKS || least_late(of) <= most_early(of);
        }
        Ok(is_well && (settled.len() < FEWEST_LOOKS || slope < MOST_GROWTH_AN_HOUR))
    }
}

/// Of the line that fits best (least squares).
#[expect(clippy::cast_precision_loss, reason = "kilobytes")]
fn slope_kib_an_hour(looks: &[Look]) -> f64 {
    let Some(first) = looks.first() else {
        return 0.0;
    };
    let n = looks.len() as f64;
    let points: Vec<(f64, f64)> = looks
        .iter()
        .map(|look| {
            let hours = (look.at - first.at).as_secs_f64() / 3_600.0;
            (hours, look.resident_kib as f64)
        })
        .collect();
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / n;
    let rise: f64 = points
        .iter()
        .map(|(x, y)| (x - mean_x) * (y - mean_y))
        .sum();
    let run: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    if run == 0.0 { 0.0 } else { rise / run }
}
