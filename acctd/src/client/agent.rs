//! HTTP and TLS of all clients.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

pub(super) type Answer = ureq::http::Response<ureq::Body>;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of an error. `ClickHouse`'s may have the whole statement.
const MAX_ERROR: usize = 300;

/// `timeout` is for a whole request. Redirects are not followed.
pub(super) fn agent(server: &str, ca_file: Option<&Path>, timeout: Duration) -> Result<Agent> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
    if server.starts_with("https") {
        tls = tls.root_certs(root_certificates(ca_file)?);
    }
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .user_agent(concat!("acctd/", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(config.into())
}

/// The error that is in ureq's.
pub(super) fn plain(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Io(error) => error.into(),
        other => other.into(),
    }
}

/// The first line of what a server says.
pub(super) fn shortened(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let end = line.floor_char_boundary(MAX_ERROR);
    if end < line.len() {
        format!("{}…", &line[..end])
    } else {
        line.to_owned()
    }
}

pub(super) fn password(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let password = text.trim_end_matches(['\r', '\n']);
    ensure!(
        password.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
        "{}: it must be one line of printable characters",
        path.display()
    );
    Ok(password.to_owned())
}

fn root_certificates(file: Option<&Path>) -> Result<RootCerts> {
    let Some(path) = file else {
        let found = rustls_native_certs::load_native_certs();
        ensure!(
            !found.certs.is_empty(),
            "this machine has no certificates of authorities: install ca-certificates, or use --ca-file"
        );
        let certificates = found.certs.iter();
        return Ok(RootCerts::from(
            certificates.map(|it| Certificate::from_der(it).to_owned()),
        ));
    };
    let shown = path.display();
    let text = fs::read(path).with_context(|| shown.to_string())?;
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.with_context(|| shown.to_string())? {
            certificates.push(certificate);
        }
    }
    ensure!(
        !certificates.is_empty(),
        "{shown}: it has no certificate (PEM)"
    );
    Ok(RootCerts::from(certificates.into_iter()))
}
