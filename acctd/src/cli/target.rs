//! Where `acctd ship` sends to.

use std::path::PathBuf;
use std::str::FromStr;

use crate::cli::server::ServerUrl;

/// A database, or a place for archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Gets the rows of files.
    ClickHouse(ServerUrl),
    /// Gets archives, each below the host's name.
    Directory(PathBuf),
    /// The same, of S3.
    Bucket {
        /// Of the bucket.
        name: String,
        /// Of all objects: empty, or ends with a slash.
        prefix: String,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return if path.starts_with('/') {
                Ok(Self::Directory(path.into()))
            } else {
                Err(
                    "its path does not begin with a slash: use for example file:///srv/lake"
                        .to_owned(),
                )
            };
        }
        let Some(rest) = text.strip_prefix("s3://") else {
            return text.parse().map(Self::ClickHouse);
        };
        let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if name.is_empty() {
            return Err("it has no bucket: use for example s3://bucket/accounting".to_owned());
        }
        let prefix = prefix.trim_matches('/');
        Ok(Self::Bucket {
            name: name.to_owned(),
            prefix: if prefix.is_empty() {
                String::new()
            } else {
                format!("{prefix}/")
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_what_it_is() {
        let bucket = |name: &str, prefix: &str| {
            Ok(Target::Bucket {
                name: name.to_owned(),
                prefix: prefix.to_owned(),
            })
        };
        assert_eq!("s3://lake".parse(), bucket("lake", ""));
        assert_eq!("s3://lake/a/b/".parse(), bucket("lake", "a/b/"));
        assert_eq!(
            "file:///srv/lake".parse(),
            Ok(Target::Directory("/srv/lake".into()))
        );
        assert!(matches!(
            "https://db/acctd".parse(),
            Ok(Target::ClickHouse(_))
        ));
        for bad in ["s3://", "s3:///a", "file://srv", "lake"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
