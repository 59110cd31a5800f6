//! Calls to containerd about images, over a [`link`] of their own: a deadline for each, the lease
//! on each request, what its failure means for a transfer.

use crate::{
    runtime::{
        containerd::{
            client::{Channel, ORIGIN},
            link,
        },
        image::RuntimeError,
    },
    util::{deadline, error::chain},
};
use containerd_client::services::v1::{
    CreateRequest, DeleteRequest, ListRequest, content_client::ContentClient,
    diff_client::DiffClient, images_client::ImagesClient, leases_client::LeasesClient,
    snapshots::snapshots_client::SnapshotsClient,
};
use futures_util::FutureExt as _;
use smol::lock::Mutex;
use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
};

/// How long a small call may take: milliseconds, unless an SD card is busy writing.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(30);

/// How long a call may take that waits for the disk or for containerd's collector.
pub(super) const SLOW_CALL_LIMIT: Duration = Duration::from_secs(300);

/// How long a lease protects what nobody refers to yet, should we be gone: a transfer that was cut
/// can be resumed that long.
const LEASE_LIFE: Duration = Duration::from_secs(24 * 3_600);

/// How old a lease may be that is used again, so that the longest pull still fits in its life.
const LEASE_REUSE: Duration = Duration::from_secs(12 * 3_600);

const EXPIRE_LABEL: &str = "containerd.io/gc.expire";

pub(super) type Origin = tonic::transport::Uri;

pub(super) struct Link {
    calls: link::Link,
    keys: std::sync::Mutex<BTreeMap<String, Weak<Mutex<()>>>>,
}

impl Link {
    pub(super) fn new(socket: &str, namespace: &str) -> Self {
        let calls = link::Link::new(socket.to_owned(), namespace);
        Self { calls, keys: std::sync::Mutex::default() }
    }

    pub(super) fn namespace(&self) -> &str {
        self.calls.namespace()
    }

    pub(super) async fn channel(&self) -> Result<Channel, RuntimeError> {
        self.calls.channel().await.map_err(|error| RuntimeError::Away(chain(&error)))
    }

    pub(super) async fn content(&self) -> Result<ContentClient<Channel>, RuntimeError> {
        Ok(ContentClient::with_origin(self.channel().await?, origin()))
    }

    pub(super) async fn images(&self) -> Result<ImagesClient<Channel>, RuntimeError> {
        Ok(ImagesClient::with_origin(self.channel().await?, origin()))
    }

    pub(super) async fn snapshots(&self) -> Result<SnapshotsClient<Channel>, RuntimeError> {
        Ok(SnapshotsClient::with_origin(self.channel().await?, origin()))
    }

    pub(super) async fn diff(&self) -> Result<DiffClient<Channel>, RuntimeError> {
        Ok(DiffClient::with_origin(self.channel().await?, origin()))
    }

