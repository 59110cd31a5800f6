//! The socket and its connections: limits, deadlines, panics, an orderly end.

use super::{local::LocalNode, route, stall::Stall, stream::Body};
use crate::util::deadline::within;
use futures_lite::FutureExt;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use smol::{
    io::AsyncWriteExt,
    net::unix::{UnixListener, UnixStream},
};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::{
    convert::Infallible,
    future::Future,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// How many connections may be open. Each follower of a log holds one; a few hundred of them are a
/// fleet of consoles, and each costs some 20 KB.
const CONNECTIONS_MAX: usize = 512;

/// How long a client may take to send the head of a request, and how long an idle connection is
/// kept. Local clients send at once; what is slower holds a place for nothing.
const HEADER_WAIT: Duration = Duration::from_secs(30);

/// How long a client may leave an answer unread. Long, because a log that is piped into a pager is
/// read when its reader turns the page.
const WRITE_WAIT: Duration = Duration::from_secs(3_600);

/// Bytes of a request's head: filters and registry logins are the longest part, some kilobytes.
const HEADER_MAX: usize = 64 * 1024;

/// How many header lines a request may have; Docker's client sends eight.
const HEADERS_MAX: usize = 64;

/// How long requests under way may go on once the daemon ends. Followed logs never end by
/// themselves.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

/// The wait after `accept` failed for want of descriptors, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The group whose members may use the socket, where it exists.
const GROUP: &str = "midge";

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers on it.
    #[error("another daemon listens on {}", .0.display())]
    Live(PathBuf),
    /// Something else has its name.
    #[error("{} exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// It cannot be made.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Makes the socket: 0660, of the group `midge` where there is one. A socket that a dead daemon
/// left behind is replaced.
///
/// # Errors
///
/// Another daemon listens on it, or it cannot be made.
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |what: &'static str| {
        let path = path.to_owned();
        move |source| BindError::Io { what, path, source }
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed("create the folder of"))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed("remove the stale socket"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("look at")(error)),
            Ok(_) => return Err(BindError::Live(path.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed("listen on"))?;
    if let Some(group) = group_id(GROUP) {
        std::os::unix::fs::chown(path, None, Some(group)).map_err(failed("change the group of"))?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(failed("set the mode of"))?;
    Ok(listener)
}

/// Looks a group up in the file: no NSS module is ever loaded.
fn group_id(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// Serves the API until `shutdown` is done, then ends every connection within
/// a few seconds.
pub async fn serve(
    listener: UnixListener,
    node: Arc<dyn LocalNode>,
    shutdown: impl Future<Output = ()>,
) {
    let (running, stopped) = async_channel::bounded::<()>(1);
    let (alive, ended) = async_channel::bounded::<()>(1);
    let open = Arc::new(AtomicUsize::new(0));
    let accept = async {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the API");
                    async_io::Timer::after(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let place = Place::take(&open, alive.clone());
            smol::spawn(connection(stream, node.clone(), place, stopped.clone())).detach();
        }
    };
    let mut shutdown = pin!(shutdown);
    accept.or(&mut shutdown).await;
    drop(running);
    drop(alive);
    // Every connection holds a sender; the channel closes with the last of them.
    let _closed = ended.recv().await;
}

/// A connection's place among [`CONNECTIONS_MAX`], given back however it ends.
struct Place {
    open: Arc<AtomicUsize>,
    within: bool,
    _alive: async_channel::Sender<()>,
}

impl Place {
    fn take(open: &Arc<AtomicUsize>, alive: async_channel::Sender<()>) -> Self {
        let before = open.fetch_add(1, Ordering::Relaxed);
        Self { open: open.clone(), within: before < CONNECTIONS_MAX, _alive: alive }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    stream: UnixStream,
    node: Arc<dyn LocalNode>,
    place: Place,
    stopped: async_channel::Receiver<()>,
) {
    if !place.within {
        turn_away(stream).await;
        return;
    }
    let service = service_fn(move |request| answer(node.clone(), request));
    let served = async {
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(SmolTimer::new())
            .header_read_timeout(HEADER_WAIT)
            .max_header_size(HEADER_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(FuturesIo::new(Stall::new(stream, WRITE_WAIT)), service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = async { Some(connection.as_mut().await) }
            .or(async {
                let _closed = stopped.recv().await;
                None
            })
            .await;
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                connection
                    .as_mut()
                    .or(async {
                        async_io::Timer::after(SHUTDOWN_WAIT).await;
                        Ok(())
                    })
                    .await
            }
        };
        // Clients that leave in the middle of a followed log are the ordinary case.
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the API ended early");
        }
    };
    if AssertUnwindSafe(served).catch_unwind().await.is_err() {
        tracing::error!("a panic ended a connection to the API");
    }
    drop(place);
}

/// Tells a client that there are too many, without reading anything from it.
async fn turn_away(mut stream: UnixStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
        content-length: 48\r\nconnection: close\r\n\r\n{\"message\":\"too many connections; try again\"}   ";
    let written = within(ACCEPT_PAUSE, stream.write_all(ANSWER)).await;
    let written = written.is_some_and(|written| written.is_ok());
    tracing::warn!(written, "too many connections to the API; one was turned away");
}

/// Answers one request; a panic becomes a 500 and ends nothing else.
async fn answer(
    node: Arc<dyn LocalNode>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = AssertUnwindSafe(route::dispatch(node, request)).catch_unwind().await;
    let response = answered.unwrap_or_else(|_| {
        tracing::error!(%method, path, "a panic while answering a request");
        route::panicked()
    });
    tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
    Ok(route::with_headers(response))
}
