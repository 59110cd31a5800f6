//! Joining: how a node without a certificate gets one.
//!
//! One connection, two steps. The manager first shows the root certificate; only when its digest
//! is the token's, and the manager's own certificate stands under that root, does the token's
//! secret leave this machine.

use super::{
    CONNECT_LIMIT,
    endpoint::{Endpoint, open},
    serve::chain,
    stream::{ByteReceiver, StreamError, within},
    tls::{Close, check_manager, explain},
    uplink::{connect, earliest, resolve},
};
use crate::{
    cluster::{Admission, JoinRequest},
    pki::{self, Identity, TokenText},
    types::Date,
    wire::{StreamReply, StreamRequest},
};
use futures_lite::FutureExt as _;
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use std::{net::SocketAddr, time::Duration};

/// How long a manager may take to admit a node: a commit, and an election before it.
const ADMISSION_LIMIT: Duration = Duration::from_secs(20);

/// By how much the clocks may differ: certificates begin an hour in the past and last months.
const CLOCK_SLACK: Duration = Duration::from_secs(24 * 3_600);

/// What a join gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Who this node is now.
    pub admission: Admission,
    /// The cluster's root certificate, DER; its digest is the token's.
    pub root: Vec<u8>,
    /// Where the manager was reached.
    pub manager: SocketAddr,
}

/// A join came to nothing; nothing was changed here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// No address was given.
    #[error("no manager's address was given")]
    NoAddress,
    /// The name stands for no address.
    #[error("cannot find {address}: {error}")]
    Unresolved {
        /// The manager's, as given.
        address: String,
        /// Why.
        error: String,
    },
    /// Nobody answers there.
    #[error("no manager answers at {address} (UDP) within {limit:?}: {error}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// How long it was waited for.
        limit: Duration,
        /// Why.
        error: String,
    },
    /// It is another cluster's manager, or somebody pretends to be one.
    #[error(
        "the join token is for another cluster than that of the manager at {address}, or of before \
         the cluster's root certificate was rotated"
    )]
    OtherCluster {
        /// Where.
        address: SocketAddr,
    },
    /// Certificates mean nothing to a clock this wrong.
    #[error(
        "this machine's clock is {difference} {direction} the manager's ({theirs}); set the clock"
    )]
    Clock {
        /// How far off, in words.
        difference: String,
        /// `behind` or `ahead of`.
        direction: &'static str,
        /// The manager's date.
        theirs: Date,
    },
    /// What answers has the right root, but no manager's certificate under it.
    #[error("the peer at {address} is no manager of the cluster: {error}")]
    NoManager {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: String,
    },
    /// The manager refused.
    #[error("the manager refused: {0}")]
    Refused(String),
    /// The connection ended, or what came does not fit.
    #[error("the join through {address} failed: {error}")]
    Failed {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: String,
    },
}

impl JoinError {
    /// Tells whether another address may do better.
    fn is_local(&self) -> bool {
        !matches!(self, Self::OtherCluster { .. } | Self::Clock { .. } | Self::Refused(_))
    }
}

impl Endpoint {
    /// Joins a cluster through the first of `managers` (`host:port`) that answers. One that does not
    /// at once is not waited for: the next is called beside it.
    ///
    /// # Errors
    ///
    /// See [`JoinError`]. The token's secret was sent only where it says `Refused` or `Failed`.
    pub async fn join(
        &self,
        managers: &[String],
        token: &TokenText,
        mut request: JoinRequest,
    ) -> Result<Joined, JoinError> {
        request.secret = token.secret;
        let mut last = JoinError::NoAddress;
        let mut left = Vec::new();
        for found in join_all(managers.iter().map(|address| self.find(address))).await {
            match found {
                Ok(found) => left.extend(found),
                Err(error) => last = error,
            }
        }
        // One after the other from here on: asked twice, a cluster may admit a node twice.
        while !left.is_empty() {
            let dials = left
                .iter()
                .map(|target| async { Ok((*target, self.dial(*target).await?)) }.boxed());
            let (address, connection) = earliest(last, dials).await?;
            match self.join_on(&connection, address, token, &request).await {
                Err(error) if error.is_local() => last = error,
                outcome => {
                    Close::Done.apply(&connection);
                    return outcome;
                }
            }
            Close::Done.apply(&connection);
            left.retain(|target| *target != address);
        }
        Err(last)
    }

    async fn find(&self, address: &str) -> Result<Vec<SocketAddr>, JoinError> {
        resolve(&self.inner, address).await.map_err(|error| {
            let (address, error) = (address.to_owned(), error.to_string());
            JoinError::Unresolved { address, error }
        })
    }

