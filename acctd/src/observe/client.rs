//! Asks a running acctd, at the address of its `--listen`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::listen_address::ListenAddress;

/// Gets `path`; with a body, posts it there. Returns the answer.
pub(crate) fn ask(
    address: &ListenAddress,
    path: &str,
    body: Option<String>,
    timeout: Duration,
) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked = async { tokio::time::timeout(timeout, connect(address, path, body)).await };
    let result = runtime.block_on(asked);
    let answer = result.unwrap_or_else(|_late| bail!("no answer within {timeout:?}"));
    answer.with_context(|| format!("cannot ask {address}"))
}

async fn connect(address: &ListenAddress, path: &str, body: Option<String>) -> Result<String> {
    let absent =
        || "is acctd running, and with the same --listen? kill -USR1 makes it log its status";
    match address {
        ListenAddress::Tcp(address) => {
            let stream = TcpStream::connect(address).await.with_context(absent)?;
            exchange(stream, path, body).await
        }
        ListenAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket).await.with_context(absent)?;
            exchange(stream, path, body).await
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    path: &str,
    body: Option<String>,
) -> Result<String> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = match body {
        None => Request::get(path),
        Some(_) => Request::post(path),
    };
    let request = request
        .header(HOST, "acctd")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    let text = String::from_utf8_lossy(&body).into_owned();
    match status {
        StatusCode::OK => Ok(text),
        // It says why in a line.
        StatusCode::CONFLICT => bail!("{}", text.trim_end()),
        status => bail!("it answers {status}"),
    }
}
