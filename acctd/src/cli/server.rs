//! The flags of commands that ask a ClickHouse server.

use std::path::PathBuf;
use std::str::FromStr;

/// How a server is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerFlags {
    /// The user of the database.
    #[arg(long, value_name = "NAME", default_value = "acctd")]
    pub user: String,

    /// The file with the user's password; without it, there is none. Read again for each request.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// The certificates (PEM) of those who may have signed the server's; default: the system's.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// A setting of ClickHouse for each request: `insert_quorum=2`.
    #[arg(long, value_name = "NAME=VALUE")]
    pub setting: Vec<Setting>,
}

/// An HTTP server, and the database in its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Without a path: `http://127.0.0.1:8123`.
    pub(crate) server: String,
    pub(crate) database: String,
}

/// Whether others can read on the way what is sent to it.
pub(crate) fn is_in_the_clear(server: &str) -> bool {
    let host = server.strip_prefix("http://");
    let is_local = |host: &str| {
        ["127.", "[::1]", "localhost"]
            .iter()
            .any(|local| host.starts_with(local))
    };
    host.is_some_and(|host| !is_local(host))
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
        for (text, is_so) in [
            ("http://db:8123", true),
            ("https://db", false),
            ("http://127.0.0.1:8123", false),
        ] {
            assert_eq!(is_in_the_clear(text), is_so, "{text}");
        }
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
