//! The values of `--listen`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// `ADDR:PORT`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            // sun_path of sys/un.h includes the final NUL.
            return match path.len() {
                0 => Err("a path must follow unix:".into()),
                1..108 => Ok(Self::Unix(path.into())),
                _ => Err("the path is longer than 107 bytes, the limit for a socket".into()),
            };
        }
        // `:9745` means all addresses, as in other programs.
        let everywhere = text.strip_prefix(':').map(|port| format!("[::]:{port}"));
        let address = everywhere.as_deref().unwrap_or(text);
        address.parse().map(Self::Tcp).map_err(|_no_address| {
            format!(
                "{text:?} is neither ADDRESS:PORT (127.0.0.1:9745, [::1]:9745) nor unix:PATH (unix:/run/acctd/acctd.sock)"
            )
        })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
