//! One HTTP/2 connection to containerd's socket, on smol.

use crate::util::deadline::within;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// How long containerd may take to accept a connection before it counts as away.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The receive window of one stream: image layers flow without waiting for window updates.
const STREAM_WINDOW: u32 = 1 << 20;

/// What containerd's generated clients are given as the base address; a socket has no name, but
/// HTTP/2 wants one.
pub const ORIGIN: &str = "http://containerd";

/// containerd could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket does not answer.
    #[error("cannot connect to containerd at {path}")]
    Socket {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It does not speak HTTP/2.
    #[error("containerd at {path} does not speak HTTP/2")]
    Handshake {
        /// The socket.
        path: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
}

#[derive(Debug, Clone, Copy)]
struct SmolExecutor;

impl<F> hyper::rt::Executor<F> for SmolExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        smol::spawn(future).detach();
    }
}

/// A connection that containerd's generated clients run over. Clones share it.
#[derive(Debug, Clone)]
pub struct Channel {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
}

impl Channel {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    ///
    /// Nothing listens there, or it is not containerd.
    pub async fn connect(path: &str) -> Result<Self, ConnectError> {
        let socket_error = |source| ConnectError::Socket { path: path.to_owned(), source };
        let connect = smol::Async::<std::os::unix::net::UnixStream>::connect(path);
        let late = || Err(std::io::ErrorKind::TimedOut.into());
        let stream = within(CONNECT_LIMIT, connect).await.unwrap_or_else(late);
        let stream = stream.map_err(socket_error)?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(SmolExecutor)
            .timer(smol_hyper::rt::SmolTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .handshake(smol_hyper::rt::FuturesIo::new(stream))
            .await
            .map_err(|source| ConnectError::Handshake { path: path.to_owned(), source })?;
        smol::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to containerd ended");
            }
        })
        .detach();
        Ok(Self { sender })
    }

    /// Tells whether the connection ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl tower_service::Service<http::Request<tonic::body::Body>> for Channel {
    type Response = http::Response<hyper::body::Incoming>;
    type Error = hyper::Error;
    type Future =
        Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send + 'static>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
