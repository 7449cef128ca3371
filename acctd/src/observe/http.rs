//! The HTTP listener (`--listen`): `/metrics`, `/healthz`, `/status`. It has a thread and a runtime of its
//! own, behind the readers', and reads only what `state` has: whatever clients do, no packet waits
//! for it, nor does another program that has no priority of its own. Each address has its own clients:
//! those of one take no place from those of another.

use std::convert::Infallible;
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use anyhow::{Context as _, Result, anyhow};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use log::{info, warn};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use crate::config::listen_address::ListenAddress;
use crate::observe::metrics::{Format, Metrics};
use crate::observe::state::RuntimeState;
use crate::observe::status::Status;
use crate::process::priority::yield_to_readers_and_others;

/// Clients of one address at once; a further one takes the place of the one that has been quiet for the
/// longest.
pub const MAX_CLIENTS: usize = 16;
/// For a client to ask before another may take its place, and for an answer to arrive.
const QUIET: Duration = Duration::from_millis(250);
/// How often to look for a place while none has been quiet for that long.
const SLOT_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// For a client to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For a client that asks nothing more, or does not take the answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Of a socket's file: owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

/// Sockets that are bound, though nobody is answered yet.
#[derive(Debug, Default)]
pub struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    files: Vec<SocketFile>,
}

impl Listeners {
    /// Binds all of them.
    pub fn bind(addresses: &[ListenAddress]) -> Result<Self> {
        let mut listeners = Self::default();
        for address in addresses {
            listeners
                .add(address)
                .with_context(|| format!("cannot listen on {address}"))?;
        }
        Ok(listeners)
    }

    fn add(&mut self, address: &ListenAddress) -> Result<()> {
        match address {
            ListenAddress::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => {
                        anyhow!("another program listens there: choose another port with --listen")
                    }
                    io::ErrorKind::AddrNotAvailable => {
                        anyhow!("this machine does not have the address")
                    }
                    _ => error.into(),
                })?;
                listener.set_nonblocking(true)?;
                self.tcp.push(listener);
            }
            ListenAddress::Unix(path) => {
                remove_stale_socket(path)?;
                let listener = UnixListener::bind(path).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => anyhow!("its directory is not there: mkdir -p it (RuntimeDirectory=acctd in a unit of systemd)"),
                    io::ErrorKind::PermissionDenied => anyhow!("{error}: its directory must be one that acctd's user may write to; make it beforehand, or choose another path with --listen"),
                    _ => error.into(),
                })?;
                self.files.push(SocketFile(path.clone()));
                fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
                listener.set_nonblocking(true)?;
                self.unix.push(listener);
            }
        }
        Ok(())
    }

    /// Answers from now on, until this process ends.
    pub fn answer(self, state: Arc<RuntimeState>) -> Result<Answering> {
        if self.tcp.is_empty() && self.unix.is_empty() {
            return Ok(Answering { _files: Vec::new() });
        }
        for listener in &self.tcp {
            info!("Listening on {}", listener.local_addr()?);
        }
        for file in &self.files {
            info!("Listening on unix:{}", file.0.display());
        }
        let Self { tcp, unix, files } = self;
        thread::Builder::new()
            .name("listen".into())
            .spawn(move || {
                yield_to_readers_and_others();
                if let Err(error) = serve(tcp, unix, state) {
                    warn!("nobody is answered any more on --listen: {error:#}; accounting goes on");
                }
            })
            .context("cannot start the thread that answers on --listen")?;
        Ok(Answering { _files: files })
    }
}

/// Somebody answers. The sockets' files go when this is dropped.
#[derive(Debug)]
pub struct Answering {
    _files: Vec<SocketFile>,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // One that stays is taken for what it is by the next acctd.
        let _stays = fs::remove_file(&self.0);
    }
}

