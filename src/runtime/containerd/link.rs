//! Calls to containerd: one shared connection made when needed, a deadline on every call, and
//! one judgement of what may pass by itself.
//!
//! Must not know what the calls are for.

use super::client::{Channel, ConnectError, ORIGIN};
use crate::{
    agent::Failure,
    types::Date,
    util::{deadline::within, error::chain},
};
use std::{error::Error as _, future::Future, sync::Arc, time::Duration};
use tonic::{Code, Request, Status};

/// For calls that read or write containerd's own database: milliseconds where all is well, seconds
/// on an SD card under load.
pub(in crate::runtime) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// For calls that run the shim and runc, which take a second on a small board and much longer
/// while it is starting everything at once after a boot.
pub(in crate::runtime) const RUN_LIMIT: Duration = Duration::from_secs(60);

/// What containerd says, without a code of its own, of what passes: the shim was just ending, the
/// machine is overloaded, the disk is full.
const PASSING: [&str; 3] =
    ["ttrpc: closed", "context deadline exceeded", "no space left on device"];

/// A call to containerd failed.
#[derive(Debug, thiserror::Error)]
pub(in crate::runtime) enum CallError {
    /// There is no connection.
    #[error("containerd does not answer")]
    Connect(#[source] ConnectError),
    /// No answer came in time.
    #[error("containerd did not answer to {call:?} within {limit:?}")]
    Late {
        /// The call.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// containerd refused, or the connection broke.
    #[error("{}", .status.message())]
    Status {
        /// Its answer.
        status: Box<Status>,
        /// Whether the connection broke.
        broken: bool,
    },
}

impl CallError {
    /// Tells whether containerd said that there is no such thing.
    pub(in crate::runtime) fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.code() == Code::NotFound)
    }

    /// Tells whether containerd said that the thing is there already.
    pub(in crate::runtime) fn is_already_there(&self) -> bool {
        matches!(self, Self::Status { status, .. } if status.code() == Code::AlreadyExists)
    }

    /// Tells whether trying again may help: containerd is away or overloaded, or the disk full.
    pub(in crate::runtime) fn is_temporary(&self) -> bool {
        let Self::Status { status, broken } = self else { return true };
        let passing = matches!(
            status.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Cancelled
        );
        let text = status.message();
        passing || *broken || PASSING.iter().any(|passing| text.contains(passing))
    }

    /// Renders the error for the agent, saying what was tried.
    pub(in crate::runtime) fn failure(&self, what: &str) -> Failure {
        Failure { message: format!("{what}: {}", chain(self)), temporary: self.is_temporary() }
    }
}

/// Turns "there is no such thing" into none.
pub(in crate::runtime) fn found<T>(result: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The way to containerd. Clones share one connection.
#[derive(Debug, Clone)]
pub(in crate::runtime) struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: String,
    namespace: tonic::metadata::AsciiMetadataValue,
    namespace_text: String,
    channel: smol::lock::Mutex<Option<Channel>>,
}

impl Link {
    /// Makes a link; connects when first used. A namespace that no header can carry is refused by
    /// containerd at the first call, as it refuses the empty one.
    pub(in crate::runtime) fn new(socket: String, namespace: &str) -> Self {
        let value = namespace.parse().unwrap_or_else(|_| "".parse().expect("nothing is ASCII"));
        let channel = smol::lock::Mutex::new(None);
        let namespace_text = namespace.to_owned();
        let shared = Shared { socket, namespace: value, namespace_text, channel };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the containerd namespace.
    pub(in crate::runtime) fn namespace(&self) -> &str {
        &self.shared.namespace_text
    }

    /// Returns the origin that generated clients are made with.
    pub(in crate::runtime) fn origin() -> http::Uri {
        http::Uri::from_static(ORIGIN)
    }

    /// Wraps a message with the headers that every call has.
    pub(in crate::runtime) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let namespace = self.shared.namespace.clone();
        request.metadata_mut().insert("containerd-namespace", namespace);
        request
    }

    /// Returns the connection, made anew where it ended.
    pub(in crate::runtime) async fn channel(&self) -> Result<Channel, ConnectError> {
        let mut slot = self.shared.channel.lock().await;
        if let Some(channel) = slot.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        let channel = Channel::connect(&self.shared.socket).await?;
        *slot = Some(channel.clone());
        Ok(channel)
    }

    /// Makes one call: `send` is given the connection and answers within `limit`.
    pub(in crate::runtime) async fn call<T, F>(
        &self,
        call: &'static str,
        limit: Duration,
        send: impl FnOnce(Channel) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let channel = self.channel().await.map_err(CallError::Connect)?;
        match within(limit, send(channel.clone())).await {
            Some(Ok(response)) => Ok(response.into_inner()),
            Some(Err(status)) => {
                let broken = status.source().is_some() || channel.is_closed();
                Err(CallError::Status { status: Box::new(status), broken })
            }
            None => Err(CallError::Late { call, limit }),
        }
    }
}

/// Turns protobuf's time into ours; none for the unset and the impossible.
pub(in crate::runtime) fn date(time: Option<prost_types::Timestamp>) -> Option<Date> {
    let time = time?;
    let seconds = u64::try_from(time.seconds).ok()?;
    let nanos = u64::try_from(time.nanos).ok()?;
    let total = seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?;
    (total > 0).then(|| Date::from_unix_nanos(total))
}