    async fn dial(&self, address: SocketAddr) -> Result<quinn::Connection, JoinError> {
        connect(&self.inner, address, &self.inner.stranger).await.map_err(|error| {
            JoinError::Unreachable { address, limit: CONNECT_LIMIT, error: error.to_string() }
        })
    }

    async fn join_on(
        &self,
        connection: &quinn::Connection,
        address: SocketAddr,
        token: &TokenText,
        request: &JoinRequest,
    ) -> Result<Joined, JoinError> {
        let shown = root(connection).await;
        let (root, theirs) = shown.map_err(failed(address, connection.close_reason()))?;
        let digest: [u8; 32] = Sha256::digest(&root).into();
        if digest != token.root_digest {
            return Err(JoinError::OtherCluster { address });
        }
        compare_clocks(self.inner.clock.date(), theirs)?;
        let no_manager = |error: String| JoinError::NoManager { address, error };
        let chain =
            chain(connection).ok_or_else(|| no_manager("it shows no certificate".to_owned()))?;
        check_manager(&chain, &root, &self.inner.clock)
            .map_err(|error| no_manager(error.to_string()))?;
        let admitted = within(ADMISSION_LIMIT, admission(connection, request)).await;
        let admission = match admitted {
            Ok(admission) => admission,
            Err(StreamError::Refused(refusal)) => return Err(JoinError::Refused(refusal.message)),
            Err(error) => return Err(failed(address, connection.close_reason())(error)),
        };
        match unfit(&admission, &request.csr) {
            None => Ok(Joined { admission, root, manager: address }),
            Some(error) => Err(JoinError::Failed { address, error: error.to_owned() }),
        }
    }
}

fn failed(
    address: SocketAddr,
    cause: Option<quinn::ConnectionError>,
) -> impl FnOnce(StreamError) -> JoinError {
    move |error| {
        let error = cause.map_or_else(|| error.to_string(), |cause| explain(&cause));
        JoinError::Failed { address, error }
    }
}

async fn root(connection: &quinn::Connection) -> Result<(Vec<u8>, Date), StreamError> {
    let asked = async {
        let mut receiver = ask(connection, &StreamRequest::Root).await?;
        // Nothing of this peer is trusted yet: no more is read than a root takes.
        match receiver.receive_up_to::<StreamReply>(crate::wire::STRANGER_LEN_MAX).await? {
            Some(StreamReply::Root { certificate, date }) => Ok((certificate, date)),
            Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
            _ => Err(StreamError::Unexpected),
        }
    };
    within(CONNECT_LIMIT, asked).await
}

async fn admission(
    connection: &quinn::Connection,
    request: &JoinRequest,
) -> Result<Admission, StreamError> {
    let request = StreamRequest::Join(Box::new(request.clone()));
    match ask(connection, &request).await?.receive::<StreamReply>().await? {
        Some(StreamReply::Admitted(admission)) => Ok(*admission),
        Some(StreamReply::Refused(refusal)) => Err(refusal.into()),
        _ => Err(StreamError::Unexpected),
    }
}

async fn ask(
    connection: &quinn::Connection,
    request: &StreamRequest,
) -> Result<ByteReceiver, StreamError> {
    let (mut sender, receiver) = open(connection).await?;
    sender.send(request).await?;
    sender.finish().await?;
    Ok(receiver)
}

/// Returns why an admission is not what was asked for.
fn unfit(admission: &Admission, csr: &[u8]) -> Option<&'static str> {
    let Ok(identity) = Identity::from_certificate(&admission.certificate) else {
        return Some("the manager sent no certificate");
    };
    let named = identity.node == admission.node
        && identity.role == admission.role
        && identity.cluster == admission.cluster;
    if !named {
        return Some("the manager sent a certificate that names another node");
    }
    match (pki::key_digest(&admission.certificate), pki::request_key_digest(csr)) {
        (Ok(signed), Ok(asked)) if signed == asked => None,
        _ => Some("the manager sent a certificate of another key"),
    }
}

fn compare_clocks(ours: Date, theirs: Date) -> Result<(), JoinError> {
    let (behind, ahead) = (theirs.since(ours), ours.since(theirs));
    let off = behind.max(ahead);
    if off <= CLOCK_SLACK {
        return Ok(());
    }
    let days = off.as_secs() / 86_400;
    let difference = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
    let direction = if behind > ahead { "behind" } else { "ahead of" };
    Err(JoinError::Clock { difference, direction, theirs })
}