    pub(super) async fn leases(&self) -> Result<LeasesClient<Channel>, RuntimeError> {
        Ok(LeasesClient::with_origin(self.channel().await?, origin()))
    }

    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        self.calls.request(message)
    }

    pub(super) fn leased<T>(&self, message: T, lease: &Lease) -> Request<T> {
        let mut request = self.request(message);
        request.metadata_mut().insert("containerd-lease", lease.id.clone());
        request
    }

    /// Waits until nobody else works on `key`: a blob, a layer, an image. Two pulls of one image
    /// do each piece of the work once.
    pub(super) async fn exclusive(&self, key: String) -> smol::lock::MutexGuardArc<()> {
        let lock = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.retain(|_, lock| lock.strong_count() > 0);
            let known = keys.get(&key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(Mutex::new(()));
                keys.insert(key, Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_arc().await
    }

    /// Makes a lease, or takes up the one of an earlier, cut attempt, which still protects what
    /// that one fetched.
    pub(super) async fn lease(&self, id: &str) -> Result<Lease, RuntimeError> {
        let mut leases = self.leases().await?;
        let key = MetadataValue::try_from(id).map_err(|_| refused("name a lease", "bad name"))?;
        let lease = Lease { id: key };
        let now = std::time::SystemTime::now();
        let expiry = prost_types::Timestamp::from(now + LEASE_LIFE).to_string();
        let message =
            CreateRequest { id: id.to_owned(), labels: [(EXPIRE_LABEL.to_owned(), expiry)].into() };
        let create = leases.create(self.request(message.clone()));
        match absent(code_is(Code::AlreadyExists), call("make a lease", CALL_LIMIT, create)).await?
        {
            Some(_) => return Ok(lease),
            None if self.lease_age(id).await?.is_some_and(|age| age < LEASE_REUSE) => {
                return Ok(lease);
            }
            None => (),
        }
        self.end(&lease).await?;
        let create = leases.create(self.request(message));
        call("make a lease", CALL_LIMIT, create).await?;
        Ok(lease)
    }

    async fn lease_age(&self, id: &str) -> Result<Option<Duration>, RuntimeError> {
        let mut leases = self.leases().await?;
        let list = leases.list(self.request(ListRequest { filters: vec![format!("id=={id}")] }));
        let found = call("list leases", CALL_LIMIT, list).await?.leases;
        let created = found.into_iter().find(|lease| lease.id == id).and_then(|l| l.created_at);
        let created = created.and_then(|date| std::time::SystemTime::try_from(date).ok());
        // A clock that was set back makes any age possible: then the lease is made anew.
        Ok(created.and_then(|date| date.elapsed().ok()))
    }

    /// Gives a lease up: from here on only labels protect what it held.
    pub(super) async fn end(&self, lease: &Lease) -> Result<(), RuntimeError> {
        let id = lease.id.to_str().unwrap_or("").to_owned();
        let mut leases = self.leases().await?;
        let delete = leases.delete(self.request(DeleteRequest { id, sync: false }));
        let ended = call("end a lease", SLOW_CALL_LIMIT, delete);
        absent(code_is(Code::NotFound), ended).await.map(drop)
    }
}

/// Keeps what was written under it from containerd's collector.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    id: MetadataValue<Ascii>,
}

/// A call's failure, with containerd's code kept for the callers that expect one.
#[derive(Debug)]
pub(super) struct CallError {
    pub(super) code: Option<Code>,
    pub(super) error: RuntimeError,
}

impl From<CallError> for RuntimeError {
    fn from(error: CallError) -> Self {
        error.error
    }
}

impl From<RuntimeError> for CallError {
    fn from(error: RuntimeError) -> Self {
        Self { code: None, error }
    }
}

pub(super) fn refused(action: &'static str, message: &str) -> RuntimeError {
    RuntimeError::Refused { action, message: message.to_owned(), temporary: false }
}

/// Turns containerd's refusal into ours.
pub(super) fn refusal(action: &'static str, status: &Status) -> CallError {
    let temporary = matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Aborted
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unknown
    );
    let message = status.message().to_owned();
    let error = RuntimeError::Refused { action, message, temporary };
    CallError { code: Some(status.code()), error }
}

/// A call under way. Boxed: the futures of generated clients have kilobytes, and a chain of them
/// inside of one another would not fit on a thread's stack.
pub(super) type Calling<'a, T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send + 'a>>;

/// Waits for an answer, but not for ever.
pub(super) fn call<'a, T: Send + 'a>(
    action: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>> + Send + 'a,
) -> Calling<'a, T> {
    within(action, limit, async { answer.await.map(Response::into_inner) })
}

/// As [`call`], for the messages of a stream.
pub(super) fn within<'a, T: Send + 'a>(
    action: &'static str,
    limit: Duration,
    answer: impl Future<Output = Result<T, Status>> + Send + 'a,
) -> Calling<'a, T> {
    Box::pin(deadline::within(limit, answer).map(move |answer| match answer {
        Some(answer) => answer.map_err(|status| refusal(action, &status)),
        None => Err(RuntimeError::Late { action, seconds: limit.as_secs() }.into()),
    }))
}

/// Turns a failure that the caller expects into `None`.
pub(super) async fn absent<T>(
    expected: impl Fn(&CallError) -> bool,
    answer: impl Future<Output = Result<T, CallError>>,
) -> Result<Option<T>, RuntimeError> {
    match answer.await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if expected(&error) => Ok(None),
        Err(error) => Err(error.error),
    }
}

pub(super) fn code_is(code: Code) -> impl Fn(&CallError) -> bool {
    move |error| error.code == Some(code)
}

pub(super) fn origin() -> Origin {
    Origin::from_static(ORIGIN)
}
