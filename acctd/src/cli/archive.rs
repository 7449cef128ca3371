//! The flags of `acctd archive`.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::go_flags;

/// Put the files of days that are over into one Parquet file for each day.
///
/// A day is one of UTC, and a file belongs to the day in which it begins. The archive, DAY.parquet, is beside the files, and
/// DAY.jsonl has their lines of intervals.jsonl. It is read back before it gets its name. acctd report reads archives and
/// files as if they were one.
#[derive(Clone, Debug, clap::Args)]
pub struct ArchiveArgs {
    /// The directories of acctd's files, one for each host.
    #[arg(
        value_name = "DIR",
        env = "ACCTD_LOG_DIRECTORY",
        hide_env = true,
        default_value = "/var/log/accounting"
    )]
    pub directories: Vec<PathBuf>,

    /// Delete CSV files that are archived and older than this: 90d, 36h; default: none is deleted.
    ///
    /// Before a file is deleted, its archive is read back once more, and compared with it. Nothing else is deleted.
    #[arg(long, value_name = "DURATION", value_parser = parse_keep)]
    pub keep: Option<Duration>,

    /// The zone in which names of files are that no line of intervals.jsonl describes; default: the machine's.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
}

fn parse_keep(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
    let days = days.and_then(|days: u32| Duration::from_secs(86_400).checked_mul(days));
    match days {
        Some(keep) => Ok(keep),
        None => go_flags::parse_duration(text)
            .map_err(|_wrong| "must be a number of days or a duration: 90d, 36h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_kept_for_days_or_hours() {
        let hours = |text: &str| parse_keep(text).map(|keep| keep.as_secs() / 3_600);
        assert_eq!(hours("90d"), Ok(90 * 24));
        assert_eq!(hours("0d"), Ok(0));
        assert_eq!(hours("36h"), Ok(36));
        for bad in ["", "d", "90", "-1d", "1.5d", "90 d"] {
            assert!(parse_keep(bad).is_err(), "{bad}");
        }
    }
}