/// A killed acctd leaves its socket's file behind.
fn remove_stale_socket(path: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(anyhow!("a file that is no socket stands there: move it"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(anyhow!(
            "another program listens there: stop it, or choose another path with --listen"
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("cannot remove what an earlier acctd has left there")
        }
        Err(error) => Err(error.into()),
    }
}

fn serve(tcp: Vec<TcpListener>, unix: Vec<UnixListener>, state: Arc<RuntimeState>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = Arc::new(Server {
        metrics: Metrics::new(Arc::clone(&state)),
        state,
    });
    runtime.block_on(async {
        for listener in tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let mut clients = Clients::new(&server);
            tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    clients.take(accepted).await;
                }
            });
        }
        for listener in unix {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let mut clients = Clients::new(&server);
            tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    clients.take(accepted).await;
                }
            });
        }
        std::future::pending().await
    })
}

/// Those of one address.
struct Clients {
    server: Arc<Server>,
    connected: Vec<Client>,
}

struct Client {
    /// When it has connected or asked last.
    heard: Arc<Mutex<Instant>>,
    answering: JoinHandle<()>,
}

impl Client {
    fn heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            connected: Vec::new(),
        }
    }

    /// Answers a client, at the same time as others.
    async fn take<S>(&mut self, accepted: io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(stream) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            return;
        };
        self.make_room().await;
        let heard = Arc::new(Mutex::new(Instant::now()));
        self.connected.push(Client {
            heard: Arc::clone(&heard),
            answering: tokio::spawn(answer(Arc::clone(&self.server), stream, heard)),
        });
    }

    /// Returns when there is room for one more: at once, or when one has been quiet for long enough.
    async fn make_room(&mut self) {
        loop {
            self.connected
                .retain(|client| !client.answering.is_finished());
            if self.connected.len() < MAX_CLIENTS {
                return;
            }
            let places = self.connected.iter().enumerate();
            if let Some((place, quiet)) = places.min_by_key(|(_, client)| client.heard())
                && quiet.heard().elapsed() >= QUIET
            {
                self.connected.swap_remove(place).answering.abort();
                return;
            }
            tokio::time::sleep(SLOT_POLL_INTERVAL).await;
        }
    }
}

async fn answer<S>(server: Arc<Server>, stream: S, heard: Arc<Mutex<Instant>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let response = server.respond(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // What a client does wrong is its own affair.
    let _ended = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

struct Server {
    state: Arc<RuntimeState>,
    metrics: Metrics,
}

impl Server {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            let methods = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, methods);
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(request),
            "/healthz" => self.health(),
            "/status" => match serde_json::to_string_pretty(&Status::of(&self.state)) {
                Ok(text) => of_type("application/json", format!("{text}\n")),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            "/" => plain(StatusCode::OK, "acctd: /metrics /healthz /status\n"),
            _ => plain(StatusCode::NOT_FOUND, "acctd: /metrics /healthz /status\n"),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let accept = request.headers().get_all(ACCEPT).iter();
        let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
        let format = Format::accepted(&accept.join(","));
        match self.metrics.encode(format) {
            Ok(text) => of_type(format.content_type(), text),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let snapshot = self.state.snapshot();
        let mut lines = snapshot.problems(&self.state.groups);
        let status = if lines.is_empty() {
            lines.push("ok".to_owned());
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        lines.extend(snapshot.notes());
        plain(status, &format!("{}\n", lines.join("\n")))
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = of_type("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

fn of_type(content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_tcp_or_a_path() {
        let parsed = |text: &str| text.parse::<ListenAddress>().map(|it| it.to_string());
        for address in ["127.0.0.1:9745", "[::1]:9745", "unix:/run/acctd/acctd.sock"] {
            assert_eq!(parsed(address).as_deref(), Ok(address));
        }
        assert_eq!(parsed(":9745").as_deref(), Ok("[::]:9745"));
        let too_long = format!("unix:/{}", "a".repeat(107));
        for bad in ["", "9745", "localhost", "unix:", "127.0.0.1", &too_long] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
