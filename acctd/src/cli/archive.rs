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
    #[arg(long, value_name = "DURATION", value_parser = go_flags::parse_duration)]
    pub keep: Option<Duration>,

    /// The zone in which names of files are that no line of intervals.jsonl describes; default: the machine's.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,
}
