//! ClickHouse's HTTP interface (<https://clickhouse.com/docs/interfaces/http>).

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use flate2::read::GzEncoder;
use serde::de::DeserializeOwned;
use ureq::{Agent, SendBody};

use super::agent::{Answer, agent, password, plain, shortened};
use crate::cli::server::{ServerFlags, ServerUrl, Setting};
use crate::cli::ship::Compression;

/// For a whole request: a batch is small, and so is each answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// Of an answer that has no rows.
const MAX_TEXT: u64 = 1 << 20;
/// What is read of an answer at once.
const BUFFER: usize = 65_536;
const ZSTD_LEVEL: i32 = 1;

/// A server that is asked and sent to.
#[derive(Debug)]
pub(crate) struct ClickHouse {
    agent: Agent,
    url: ServerUrl,
    user: String,
    password_file: Option<PathBuf>,
    compression: Compression,
    /// Of each request.
    settings: Vec<Setting>,
}

/// Settings of one request: name and value.
pub(crate) type Settings<'s> = [(&'s str, &'s str)];

impl ClickHouse {
    pub(crate) fn new(
        url: &ServerUrl,
        flags: &ServerFlags,
        compression: Compression,
    ) -> Result<Self> {
        Ok(Self {
            agent: agent(&url.server, flags.ca_file.as_deref(), REQUEST_TIMEOUT)?,
            url: url.clone(),
            user: flags.user.clone(),
            password_file: flags.password_file.clone(),
            compression,
            settings: flags.setting.clone(),
        })
    }

    /// For messages.
    pub(crate) fn shown(&self) -> String {
        format!("{}/{}", self.url.server, self.url.database)
    }

    /// ClickHouse takes zstd and gzip since 2019, before gzip alone.
    pub(crate) fn without_zstd(&mut self) {
        if self.compression == Compression::Zstd {
            self.compression = Compression::Gzip;
        }
    }

    /// The rows of a SELECT.
    pub(crate) fn select<T: DeserializeOwned>(&self, statement: &str) -> Result<Vec<T>> {
        let mut rows = Vec::new();
        self.select_each(statement, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The same, one after the other.
    pub(crate) fn select_each<T: DeserializeOwned>(
        &self,
        statement: &str,
        mut each: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        self.each_line(&format!("{statement} FORMAT JSONEachRow"), |line| {
            let row = serde_json::from_slice(line);
            each(row.map_err(|_other| self.answered(line))?)
        })
    }

    /// The fields of each row of a SELECT, which `each` takes as text; `None` if they are not what was asked for.
    pub(crate) fn each_row(
        &self,
        statement: &str,
        mut each: impl FnMut(&mut dyn Iterator<Item = &[u8]>) -> Option<()>,
    ) -> Result<()> {
        self.each_line(&format!("{statement} FORMAT TabSeparated"), |line| {
            let mut fields = line.split(|byte| *byte == b'\t');
            each(&mut fields).ok_or_else(|| self.answered(line))
        })
    }

    fn each_line(&self, statement: &str, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        // It is complete before the first byte is sent, so an error has its status.
        let settings = [
            ("wait_end_of_query", "1"),
            ("output_format_json_quote_64bit_integers", "0"),
        ];
        let response = self.post(None, &settings, None, &mut statement.as_bytes())?;
        let body = response.into_body().into_with_config().limit(u64::MAX);
        let mut reader = BufReader::with_capacity(BUFFER, body.reader());
        let mut line = Vec::new();
        loop {
            line.clear();
            let n = reader.read_until(b'\n', &mut line);
            let n = n.with_context(|| self.unreachable())?;
            if n == 0 {
                return Ok(());
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            each(&line)?;
        }
    }

    /// ClickHouse may find an error when it has already answered 200: then that is in the body.
    fn answered(&self, text: &[u8]) -> anyhow::Error {
        let text = shortened(&String::from_utf8_lossy(text));
        anyhow!("{} answered: {text}", self.url.server)
    }

    fn unreachable(&self) -> String {
        format!("cannot reach {}", self.url.server)
    }

    /// A statement without an answer.
    pub(crate) fn execute(&self, statement: &str, settings: &Settings<'_>) -> Result<()> {
        self.check_is_empty(self.post(None, settings, None, &mut statement.as_bytes())?)
    }

    /// Sends `rows` as the data of an INSERT.
    pub(crate) fn insert(
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
        self.check_is_empty(answer?)
    }

    fn check_is_empty(&self, response: Answer) -> Result<()> {
        let text = self.text(response)?;
        if text.trim().is_empty() {
            return Ok(());
        }
        Err(self.answered(text.as_bytes()))
    }

    fn text(&self, response: Answer) -> Result<String> {
        let body = response.into_body().into_with_config().limit(MAX_TEXT);
        let text = body.lossy_utf8(true).read_to_string();
        text.map_err(plain).with_context(|| self.unreachable())
    }

    fn post(
        &self,
        statement: Option<&str>,
        settings: &Settings<'_>,
        encoding: Option<&str>,
        body: &mut dyn Read,
    ) -> Result<Answer> {
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
        let asked = asked.map(|it| (it.name.as_str(), it.value.as_str()));
        for (name, value) in own.chain(asked) {
            request = request.query(name, value);
        }
        let response = request
            .send(SendBody::from_reader(body))
            .map_err(plain)
            .with_context(|| self.unreachable())?;
        let status = response.status();
        let exception = response
            .headers()
            .contains_key("X-ClickHouse-Exception-Code");
        if !status.is_success() || exception {
            let text = shortened(&self.text(response)?);
            match hint(&text) {
                Some(hint) => bail!("{server} answered {}: {text}: {hint}", status.as_u16()),
                None => bail!("{server} answered {}: {text}", status.as_u16()),
            }
        }
        Ok(response)
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

/// A string of SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_sql_ends_where_it_should() {
        assert_eq!(quoted(r"a'b\"), r"'a\'b\\'");
    }
}
