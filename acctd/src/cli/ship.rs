//! The flags of `acctd ship`.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::go_flags;
use crate::cli::server::ServerFlags;
use crate::cli::target::Target;
use crate::config::listen_address::ListenAddress;

/// Send the files of this host to ClickHouse, or its archives to a directory or S3, each exactly once.
///
/// What is there is asked of the database: acctd ship keeps no state, and may be killed at any time. A file counts as sent
/// when its line is in the table `files`, which is written last, after the sums of its rows in the database were compared
/// with the file's. Without --once it follows the directory until it is stopped.
#[derive(Clone, Debug, clap::Args)]
pub struct ShipArgs {
    /// The directory of acctd's files.
    #[arg(
        value_name = "DIR",
        env = "ACCTD_LOG_DIRECTORY",
        hide_env = true,
        default_value = "/var/log/accounting"
    )]
    pub directory: PathBuf,

    /// The HTTP interface of the server, and the database: `https://db.example.net:8443/acctd`.
    ///
    /// Or a place for the files of acctd archive, each below the host's name: `file:///srv/lake`, or `s3://BUCKET/PREFIX`, for
    /// which --user is the access key, and --password-file has the secret key. Nothing there is replaced.
    #[arg(long, value_name = "URL", required_unless_present = "schema")]
    pub to: Option<Target>,

    /// The server of `s3://`: `https://s3.example.net`; default: Amazon's.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,

    /// The region of `s3://`.
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    pub region: String,

    /// How to ask it.
    #[command(flatten)]
    pub server: ServerFlags,

    /// The name of this host in the database; default: that of the machine.
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,

    /// How rows are compressed on the way.
    #[arg(long, value_enum, default_value_t = Compression::Zstd)]
    pub compression: Compression,

    /// The most batches that are on the way at once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub in_flight: u8,

    /// How often to compare all files with the database; 0 is never.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = go_flags::parse_duration)]
    pub reconcile: Duration,

    /// The zone in which names of files are that no line of intervals.jsonl describes; default: the machine's.
    #[arg(long, value_name = "ZONE")]
    pub zone: Option<String>,

    /// Answer /metrics and /healthz here: 127.0.0.1:9746, or unix:PATH.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub listen: Vec<ListenAddress>,

    /// Send what there is, and end. Exit code 1 if a file was not sent.
    #[arg(long, group = "what")]
    pub once: bool,

    /// Compare all files with the database, and print how many are the same. Exit code 1 if one is not.
    #[arg(long, group = "what")]
    pub verify: bool,

    /// Print the statements that make the tables, or bring them to this version. They may be run again.
    #[arg(long, group = "what")]
    pub schema: bool,

    /// With --schema: tables for a cluster of this name, sharded by host, each shard with replicas.
    #[arg(long, value_name = "NAME", requires = "schema")]
    pub cluster: Option<String>,

    /// ClickHouse deletes rows older than this (400d); sums of hours, days and months stay.
    ///
    /// With --schema, its tables are made so. Else files that are older are neither sent nor compared.
    #[arg(long, value_name = "DURATION", value_parser = go_flags::parse_duration)]
    pub keep: Option<Duration>,
}

/// How rows are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    /// Needs a ClickHouse of 2019 or later.
    Zstd,
    /// For any.
    Gzip,
    /// Not at all.
    None,
}
