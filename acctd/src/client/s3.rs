//! A bucket of S3 (<https://docs.aws.amazon.com/AmazonS3/latest/API/>): objects are looked at and created, and never
//! replaced.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rusty_s3::{Credentials, S3Action as _, UrlStyle};
use ureq::Agent;

use super::agent::{Answer, agent, password, plain, shortened};
use crate::cli::server::ServerFlags;

/// For a whole request: an archive of a day over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long a signed request may be on the way to the server.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// Of an answer.
const MAX_TEXT: u64 = 1 << 20;
/// Headers of an object of ours, and of a request that must not replace one.
const SHA256: &str = "x-amz-meta-sha256";
const IF_NONE_MATCH: &str = "if-none-match";

/// A bucket, and who asks.
#[derive(Debug)]
pub(crate) struct Bucket {
    agent: Agent,
    requests: rusty_s3::Bucket,
    server: String,
    /// The access key.
    user: String,
    /// Of the secret key.
    password_file: Option<PathBuf>,
}

/// An object in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) size: u64,
    /// In hexadecimal, as its sender said; none of an object that acctd has not sent.
    pub(crate) sha256: Option<String>,
}

impl Bucket {
    /// Without an endpoint, it is one of Amazon's.
    pub(crate) fn new(
        name: &str,
        endpoint: Option<&str>,
        region: &str,
        flags: &ServerFlags,
    ) -> Result<Self> {
        // Others need no name in DNS for each bucket.
        let (server, style) = match endpoint {
            Some(endpoint) => (endpoint.to_owned(), UrlStyle::Path),
            None => (
                format!("https://s3.{region}.amazonaws.com"),
                UrlStyle::VirtualHost,
            ),
        };
        let wrong = || format!("{server}: use for --endpoint for example https://s3.example.net");
        let url = server.parse().with_context(wrong)?;
        Ok(Self {
            agent: agent(&server, flags.ca_file.as_deref(), REQUEST_TIMEOUT)?,
            requests: rusty_s3::Bucket::new(url, style, name.to_owned(), region.to_owned())
                .with_context(wrong)?,
            user: flags.user.clone(),
            password_file: flags.password_file.clone(),
            server,
        })
    }

    /// The object of this name; `None` if there is none.
    pub(crate) fn find(&self, key: &str) -> Result<Option<Object>> {
        let credentials = self.credentials()?;
        let url = self.requests.head_object(credentials.as_ref(), key);
        let answer = self.agent.head(url.sign(SIGNED_FOR).as_str()).call();
        let answer = answer.map_err(plain).with_context(|| self.unreachable())?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let answer = self.successful(answer)?;
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let size = header("content-length").and_then(|it| it.parse().ok());
        Ok(Some(Object {
            size: size
                .with_context(|| format!("{} does not say how long {key} is", self.server))?,
            sha256: header(SHA256).map(str::to_owned),
        }))
    }

    /// Sends a file, unless there is an object of this name.
    pub(crate) fn create(&self, key: &str, file: &File, sha256: &str) -> Result<()> {
        let credentials = self.credentials()?;
        let mut put = self.requests.put_object(credentials.as_ref(), key);
        let headers = [(SHA256, sha256), (IF_NONE_MATCH, "*")];
        for (name, value) in headers {
            put.headers_mut().insert(name, value);
        }
        let size = file.metadata()?.len();
        let mut request = self.agent.put(put.sign(SIGNED_FOR).as_str());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request
            .header("content-length", size)
            .send(file)
            .map_err(plain)
            .with_context(|| self.unreachable())?;
        // Another one was faster; what it has sent is looked at.
        if answer.status() == 412 || answer.status() == 409 {
            return Ok(());
        }
        self.successful(answer).map(drop)
    }

    fn credentials(&self) -> Result<Option<Credentials>> {
        let secret = self.password_file.as_deref().map(password).transpose()?;
        Ok(secret.map(|secret| Credentials::new(&self.user, secret)))
    }

    fn unreachable(&self) -> String {
        format!("cannot reach {}", self.server)
    }

    fn successful(&self, answer: Answer) -> Result<Answer> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.into_body().into_with_config().limit(MAX_TEXT);
        let text = body.lossy_utf8(true).read_to_string().unwrap_or_default();
        let code = element(&text, "Code").unwrap_or_default();
        let message = match element(&text, "Message") {
            Some(message) => format!("{code}: {message}"),
            None => status.canonical_reason().unwrap_or_default().to_owned(),
        };
        let said = anyhow!(
            "{} answered {}: {}",
            self.server,
            status.as_u16(),
            shortened(&message)
        );
        match hint(status.as_u16(), code) {
            Some(hint) => bail!("{said}: {hint}"),
            None => Err(said),
        }
    }
}

/// The text of an element of XML that has no others.
fn element<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// What to do about an error that users meet
/// (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>). The answer to a HEAD has no code.
fn hint(status: u16, code: &str) -> Option<&'static str> {
    Some(match (status, code) {
        (_, "RequestTimeTooSkewed") => "the clock of this machine is wrong",
        (_, "NoSuchBucket") => "make the bucket",
        (301 | 307, _) | (_, "AuthorizationHeaderMalformed") => "see --region and --endpoint",
        (401 | 403, _) => "see --user (the access key) and --password-file (the secret key)",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_to_do() {
        let text = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>No such bucket</Message></Error>";
        assert_eq!(element(text, "Code"), Some("NoSuchBucket"));
        assert_eq!(element(text, "Message"), Some("No such bucket"));
        assert_eq!(element(text, "Resource"), None);
        assert_eq!(hint(404, "NoSuchBucket"), Some("make the bucket"));
        assert_eq!(hint(500, "InternalError"), None);
    }
}
