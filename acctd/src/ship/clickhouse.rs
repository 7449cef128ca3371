//! ClickHouse's HTTP interface (<https://clickhouse.com/docs/interfaces/http>).

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use flate2::read::GzEncoder;
use serde::de::DeserializeOwned;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, SendBody};

use crate::cli::ship::{Compression, ServerUrl, ShipArgs};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a whole request: a batch is small, and so is each answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Of an answer: the marks of a million files.
const MAX_ANSWER: u64 = 256 << 20;
/// Of an error. ClickHouse's may have the whole statement.
const MAX_ERROR: usize = 300;
const ZSTD_LEVEL: i32 = 1;

/// A server that is asked and sent to.
#[derive(Debug)]
pub(super) struct ClickHouse {
    agent: Agent,
    url: ServerUrl,
    user: String,
    password_file: Option<PathBuf>,
    compression: Compression,
    /// Of each request.
    settings: Vec<(String, String)>,
}

/// Settings of one request: name and value.
pub(super) type Settings<'s> = [(&'s str, &'s str)];

impl ClickHouse {
    pub(super) fn new(args: &ShipArgs) -> Result<Self> {
        let url = args.to.clone().context("no --to")?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        if url.server.starts_with("https") {
            tls = tls.root_certs(root_certificates(args.ca_file.as_deref())?);
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("acctd/", env!("CARGO_PKG_VERSION")))
            .build();
        let settings = args.setting.iter();
        Ok(Self {
            agent: config.into(),
            url,
            user: args.user.clone(),
            password_file: args.password_file.clone(),
            compression: args.compression,
            settings: settings
                .map(|it| (it.name.clone(), it.value.clone()))
                .collect(),
        })
    }

    /// For messages.
    pub(super) fn shown(&self) -> String {
        format!("{}/{}", self.url.server, self.url.database)
    }

    /// ClickHouse takes zstd and gzip since 2019, before gzip alone.
    pub(super) fn without_zstd(&mut self) {
        if self.compression == Compression::Zstd {
            self.compression = Compression::Gzip;
        }
    }

    /// The rows of a SELECT.
    pub(super) fn select<T: DeserializeOwned>(&self, statement: &str) -> Result<Vec<T>> {
        // It is complete before the first byte is sent, so an error has its status.
        let settings = [
            ("wait_end_of_query", "1"),
            ("output_format_json_quote_64bit_integers", "0"),
        ];
        let statement = format!("{statement} FORMAT JSONEachRow");
        let answer = self.post(None, &settings, None, &mut statement.as_bytes())?;
        let lines = answer.lines().filter(|line| !line.is_empty());
        let rows = lines.map(|line| {
            serde_json::from_str(line)
                .map_err(|_other| anyhow!("{} answered: {}", self.url.server, shortened(line)))
        });
        rows.collect()
    }

    /// A statement without an answer.
    pub(super) fn execute(&self, statement: &str, settings: &Settings<'_>) -> Result<()> {
        let answer = self.post(None, settings, None, &mut statement.as_bytes())?;
        self.check_is_empty(&answer)
    }

    /// Sends `rows` as the data of an INSERT.
    pub(super) fn insert(
        &self,
        statement: &str,
        settings: &Settings<'_>,
        rows: &mut dyn Read,
    ) -> Result<()> {
        let answer = match self.compression {
            Compression::None => self.post(Some(statement), settings, None, rows),
            Compression::Gzip => {
                let mut rows = GzEncoder::new(rows, flate2::Compression::fast());
                self.post(Some(statement), settings, Some("gzip"), &mut rows)
            }
            Compression::Zstd => {
                let mut rows = zstd::stream::read::Encoder::new(rows, ZSTD_LEVEL)?;
                self.post(Some(statement), settings, Some("zstd"), &mut rows)
            }
        };
        self.check_is_empty(&answer?)
    }

    /// ClickHouse may find an error when it has already answered 200: then that is in the body.
    fn check_is_empty(&self, answer: &str) -> Result<()> {
        let text = shortened(answer);
        ensure!(text.is_empty(), "{} answered: {text}", self.url.server);
        Ok(())
    }

    fn post(
        &self,
        statement: Option<&str>,
        settings: &Settings<'_>,
        encoding: Option<&str>,
        body: &mut dyn Read,
    ) -> Result<String> {
        let server = &self.url.server;
        let mut request = self
            .agent
            .post(format!("{server}/"))
            .query("database", &self.url.database)
            .header("X-ClickHouse-User", &self.user)
            .header("Content-Type", "text/plain");
        if let Some(path) = &self.password_file {
            request = request.header("X-ClickHouse-Key", password(path)?);
        }
        if let Some(statement) = statement {
            request = request.query("query", statement);
        }
        if let Some(encoding) = encoding {
            request = request.header("Content-Encoding", encoding);
        }
        let own = settings.iter().copied();
        let asked = self.settings.iter();
        for (name, value) in own.chain(asked.map(|(name, value)| (name.as_str(), value.as_str()))) {
            request = request.query(name, value);
        }
        let failed = || format!("cannot reach {server}");
        let mut response = request
            .send(SendBody::from_reader(body))
            .map_err(plain)
            .with_context(failed)?;
        let status = response.status();
        let exception = response
            .headers()
            .contains_key("X-ClickHouse-Exception-Code");
        let answer = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .lossy_utf8(true);
        let answer = answer
            .read_to_string()
            .map_err(plain)
            .with_context(failed)?;
        if !status.is_success() || exception {
            let text = shortened(&answer);
            match hint(&text) {
                Some(hint) => bail!("{server} answered {}: {text}: {hint}", status.as_u16()),
                None => bail!("{server} answered {}: {text}", status.as_u16()),
            }
        }
        Ok(answer)
    }
}

/// The error that is in ureq's.
fn plain(error: ureq::Error) -> anyhow::Error {
    match error {
        ureq::Error::Io(error) => error.into(),
        other => other.into(),
    }
}

/// What to do about an error that users meet, by its code
/// (<https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp>).
fn hint(text: &str) -> Option<&'static str> {
    let code = text.strip_prefix("Code: ")?.split(['.', ',']).next()?;
    Some(match code {
        "60" | "81" => "acctd ship --schema prints the statements that make the tables",
        "16" | "47" => {
            "its tables are of another version: acctd ship --schema prints what brings them to this one"
        }
        "192" | "193" | "194" | "516" => "see --user and --password-file",
        "243" => "its disk is full",
        "252" => "it gets more inserts than it can merge; acctd ship tries again",
        _ => return None,
    })
}

/// The first line of what ClickHouse says.
fn shortened(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let end = line.floor_char_boundary(MAX_ERROR);
    if end < line.len() {
        format!("{}…", &line[..end])
    } else {
        line.to_owned()
    }
}

fn password(path: &Path) -> Result<String> {
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
