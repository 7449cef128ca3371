//! The flags of `acctd ship`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::go_flags;
use crate::config::listen_address::ListenAddress;

/// Send the files of this host to a ClickHouse server, each exactly once.
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
    #[arg(long, value_name = "URL", required_unless_present = "schema")]
    pub to: Option<ServerUrl>,

    /// The user of the database.
    #[arg(long, value_name = "NAME", default_value = "acctd")]
    pub user: String,

    /// The file with the user's password; without it, there is none. Read again for each request.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// The certificates (PEM) of those who may have signed the server's; default: the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// The name of this host in the database; default: that of the machine.
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,

    /// How rows are compressed on the way.
    #[arg(long, value_enum, default_value_t = Compression::Zstd)]
    pub compression: Compression,

    /// A setting of ClickHouse for each request: `insert_quorum=2`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub setting: Vec<Setting>,

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

    /// With --schema: ClickHouse deletes rows older than this (400d); sums of hours, days and months stay.
    #[arg(long, value_name = "DURATION", requires = "schema", value_parser = go_flags::parse_duration)]
    pub keep: Option<Duration>,
}

/// An HTTP server, and the database in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Without a path: `http://127.0.0.1:8123`.
    pub(crate) server: String,
    pub(crate) database: String,
}

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            Err(format!(
                "{why}: use for example https://db.example.net:8443/acctd"
            ))
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return wrong("it has no http:// or https://");
        };
        if !["http", "https"].contains(&scheme) {
            return wrong("it is not http or https");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err("a password would be seen by all users of this machine: use --user and --password-file".to_owned());
        }
        let database = path.trim_end_matches('/');
        if authority.is_empty() || authority.starts_with(':') {
            return wrong("it has no server");
        }
        if !database
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return wrong("its path is not the name of a database");
        }
        Ok(Self {
            server: format!("{scheme}://{authority}"),
            database: if database.is_empty() {
                "acctd"
            } else {
                database
            }
            .to_owned(),
        })
    }
}

/// A setting of ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self {
                name: name.to_owned(),
                value: value.to_owned(),
            }),
            _ => Err("must be NAME=VALUE: insert_quorum=2".to_owned()),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_server_and_a_database() {
        let url = |text: &str| text.parse::<ServerUrl>();
        let expected = |server: &str, database: &str| {
            Ok(ServerUrl {
                server: server.to_owned(),
                database: database.to_owned(),
            })
        };
        assert_eq!(
            url("http://[::1]:8123"),
            expected("http://[::1]:8123", "acctd")
        );
        assert_eq!(url("https://db/bills/"), expected("https://db", "bills"));
        for bad in [
            "db:8123",
            "ftp://db/acctd",
            "http:///acctd",
            "http://u:p@db/acctd",
            "http://db/a/b",
            "http://db/a?x",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
