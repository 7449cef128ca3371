//! A listener for HTTP (`--listen`), on TCP and UNIX sockets. It has its own thread and runtime.
//! Each address has its own limit of clients: those of one address do not push out those of another.

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
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use crate::config::listen_address::ListenAddress;
use crate::observe::metrics::Format;
use crate::process::priority::yield_to_readers_and_others;

/// Clients of one address at a time. A further one replaces the one that has been idle for the longest.
pub const MAX_CLIENTS: usize = 16;
/// A client may be replaced if it has sent no request for so long: time to send one, and to read the answer.
const IDLE_TIME: Duration = Duration::from_millis(250);
/// While no client has been idle for that long: how often to check again.
const SLOT_POLL_INTERVAL: Duration = Duration::from_millis(10);
/// For a client to send the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For all of a connection, so that a client that reads no answer does not stay.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// After a failed accept, most likely because there are no descriptors left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);
/// Owner and group may connect to a UNIX socket.
const SOCKET_MODE: u32 = 0o660;

/// Who answers requests.
pub(crate) trait Answer: Send + Sync + 'static {
    /// `is_local`: on a UNIX socket, to which only its owner and group can connect.
    fn answer(
        &self,
        request: Request<Incoming>,
        is_local: bool,
    ) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Bound sockets. Requests are answered after [`Listeners::serve`].
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    files: SocketFiles,
}

impl Listeners {
    pub(crate) fn bind(addresses: &[ListenAddress]) -> Result<Self> {
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
                    io::ErrorKind::NotFound => anyhow!("its directory does not exist: create it (in a systemd unit: RuntimeDirectory=acctd)"),
                    io::ErrorKind::PermissionDenied => anyhow!("{error}: acctd's user must be able to write to its directory; create that directory first, or choose another path with --listen"),
                    _ => error.into(),
                })?;
                self.files.0.push(path.clone());
                fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
                listener.set_nonblocking(true)?;
                self.unix.push(listener);
            }
        }
        Ok(())
    }

    /// Answers requests until the process ends. The socket files are removed when the result is dropped.
    pub(crate) fn serve<A: Answer>(self, answerer: Arc<A>) -> Result<SocketFiles> {
        if self.tcp.is_empty() && self.unix.is_empty() {
            return Ok(SocketFiles::default());
        }
        for listener in &self.tcp {
            info!("Listening on {}", listener.local_addr()?);
        }
        for path in &self.files.0 {
            info!("Listening on unix:{}", path.display());
        }
        let Self { tcp, unix, files } = self;
        thread::Builder::new()
            .name("listen".into())
            .spawn(move || {
                yield_to_readers_and_others();
                if let Err(error) = run_server(tcp, unix, &answerer) {
                    warn!(
                        "the listener of --listen has failed: {error:#}; everything else continues"
                    );
                }
            })
            .context("cannot start the thread of --listen")?;
        Ok(files)
    }
}

/// The files of UNIX sockets, removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct SocketFiles(Vec<PathBuf>);

impl Drop for SocketFiles {
    fn drop(&mut self) {
        for path in &self.0 {
            // The next acctd removes a file that remains.
            let _remains = fs::remove_file(path);
        }
    }
}

/// A killed acctd leaves its socket file.
fn remove_stale_socket(path: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        return Err(anyhow!("there is a file that is no socket: move it"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(anyhow!(
            "another program listens there: stop it, or choose another path with --listen"
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("cannot remove the socket file of an earlier acctd")
        }
        Err(error) => Err(error.into()),
    }
}

fn run_server<A: Answer>(
    tcp: Vec<TcpListener>,
    unix: Vec<UnixListener>,
    answerer: &Arc<A>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        for listener in tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let mut clients = Clients::new(answerer, false);
            tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    clients.accept(accepted).await;
                }
            });
        }
        for listener in unix {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let mut clients = Clients::new(answerer, true);
            tokio::spawn(async move {
                loop {
                    let accepted = listener.accept().await.map(|(stream, _)| stream);
                    clients.accept(accepted).await;
                }
            });
        }
        std::future::pending().await
    })
}

/// The clients of one address.
struct Clients<A> {
    answerer: Arc<A>,
    /// Of a UNIX socket: only its owner and group can connect.
    are_local: bool,
    connected: Vec<Client>,
}

struct Client {
    /// The time of its last request, at first of its connection.
    last_request: Arc<Mutex<Instant>>,
    task: JoinHandle<()>,
}

impl Client {
    fn last_request(&self) -> Instant {
        *self
            .last_request
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A: Answer> Clients<A> {
    fn new(answerer: &Arc<A>, are_local: bool) -> Self {
        Self {
            answerer: Arc::clone(answerer),
            are_local,
            connected: Vec::new(),
        }
    }

    /// Serves a client concurrently with the others.
    async fn accept<S>(&mut self, accepted: io::Result<S>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Ok(stream) = accepted else {
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            return;
        };
        self.make_room().await;
        let last_request = Arc::new(Mutex::new(Instant::now()));
        self.connected.push(Client {
            last_request: Arc::clone(&last_request),
            task: tokio::spawn(answer(
                Arc::clone(&self.answerer),
                self.are_local,
                stream,
                last_request,
            )),
        });
    }

    /// Returns when there is room for one more client: at once, or when one has been idle for long enough.
    async fn make_room(&mut self) {
        loop {
            self.connected.retain(|client| !client.task.is_finished());
            if self.connected.len() < MAX_CLIENTS {
                return;
            }
            let clients = self.connected.iter().enumerate();
            if let Some((index, idle)) = clients.min_by_key(|(_, client)| client.last_request())
                && idle.last_request().elapsed() >= IDLE_TIME
            {
                self.connected.swap_remove(index).task.abort();
                return;
            }
            tokio::time::sleep(SLOT_POLL_INTERVAL).await;
        }
    }
}

async fn answer<S, A: Answer>(
    answerer: Arc<A>,
    is_local: bool,
    stream: S,
    last_request: Arc<Mutex<Instant>>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| {
        *last_request.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let answerer = Arc::clone(&answerer);
        async move { Ok::<_, Infallible>(answerer.answer(request, is_local).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client's mistakes are not logged.
    let _ended = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
}

/// For GET and HEAD.
pub(crate) fn is_reading(request: &Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD)
}

pub(crate) fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
    let methods = HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(ALLOW, methods);
    response
}

/// The metrics in the format that the request accepts.
pub(crate) fn metrics(registry: &Registry, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request.headers().get_all(ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    match format.encode(registry) {
        Ok(text) => of_type(format.content_type(), text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = of_type("text/plain; charset=utf-8", text.to_owned());
    *response.status_mut() = status;
    response
}

pub(crate) fn of_type(content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_socket_address_or_a_path() {
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
